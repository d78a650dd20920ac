"""Accumulated micro-batches are one large batch: every term of every loss, however the rows are padded.

Without dropout the losses of whole runs agree to rounding.
"""

from __future__ import annotations

import numpy as np
import pytest

from sparse_xp.run import run
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

HIDDEN = "recipe.modifiers.hidden"
LABELS = ("task=sst2", "task.problem=multi_label", "task.classes=[blames,praises,insists]")
#: the task, and how it is distilled: rows of a batch differ in length, and micro-batches in the number of labels
DISTILLED = {
    "classes": (("task=sst2",),),
    "labels": (LABELS,),
    "spans": (("task=squad",),),
    "tags": (("task=conll2003",),),
    "words": (("task=wikipedia_mlm",), "teacher.distillation.token_share=0.5"),
    "targets": (("task=wikipedia_mlm",), "teacher.distillation.tokens=targets"),
    "pairs": (("task=wikipedia",),),
    "attention": (
        ("task=sst2",), f"+modifier@{HIDDEN}=AttentionDistillation", f"{HIDDEN}.student_layers=[0,1]",
        f"{HIDDEN}.teacher_layers=[1,-1]",
    ),
    "hidden layers": (("task=conll2003",), f"+modifier@{HIDDEN}=PerLayerDistillation"),
    "hidden layers as they are": (
        ("task=squad",), f"+modifier@{HIDDEN}=PerLayerDistillation", f"{HIDDEN}.normalize=false",
        f"{HIDDEN}.project_features=false",
    ),
}  # fmt: skip


def brief(place, *words):
    """A run of two steps of 16 rows."""
    return configure(
        *SHORT, "recipe=dense", "model.dropout=0", "train.steps=2", "train.group_by_length=false",
        "data.embedded_train_rows=32", "data.embedded_eval_rows=12", "train.precision=fp32",
        f"data.cache={place}/cache", *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def teacher_of(tmp_path_factory):
    """Return the words for a teacher of a task, which begins with other weights than the student."""
    place = tmp_path_factory.mktemp("teachers")

    def make(task):
        directory = place / f"{task[0].removeprefix('task=')}-{len(task)}"
        run(brief(place, *task, "model.init_seed=1"), directory)
        return "teacher=checkpoint", f"teacher.path={directory}"

    return make


def test_four_batches_of_4_are_one_of_16(tmp_path):
    check_accumulation(tmp_path, "task=squad")


SLOW = ("labels", "targets", "hidden layers as they are")


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, case in DISTILLED.items()]
)
def test_with_a_teacher_too(tmp_path, teacher_of, case):
    """The log has the loss of the task beside that of the teacher: both agree."""
    task, *words = case
    check_accumulation(tmp_path, *task, *teacher_of(task), *words)


def check_accumulation(place, *words):
    """Compare the losses and gradients of a run that accumulates with those of one that does not."""
    found = []
    for size, times in ((16, 1), (4, 4)):
        run(
            brief(place, *words, f"train.batch_size={size}", f"train.gradient_accumulation_steps={times}"),
            place / str(size),
        )
        lines = [line for line in history(place / str(size)) if "loss" in line]
        names = [name for name in lines[0] if name.startswith("loss") or name == "grad_norm"]
        found.append({name: [line[name] for line in lines] for name in names})
    assert found[0].keys() == found[1].keys()
    for name, losses in found[0].items():
        np.testing.assert_allclose(found[1][name], losses, rtol=2e-5, err_msg=name)
