"""``result.json``: written whole, read back equal, and knowing where it came from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from sparse_xp import result
from sparse_xp.result import Result, git_revision, provenance, summary
from tests.tiny import make_result


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    written = make_result(teacher="outputs/dense", seed=7)
    written.write(tmp_path / "result.json")
    read = Result.read(tmp_path / "result.json")
    assert read == written
    assert type(read.sparsity) is type(written.sparsity)
    assert type(read.training) is type(written.training)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_file_is_plain_json_for_other_tools(tmp_path):
    make_result().write(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    assert text.endswith("}\n")
    raw = json.loads(text)
    assert raw["metric"] == "f1"
    assert raw["deployment"]["metrics"] == {"exact_match": 75.0, "f1": 82.25}
    assert raw["provenance"]["git"] is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda raw: raw.pop("seed"), TypeError),
        (lambda raw: raw["training"].pop("steps"), TypeError),
        (lambda raw: raw.update(extra=1), TypeError),
        (lambda raw: raw["deployment"].update(extra=1), TypeError),
    ],
    ids=["a field is missing", "a field of a part is missing", "an unknown field", "an unknown field of a part"],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, error):
    raw = asdict(make_result())
    change(raw)
    (tmp_path / "result.json").write_text(json.dumps(raw))
    with pytest.raises(error):
        Result.read(tmp_path / "result.json")


def test_summary():
    assert summary(make_result()) == (
        "exported file: exact_match 75.00  f1 82.25  sparsity 80.0%  12.35 MB (4.50 MB under zstd)"
    )


def test_provenance_names_the_command_and_the_versions(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/sparse_xp/__main__.py", "task=squad", "recipe=pruned80"])
    monkeypatch.setattr(result, "LIBRARIES", ("torch", "not-installed-anywhere"))
    made = provenance("abc", "def")
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
    monkeypatch.setattr(result, "PACKAGE", package)
    assert git_revision() == commit[:12]
    (package / "code.py").write_text("2\n")
    assert git_revision() == f"{commit[:12]}-dirty"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_an_installed_package_has_no_revision_even_inside_another_checkout(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "site-packages" / "sparse_xp"
    package.mkdir(parents=True)
    (package / "code.py").touch()
    commit_all(tmp_path)
    monkeypatch.setattr(result, "PACKAGE", package)
    assert git_revision() is None


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(result, "PACKAGE", tmp_path / "sparse_xp")
    monkeypatch.setenv("PATH", "")
    assert git_revision() is None
