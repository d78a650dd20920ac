"""Where a result comes from: the command, the versions, the commit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sparse_xp import provenance
from sparse_xp.provenance import git_revision, record_provenance


def test_provenance_names_the_command_and_the_versions(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/sparse_xp/__main__.py", "task=squad", "recipe=pruned80"])
    monkeypatch.setattr(provenance, "LIBRARIES", ("torch", "not-installed-anywhere"))
    made = record_provenance("abc", "def")
    assert made.command == "python -m sparse_xp task=squad recipe=pruned80"
    assert (made.config_hash, made.data_fingerprint) == ("abc", "def")
    assert list(made.versions) == ["torch"]
    assert re.match(r"\d+\.\d+", made.versions["torch"])


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path) -> str:
    """Make ``folder`` a repository of what is in it; returns the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return git(folder, "rev-parse", "HEAD")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_is_the_commit_and_says_when_the_code_was_changed_since(tmp_path, monkeypatch):
    package = tmp_path / "sparse_xp"
    package.mkdir()
    (package / "code.py").write_text("1\n")
    commit = commit_all(tmp_path)
    git(tmp_path, "tag", "--annotate", "v1", "--message", "a tag is not a commit")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert git_revision() == commit[:12]
    (package / "code.py").write_text("2\n")
    assert git_revision() == f"{commit[:12]}-dirty"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_an_installed_package_has_no_revision_even_inside_another_checkout(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "site-packages" / "sparse_xp"
    package.mkdir(parents=True)
    (package / "code.py").touch()
    commit_all(tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert git_revision() is None


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "sparse_xp")
    monkeypatch.setenv("PATH", "")
    assert git_revision() is None
