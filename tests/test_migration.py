"""Every command of docs/migration.md runs, on generated data and with the tiny model."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import nullcontext
from dataclasses import replace

import pytest

from sparse_xp import export_command
from sparse_xp.config import composed, with_teacher
from sparse_xp.places import CONF
from sparse_xp.promises import result_name
from sparse_xp.run import run
from sparse_xp.synthetic.sentences import question_answering_rows
from tests.runs import configure, without_export

TEXT = (CONF.parent / "docs" / "migration.md").read_text(encoding="utf-8") if (CONF.parent / "docs").is_dir() else ""
ROWS = [line.rsplit("|", 2)[-2] for line in TEXT.splitlines() if line.startswith("|")]
COMMANDS = list(dict.fromkeys(c for cell in ROWS for c in re.findall(r"`python -m (sparse_xp\S* [^`]+)`", cell)))
TRAINING = [words for words in COMMANDS if words.startswith("sparse_xp task=")]
#: as little as there can be of each: 4 steps an epoch, one or two epochs
TINY = (
    "profile=embedded", "log=none", "data.embedded_train_rows=32", "data.embedded_eval_rows=16", "train.batch_size=8",
)  # fmt: skip


def tiny(words: str) -> list[str]:
    """The command, shortened: its model is the tiny one, and what it says of epochs is divided by ten."""
    kept = [word for word in shlex.split(words)[1:] if not word.startswith(("model", "hydra.run.dir", "teacher.path"))]
    kept = [word for word in kept if not word.startswith(("train.batch_size", "train.gradient"))]
    for i, word in enumerate(kept):
        name, _, value = word.partition("=")
        if name in ("train.epochs", "sparsity.start", "sparsity.end", "sparsity.update_frequency"):
            kept[i] = f"{name}={float(value) / 10}"
    if not any(word.startswith("train.epochs") for word in kept):
        kept.append("train.epochs=1")
    return [*kept, *TINY]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("migration")
    for name in ("train", "val"):
        made = question_answering_rows("train" if name == "train" else "validation", 24)
        rows = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
        (directory / f"squadshifts-{name}.json").write_text(json.dumps({"data": rows}))
    return directory


@pytest.fixture(scope="module")
def dense(place):
    """The dense run of a task, made when it is first asked for."""
    made = {}

    def of(task, words):
        if task not in made:
            data = [word for word in words if word.startswith("data.")]
            with without_export():
                run(configure(f"task={task}", *TINY, *data, "recipe=dense", "train.epochs=0.25"), place / task)
            made[task] = place / task
        return made[task]

    return of


def test_the_page_shows_what_it_promises():
    assert len([words for words in TRAINING if "recipe=dense" in words and "custom" not in words]) == 6
    tasks = {re.search(r"task=(\w+)", words)[1] for words in TRAINING}
    assert tasks == {"squad", "qqp", "mnli", "conll2003", "sst2", "qnli", "squadshifts", "custom_qa"}
    assert len([words for words in COMMANDS if words.startswith("sparse_xp.export")]) == 8


# Trained in the default suite: every third one. -m slow: the rest, and all of them with their exported file.
@pytest.mark.parametrize(
    ("words", "exported"),
    [
        pytest.param(words, exported, marks=pytest.mark.slow if exported or number % 3 else [])
        for number, words in enumerate(TRAINING)
        for exported in (False, True)
    ],
)
def test_a_training_command_runs(words, exported, place, dense, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    said = [*tiny(words), f"data.cache={place}/cache"]
    if "teacher=checkpoint" in said:
        said.remove("teacher=checkpoint")
    config = configure(*said)
    if config.teacher.source == "dense" or "teacher=checkpoint" in words:
        config = with_teacher(config, dense(config.task.name, said))
    with nullcontext() if exported else without_export():
        result = run(config, tmp_path / "run")
    assert result.recipe == result_name(config.recipe.promise, composed(config))
    if "recipe=dense" not in words:
        assert result.sparsity.prunable == pytest.approx(config.recipe.sparsity, abs=0.01)
    if exported:
        before = result.deployment.metrics
        export_command.main([f"run={tmp_path / 'run'}"])
        assert replace(result.deployment, metrics=before) == result.deployment
