"""``result.json``: written whole, read back equal, and knowing where it came from."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from sparse_xp import result
from sparse_xp.errors import UserError
from sparse_xp.result import Result, git_revision, provenance, summary, told, told_command
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
    ("change", "named"),
    [
        (lambda raw: raw.pop("seed"), "'seed'"),
        (lambda raw: raw["training"].pop("steps"), "'steps'"),
        (lambda raw: raw.update(extra=1), "'extra'"),
        (lambda raw: raw["deployment"].update(extra=1), "'extra'"),
        (lambda raw: raw.update(seed="x" * 200_000), "seed is 'xxx"),
        (lambda raw: raw["training"].update(seconds=None), "seconds is None"),
    ],
    ids=[
        *("a field is missing", "a field of a part is missing", "an unknown field", "an unknown field of a part"),
        *("a field of another type", "no number"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, named):
    raw = asdict(make_result())
    change(raw)
    (tmp_path / "result.json").write_text(json.dumps(raw))
    with pytest.raises(UserError) as caught:
        Result.read(tmp_path / "result.json")
    assert str(caught.value).startswith(f"{tmp_path}/result.json is damaged (")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 2100


# ---- what others may read of paths ----

HOME = "/home/alice"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{HOME}/runs/dense", "../dense"),
        (f"{HOME}/runs/sweep/dense/model", "../sweep/dense/model"),
        (f"{HOME}/runs/mine/model", "model"),
        (f"{HOME}/runs/mine", "mine"),
        (f"{HOME}/other/dense", "dense"),
        (f"{HOME}/other/dense/", "dense"),
        (f"{HOME}/other/dense/model", "dense/model"),
        (f"{HOME}/runs2/dense", "dense"),
        (f"{HOME}/runs/../secret", "secret"),
        ("~/secret", "secret"),
        ("~", "alice"),
        ("/", ""),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("outputs/gone", "outputs/gone"),
        ("self", "self"),
    ],
)
def test_a_path_is_told_without_the_home(path, said, monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    assert told(path, Path(f"{HOME}/runs/mine")) == said
    assert told(said) == said or "/" in said


def test_a_path_that_is_there_is_told_from_the_run(tmp_path):
    for name in ("outputs/dense", "outputs/mine", "models/bert"):
        Path(name).mkdir(parents=True)
    assert told("outputs/dense", Path("outputs/mine")) == "../dense"
    assert told("models/bert", Path("outputs/mine")) == "bert"
    assert told("models/bert") == "bert"
    assert told(str(tmp_path / "outputs/dense"), Path("outputs/mine")) == "../dense"


def test_a_home_behind_a_link(tmp_path):
    (tmp_path / "disk/alice/runs/dense").mkdir(parents=True)
    (tmp_path / "alice").symlink_to(tmp_path / "disk/alice")
    for one, other in (("alice", "disk/alice"), ("disk/alice", "alice")):
        assert told(str(tmp_path / one / "runs/dense"), tmp_path / other / "runs/mine") == "../dense"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.root={home}/data"], ["data.root=data"]),
        (["data.root={here}/data/x"], ["data.root=data/x"]),
        (["hydra.run.dir={home}/runs/mine"], ["hydra.run.dir=mine"]),
        (["hydra.run.dir={here}/outputs/mine"], ["hydra.run.dir=outputs/mine"]),
        (["teacher.path='{home}/runs/dense,seed=1'"], ["teacher.path='../dense,seed=1'"]),
        ([r"teacher.path='{home}/it\'s'"], [r"teacher.path='it\'s'"]),
        (["--config-dir", "{home}/own", "task=own"], ["--config-dir", "own", "task=own"]),
        (["--config-dir={home}/own"], ["--config-dir=own"]),
        (["hydra.searchpath=[file://{home}/own]"], ["hydra.searchpath=[file://own]"]),
        (["teacher.overrides=['data.root={home}/data','seed=1']"], ["teacher.overrides=['data.root=data','seed=1']"]),
        (["data.train=~/rows.csv"], ["data.train=rows.csv"]),
        (["model.checkpoint=google-bert/bert-base-uncased"], ["model.checkpoint=google-bert/bert-base-uncased"]),
        (["data.train=rows of mine.csv", "-m"], ["data.train=rows of mine.csv", "-m"]),
        (["recipe.args={{a: 1, b: '1/2'}}", "seed=1"], ["recipe.args={{a: 1, b: '1/2'}}", "seed=1"]),
    ],
)
def test_a_command_is_told_so_that_it_still_runs_where_it_was_issued(words, said, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    places = {"home": HOME, "here": tmp_path}
    command = shlex.join(["python", "-m", "sparse_xp", *(word.format(**places) for word in words)])
    after = told_command(command, Path(f"{HOME}/runs/mine"))
    assert shlex.split(after)[3:] == [word.format() for word in said]
    assert told_command(after, Path(f"{HOME}/runs/mine")) == after


def test_a_command_that_is_no_command_line_stays():
    assert told_command("it's", Path()) == "it's"


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
