"""Runs with rows without labels (``data.unlabeled``): every kind of task, continued, stored and live, or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from sparse_xp.config import check_promise
from sparse_xp.errors import UserError
from sparse_xp.inputs import check_inputs
from sparse_xp.run import load_data, run
from sparse_xp.training import checkpoint
from tests.runs import SHORT, configure, difference, history

pytestmark = pytest.mark.usefixtures("trained_only")

TEXTS = "".join(f"the {word} film number {i} was {word}\n" for i, word in enumerate(["good", "bad", "long"] * 7))
WORDS = (*SHORT, "recipe=gradual80", "train.epochs=1", "data.embedded_train_rows=64")


@pytest.fixture(scope="module")
def teacher_of(tmp_path_factory):
    """Return the words for a teacher of a task, which has been trained for two steps."""
    place = tmp_path_factory.mktemp("teachers")

    def make(*task):
        directory = place / "-".join(re.sub(r"\W", "_", word) for word in task)
        brief = ("recipe=dense", "train.steps=2", f"data.cache={place}/cache")
        run(configure(*WORDS, *task, *brief), directory)
        return "teacher=checkpoint", f"teacher.path={directory}", f"data.cache={place}/cache"

    return make


def write(name, content):
    Path(name).write_text(content)
    return f"data.unlabeled={name}"


def texts():
    return write("u.txt", TEXTS)


def rows_of(*names):
    rows = [dict(zip(names, (f"who is number {i}?", f"{line} He is."), strict=False)) for i, line in enumerate("abcde")]
    return write("u.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


HIDDEN, ATTENTION = "recipe.modifiers.hidden", "recipe.modifiers.attention"
#: the task, what else the run has, and its texts
KINDS = {
    "sst2": (("task=sst2",), (), texts),
    "several": (("task=sst2", "task.problem=multi_label", "task.classes=[blames,praises,insists]"), (), texts),
    "numbers": (("task=sst2", "task.problem=regression", "task.classes=[]"), (), texts),
    "pairs": (("task=mnli",), (), lambda: rows_of("premise", "hypothesis")),
    "squad": (("task=squad", "task.max_length=32", "task.doc_stride=8"), (), lambda: rows_of("question", "context")),
    "conll2003": (("task=conll2003",), (), texts),
    "stsb": (("task=stsb",), (), texts),
    "layers": (
        ("task=sst2",), (f"+modifier@{HIDDEN}=PerLayerDistillation", f"+modifier@{ATTENTION}=AttentionDistillation"),
        texts,
    ),
}  # fmt: skip


SLOW = ("several", "numbers", "pairs")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
def test_every_kind_learns_from_texts_without_labels(tmp_path, capsys, teacher_of, kind):
    task, words, make = KINDS[kind]
    config = configure(*WORDS, *task, *teacher_of(*task), *words, make(), "train.unlabeled_share=0.25")
    check_promise(config, ())
    result = run(config, tmp_path / "run")
    count = 5 if kind in ("pairs", "squad") else 21
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{count} rows without labels (4 of 16 in a batch)" in shown
    assert (result.training.train_rows, result.training.unlabeled_rows) == (64, count)
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    assert len(lines) == result.training.steps >= 6  # of 64 rows, 12 a batch
    assert all(line["loss_task"] > 0 and line["loss_distillation"] >= 0 for line in lines)
    assert f"and {count} without labels for" in " ".join((tmp_path / "run/report.md").read_text().split())


def still(*words):
    """Losses of steps that change nothing and begin alike: without dropout, at a learning rate of 0."""
    return configure(
        *WORDS, "task=sst2", "recipe=dense", "model.dropout=0", "teacher.distillation.hardness=0.5",
        "train.learning_rate=0", "train.group_by_length=false", *words,
    )  # fmt: skip


@pytest.fixture
def teacher(teacher_of):
    return teacher_of("task=sst2")


def test_the_task_is_that_of_the_rows_with_labels(tmp_path, teacher):
    """16 and 16 rows: the task's loss is that of batches of 16, and the teacher's a mean over both halves."""
    run(still(*teacher, "train.batch_size=16"), tmp_path / "labelled")
    run(still(*teacher, "train.batch_size=32", texts()), tmp_path / "mixed")
    pure, mixed = ([line for line in history(tmp_path / name) if "loss" in line] for name in ("labelled", "mixed"))
    assert len(pure) == len(mixed) == 4
    for one, other in zip(pure, mixed, strict=True):
        assert other["loss_task"] == pytest.approx(one["loss_task"], rel=1e-5)
        assert other["loss_distillation"] != pytest.approx(one["loss_distillation"], rel=1e-3)
        half = (other["loss_task"] + other["loss_distillation"]) / 2
        assert other["loss"] == pytest.approx(half, rel=1e-5)


def test_stored_logits_are_those_of_the_live_teacher(tmp_path, teacher, capsys):
    words = (*teacher, texts(), f"data.cache={tmp_path}/cache", "train.epochs=2")
    run(still(*words), tmp_path / "stored")
    assert "logits of 85 features stored once" in capsys.readouterr().out
    run(still(*words, "teacher.reuse_logits=false"), tmp_path / "live")
    for one, other in zip(history(tmp_path / "stored"), history(tmp_path / "live"), strict=True):
        if "loss" in one:
            assert one["loss_distillation"] == pytest.approx(other["loss_distillation"], rel=1e-4, abs=1e-7)


def test_a_short_run_over_many_texts_asks_the_live_teacher(tmp_path, teacher, capsys):
    run(still(*teacher, write("u.txt", TEXTS * 20), "train.epochs=2"), tmp_path / "run")
    assert "runs at every step (the run does not read as many rows as there are)" in capsys.readouterr().out


class Power(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("task=sst2", ("train.gradient_accumulation_steps=2", "train.batch_size=8")),
        ("task=conll2003", ("train.tokens=256", "teacher.reuse_logits=false")),
    ],
)
def test_an_interrupted_run_ends_bit_for_bit_as_another(tmp_path, monkeypatch, teacher_of, task, words):
    config = configure(*WORDS, task, *teacher_of(task), *words, texts(), "train.epochs=2", "train.save_every=3 steps")
    run(config, tmp_path / "straight")
    real, calls = checkpoint.save, []

    def fail_after_the_second(this):
        if len(calls) == 2:
            raise Power
        real(this)
        calls.append(this.progress.step)

    monkeypatch.setattr(checkpoint, "save", fail_after_the_second)
    with pytest.raises(Power):
        run(config, tmp_path / "broken")
    monkeypatch.setattr(checkpoint, "save", real)
    torch.manual_seed(99)
    run(config, tmp_path / "broken")
    assert difference(tmp_path / "straight", tmp_path / "broken") == []


def test_a_changed_file_is_noticed(tmp_path, teacher):
    config = configure(*WORDS, "task=sst2", *teacher, texts(), "train.steps=2")
    run(config, tmp_path / "run")
    texts()
    check_inputs(tmp_path / "run", config.task, config.data)
    write("u.txt", TEXTS + "one more\n")
    with pytest.raises(UserError, match=r"data\.unlabeled: u\.txt has changed .*it had 21 rows, and has 22 now"):
        run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task=sst2", "recipe=dense", "data.unlabeled=u.txt"), "this run learns from none. Write teacher=dense"),
        (
            ("task=sst2", "teacher=self", "teacher.distillation.hardness=0", "data.unlabeled=u.txt"),
            "with teacher.distillation.hardness above 0",
        ),
        (
            ("task=sst2", "teacher=self", "teacher.distillation=null", "data.unlabeled=u.txt"),
            "this run learns from none",
        ),
        (("task=wikipedia_mlm", "data.unlabeled=u.txt"), "is pretraining, which learns from any text"),
        (
            ("task=sst2", "teacher=self", "data.unlabeled=u.txt", "train.unlabeled_share=0"),
            "0 rows without labels and 16 with: a batch needs one of each at least. Write another share, or leave "
            "data.unlabeled out.",
        ),
        (
            ("task=sst2", "teacher=self", "data.unlabeled=u.txt", "train.unlabeled_share=0.99"),
            "16 rows without labels and 0 with",
        ),
        (
            ("task=conll2003", "teacher=self", "data.unlabeled=u.txt", "teacher.distillation.tokens=targets"),
            "Distillation.tokens=targets compares the tokens with a label",
        ),
        (("task=sst2", "teacher=self", "train.unlabeled_share=0.3"), "train.unlabeled_share=0.3 needs data.unlabeled="),
    ],
)
def test_a_run_that_could_not_learn_from_them_is_refused(words, message):
    words = (*SHORT, *words)
    with pytest.raises(UserError) as caught:
        check_promise(configure(*words), words)
    assert message in str(caught.value)


def test_what_is_wrong_with_the_file_is_told_before_the_hub_is_asked(tmp_path):
    config = configure("task=mnli", "recipe=gradual80", texts())
    with pytest.raises(UserError, match="task mnli reads premise and hypothesis"):
        load_data(config, tmp_path / "run")
    Path("u.txt").unlink()
    with pytest.raises(UserError, match=r"data\.unlabeled=u\.txt: there is no such file"):
        load_data(config, tmp_path / "run")


@pytest.mark.parametrize("share", ["1", "-0.1"])
def test_a_share_is_a_fraction(share):
    with pytest.raises(UserError, match=rf"train.unlabeled_share={share}(\.0)?: expected a fraction"):
        configure("task=sst2", "data.unlabeled=u.txt", "teacher=self", f"train.unlabeled_share={share}")
