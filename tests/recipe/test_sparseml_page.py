"""docs/sparseml.md: its commands compose, and print what it shows; its table has every tag."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from transformers import BertConfig

from sparse_xp.cli import run_command
from sparse_xp.places import CONF
from sparse_xp.recipe.__main__ import main
from sparse_xp.recipe.tags import TAGS, UNSUPPORTED_TAGS
from sparse_xp.recipe.zoo import FILES
from tests.runs import configure
from tests.shown_commands import commands, points

PAGE = CONF.parent / "docs" / "sparseml.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
PRINTED = FILES / "bert-base-12layers_prune70_quant.md"


def sessions(text: str) -> list[tuple[str, str]]:
    """Each command behind a ``$`` in a fenced block, and what is shown under it."""
    blocks = [block for block in re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if block[:2] == "$ "]
    return [tuple(each.split("\n", 1)) for block in blocks for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def answer(words: list[str]) -> str:
    """What the command prints, on either stream."""
    GlobalHydra.instance().clear()
    out = io.StringIO()
    before, sys.argv = sys.argv, ["recipe", *words]
    try:
        with contextlib.redirect_stdout(out):
            run_command(main)
    except SystemExit as stop:
        out.write(f"{stop.code}\n")
    finally:
        sys.argv = before
    return out.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory that has all that the commands name."""
    (tmp_path / "sparse_xp" / "recipe").mkdir(parents=True)
    (tmp_path / "sparse_xp" / "recipe" / "files").symlink_to(FILES)
    (tmp_path / "tests" / "recipe").mkdir(parents=True)
    (tmp_path / "tests" / "recipe" / "data").symlink_to(Path(__file__).parent / "data")
    text = PRINTED.read_text(encoding="utf-8")
    (tmp_path / "typo.md").write_text(text.replace("inter_func", "inter_fun"), encoding="utf-8")
    BertConfig().save_pretrained(tmp_path / "bert-base")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("line", "shown"), [pytest.param(*each, id=each[0]) for each in sessions(TEXT)])
def test_a_command_prints_what_is_shown(line, shown, place, monkeypatch):
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "sparse_xp.recipe"]
    from sparse_xp.recipe.view import show

    monkeypatch.setattr(show, "console", show.console.__class__(soft_wrap=True, highlight=False))
    printed = answer(words[3:])
    if shown.startswith("...\n"):
        assert printed.endswith(shown.removeprefix("...\n"))
    else:
        assert printed == shown


#: what convert prints shows a command too, of a recipe that is not in conf/
@pytest.mark.parametrize("line", [line for line in commands(TEXT) if "recipe=file" in line.split()])
def test_a_run_that_is_shown_composes(line, place):
    [words] = points(line)
    config = configure(*words)
    assert config.recipe.path
    assert Path(config.recipe.path).exists()


def test_the_tables_have_every_tag():
    assert sessions(TEXT)
    assert [tag for tag in [*TAGS, *UNSUPPORTED_TAGS] if f"`!{tag}`" not in TEXT] == []
