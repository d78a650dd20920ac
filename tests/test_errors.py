"""Errors in words: one message of a readable length for whatever is typed, whatever a file holds, wherever it lies."""

from __future__ import annotations

import errno
import os
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from sparse_xp.__main__ import cli
from sparse_xp.error_report import describe_error, report_errors
from sparse_xp.errors import MAX_LENGTH, UserError, shortened
from sparse_xp.recipe.check import check_recipes, load_recipe
from sparse_xp.recipe.convert import convert_recipe
from sparse_xp.recipe.loader import read_mapping
from tests.fuzz_recipes import recipes
from tests.tiny import make_result

#: a message, a usage line or two, and how to see more
MOST = MAX_LENGTH + 500


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """All that a command of the package says; it must end by itself and without a traceback."""
    monkeypatch.setattr("sparse_xp.main.run", lambda *_, **__: make_result())

    def run(module: str, *words: str) -> str:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [module, *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        capsys.readouterr()
        said: object = ""
        try:
            cli() if module == "sparse_xp" else runpy.run_module(module, run_name="__main__")
        except SystemExit as stop:
            said = stop.code
        printed = capsys.readouterr()
        return printed.out + printed.err + (said if isinstance(said, str) else "")

    return run


def assert_readable(message: str) -> None:
    assert len(message) < MOST, len(message)
    assert not [char for char in message if not char.isprintable() and char not in "\n\t"]
    assert "Traceback" not in message


#: words before one that is damaged; {} is that one
LINES = {
    "sparse_xp": [
        *("{}", "task={}", "train.epochs={}", "+{}=1", "--{}", "--config-dir={}", "--config-dir . --config-name={}"),
        *("hydra.run.dir={}", "recipe.path={}.yaml", "zoo={}"),
    ],
    "sparse_xp.report": ["{}", "--sweep {}", "--out {} .", "--{}"],
    "sparse_xp.cpu": ["{}", "kind={}", "{}=1"],
    "sparse_xp.verify": ["{}"],
    "sparse_xp.predict": ["{}", "model={}", "{}=1"],
    "sparse_xp.latency": ["{}", "kind={}", "{}=1"],
    "sparse_xp.expand": ["{}", "model={}", "{}=1"],
    "sparse_xp.benchmark": ["{}", "run={}", "{}=1"],
    "sparse_xp.export": ["{}", "run={}", "task={}", "{}=1"],
    "sparse_xp.recipe": [
        *("check {}.md", "show {}.md", "convert {}.yaml", "show recipe={}", "check zoo:{}", "check --zoo {} x.md"),
        *("show recipe=dense --config-dir {}", "show x.md --run {}", "check x.md --args {}", "{}"),
        *("show recipe=dense --steps-per-epoch {}",),
    ],
}
WORDS = {"long": "x" * 200_000, "surrogate": "a\udcffb", "escape": "\x1b[31mred\x07\x1b]0;title\x07"}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", LINES)
@pytest.mark.parametrize("kind", WORDS)
def test_any_word_comes_to_one_readable_message(module, kind, say):
    for line in LINES[module]:
        # Hydra takes a second for a long word
        damaged = WORDS[kind] if module != "sparse_xp" or line == "task={}" else WORDS[kind][:20_000]
        message = say(module, *(word.format(damaged) for word in line.split()))
        assert message or module == "sparse_xp", line  # the run itself is left out
        assert_readable(message)


def test_a_word_that_no_file_can_hold_is_refused_before_the_run(say):
    assert "it has bytes that are not UTF-8" in say("sparse_xp", "task.text=a\udcffb")


def test_an_error_of_a_run_is_not_told_with_all_words(say):
    message = say("sparse_xp", f"data.root={'x' * 200_000}", "teacher=none", "hydra.run.dir=here")
    assert message.startswith("data.root=xxx")
    assert "there is no such directory" in message
    assert len(message) < 400


def test_shortened():
    assert shortened("a\tb\nc") == "a\tb\nc"
    assert shortened("\x1b[31m\x00\x9b\u202e\udcff") == r"\x1b[31m\x00\x9b\u202e\udcff"
    text = "first " + "x" * 1_000_000 + " last"
    assert len(shortened(text)) < MAX_LENGTH + 50
    assert shortened(text).startswith("first ")


# ---- places that cannot be written ----


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["hydra.run.dir=closed/run"], "closed/run"),
        (["-m", "seed=1,2", "hydra.sweep.dir=closed/sweep"], "closed/sweep"),
        (["-m", "seed=1,2", "hydra.sweep.dir=closed/sweep", "hydra/launcher=slots"], "closed/sweep"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_its_key(number, words, place, say, monkeypatch):
    real = os.mkdir
    words = [*words, "profile=embedded", "recipe=dense", "task=sst2"]

    def mkdir(path, *args, **options):
        if "closed" in os.fspath(path):
            raise OSError(number, os.strerror(number), os.fspath(path))
        real(path, *args, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    message = say("sparse_xp", *words)
    assert_readable(message)
    assert f"{place}: {os.strerror(number).lower()}." in message.replace(f"{Path.cwd()}/", "")
    assert ("hydra.sweep.dir=" if "-m" in words else "hydra.run.dir=") in message


@pytest.mark.parametrize("key", ["data.cache=", "out=", "hydra.sweep.dir="])
def test_the_keys_of_places(key):
    error = PermissionError(errno.EACCES, "Permission denied", "/somewhere")
    assert describe_error(error).startswith("/somewhere: permission denied. Name a place that you may read and write: ")
    assert key in describe_error(error)
    assert describe_error(OSError(errno.ENAMETOOLONG, "File name too long", "x")) == "x: file name too long."


def test_an_interrupt_and_a_full_screen_are_told_in_words(capsys):
    with pytest.raises(SystemExit) as stopped, report_errors(traceback=False):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(SystemExit, match="No space left on the disk"), report_errors(traceback=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_of_ours_keeps_its_traceback():
    """Only what Hydra stumbles over is taken for the user's."""
    for error in (ValueError("x"), AssertionError("x"), OSError("x"), KeyError("x"), RecursionError("x")):
        with pytest.raises(type(error)), report_errors(traceback=False):
            raise error


# ---- files ----


def exploding(times: int = 12) -> str:
    """A list of lists of lists, by aliases: few words, and 9^12 values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, times)]
    return "\n".join(lines) + "\n"


DAMAGE = {
    "cut": b"name: [1, 2",
    "a list": b"- 1\n- 2\n",
    "a number": b"5\n",
    "not UTF-8": "name: é".encode("latin-1"),
    "bytes": bytes(range(256)) * 4,
    "NUL": b"name: \0\0",
    "nested": b"name: " + b"[" * 1000 + b"]" * 1000,
    "nested mappings": "\n".join(f"{' ' * i}a:" for i in range(1000)).encode(),
    "digits": b"seed: " + b"9" * 5000,
    "aliases": exploding().encode(),
    "holds itself": b"a: &a [*a]\n",
    "a tag": b"a: !!python/name:os.system ''\n",
    "no integer": b"a: !!int ''\n",
    "no date": b"a: 2001-13-45\n",
    "escape": b"\x1b[31m: 1\n",
    "long": b"x" * 200_000,
    "a megabyte": b"a: 1\n" * 300_000,
    "two documents": b"a: 1\n---\nb: 1\n",
}


@pytest.mark.parametrize("kind", [*DAMAGE, "a directory", "missing"])
def test_a_file_that_is_no_mapping_is_named(kind, tmp_path):
    path = tmp_path / "mine.yaml"
    if kind in DAMAGE:
        path.write_bytes(DAMAGE[kind])
    elif kind == "a directory":
        path.mkdir()
    started = time.process_time()
    with pytest.raises(UserError) as caught:
        read_mapping(path)
    assert time.process_time() - started < 60  # what grows without bound never ends
    assert str(caught.value).startswith(str(path))
    assert_readable(str(caught.value))


def test_a_file_that_is_a_mapping(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, told in (
        ("", {}),
        ("# nothing\n", {}),
        ("\ufeffa: 1\n", {"a": 1}),
        ("a: &x [1]\nb: *x\n", {"a": [1], "b": [1]}),
    ):
        path.write_text(text, encoding="utf-8")
        assert read_mapping(path) == told


@pytest.mark.parametrize("suffix", ["yaml", "md"])
def test_a_recipe_that_is_none_is_named(suffix):
    for data in DAMAGE.values():
        path = Path(f"mine.{suffix}")
        path.write_bytes(b"---\n" + data + b"\n---\n" if suffix == "md" else data)
        with pytest.raises(UserError, match=rf"^mine\.{suffix}[: ]") as caught:
            load_recipe(str(path))
        assert_readable(str(caught.value))


@pytest.mark.parametrize("kind", ["a list", "not UTF-8", "aliases", "a directory"])
def test_a_damaged_configuration_is_named_by_the_command(kind, say):
    """Whatever way it is told of: a group's option, the file of a sweep, a table of stubs, a recipe."""
    for name in ("own/task/mine.yaml", "own/mine.yaml"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DAMAGE[kind]) if kind in DAMAGE else path.mkdir()
    for file, words in {
        "own/task/mine.yaml": ["--config-dir", "own", "task=mine"],
        "own/mine.yaml": ["-m", "--config-dir=own", "--config-name=mine"],
        "mine.yaml": ["recipe=file", "recipe.path=own/mine.yaml"],
        "./own/mine.yaml": ["zoo=./own/mine.yaml", "model.checkpoint=zoo:x", "profile=embedded"],
    }.items():
        message = say("sparse_xp", *words)
        assert_readable(message)
        assert file.removeprefix("./") in message, message


def test_a_damaged_file_that_another_names_is_told(say):
    """Hydra finds it; its own error, or Python's, comes to one message."""
    Path("own/task").mkdir(parents=True)
    Path("own/task/mine.yaml").write_text("defaults: [base, _self_]\nname: mine\n")
    for data in (b"- 1\n", "é".encode("latin-1"), b"a: " + b"9" * 5000, b"defaults: 5\n"):
        Path("own/task/base.yaml").write_bytes(data)
        message = say("sparse_xp", "--config-dir", "own", "task=mine")
        assert message, data
        assert_readable(message)


# ---- recipes ----


def plans(texts: Iterator[str]) -> tuple[int, int]:
    """How many texts are recipes, and how many are refused: nothing else may come of one."""
    counts = [0, 0]
    for text in texts:
        try:
            convert_recipe(text)
            counts[0] += 1
        except UserError as error:
            counts[1] += 1
            assert_readable(str(error))
    return counts[0], counts[1]


def test_damaged_recipes_come_to_a_plan_or_to_a_message():
    good, bad = plans(recipes(seed=3, count=300))
    assert good > 10
    assert bad > 100


def test_the_same_seed_makes_the_same_recipes():
    assert list(recipes(1, 5)) == list(recipes(1, 5)) != list(recipes(2, 5))


@pytest.mark.parametrize(
    "args",
    [
        "[" * 100_000,
        '{"a": ' + "[" * 100_000,
        '{"num_epochs": ' + "9" * 5000 + "}",
        "num_epochs=" + "9" * 200_000,
        "x" * 200_000,
        "x" * 200_000 + "=1",
        '{"' + "x" * 200_000 + '": 1}',
        "\x1b[31m=1",
        "num_epochs=\udcff",
        '{"num_epochs": {"a": {"b": null}}}',
        "[1]",
        "5",
        "=",
    ],
    ids=lambda args: args[:20],
)
def test_arguments_of_a_recipe(args):
    text = "num_epochs: 3\nmodifiers:\n- !EpochRangeModifier {start_epoch: 0.0, end_epoch: eval(num_epochs)}\n"
    Path("mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check_recipes(["mine.yaml"], args, strict=True, anchors=False, zoo=None)
    assert_readable(str(caught.value))


@pytest.mark.parametrize(
    "data",
    [
        *(b"{}\n", b"[]\n", b"5\n", b"\xff\n", b"\0\n", b"[" * 100_000 + b"\n"),
        *(b'{"step": 0, "epoch": 0, "loss": 1}\n', b'{"step": "x", "epoch": 1, "loss": 1}\n'),
        *(b'{"step": 1, "epoch": 1, "loss": null}\n', b'{"step": 1, "epoch": 1, "loss": 1, "lr": []}\n'),
        b'{"step": 1, "epoch": 1e-400, "loss": 1}\n',
        b'{"step": 1, "epoch": NaN, "loss": 1}\n',
    ],
)
def test_a_damaged_history_is_named(data, say):
    Path("run").mkdir()
    Path("run/history.jsonl").write_bytes(data)
    message = say("sparse_xp.recipe", "show", "recipe=dense", "--run", "run", "--png", "out.png")
    assert_readable(message)
    assert "run/history.jsonl" in message
    assert not Path("out.png").exists()
