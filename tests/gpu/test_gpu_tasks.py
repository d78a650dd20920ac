"""On a GPU each kind of task learns, in fp16 and in bf16, and scores what its weights are worth."""

from __future__ import annotations

import statistics

import pytest

from sparse_xp.run import run
from tests.gpu.machine import GPU, HALF, WORDS
from tests.runs import configure, history

pytestmark = GPU

TASKS = {
    "squad": ("task=squad", "recipe=dense"),
    "squad_v2": ("task=squad_v2", "recipe=dense"),
    "sst2": ("task=sst2", "recipe=dense"),
    "mnli": ("task=mnli", "recipe=dense"),
    "qqp": ("task=qqp", "recipe=dense"),
    "several labels": (
        "task=sst2",
        "recipe=dense",
        "task.problem=multi_label",
        "task.classes=[blames,praises,insists]",
    ),
    "numbers": ("task=sst2", "recipe=dense", "task.problem=regression", "task.classes=[]"),
    "entities": ("task=conll2003", "recipe=dense"),
    "pairs of segments": ("task=wikipedia", "recipe=teacher_preparation"),
    "pairs of texts with scores": ("task=stsb", "recipe=dense"),
    "questions and their passages": ("task=squad_retrieval", "recipe=dense"),
    "masked words": ("task=wikipedia_mlm", "recipe=teacher_preparation"),
}


#: long enough to learn, with one evaluation
LONGER = (*WORDS, "train.epochs=6", "train.eval_every=100%", "train.save_every=100%")


@pytest.mark.parametrize("precision", [HALF, "bf16"] if HALF == "fp16" else ["bf16"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_kind_of_task_learns(tmp_path, trained_only, kind, precision):
    words = (*LONGER, *TASKS[kind], f"train.precision={precision}", f"data.cache={tmp_path}/cache")
    result = run(configure(*words), tmp_path / "run")
    assert result.training.precision == precision
    losses = [line["loss"] for line in history(tmp_path / "run") if "loss" in line]
    assert statistics.fmean(losses[-8:]) < 0.97 * statistics.fmean(losses[:8])


@pytest.mark.parametrize("task", ["wikipedia", "wikipedia_mlm"])
def test_a_pretrained_model_is_pruned_and_distils_from_itself(tmp_path, trained_only, task):
    words = (*LONGER, f"task={task}", f"train.precision={HALF}", f"data.cache={tmp_path}/cache", "train.epochs=2")
    run(configure(*words, "recipe=teacher_preparation"), tmp_path / "dense")
    pruned = (*words, "recipe=upstream80", "teacher=self", f"model.checkpoint={tmp_path}/dense")
    assert run(configure(*pruned), tmp_path / "pruned").sparsity.prunable == pytest.approx(0.8, abs=2e-3)


def test_precisions_agree(tmp_path, trained_only):
    """Half precision rounds; it does not train another model."""
    losses = {}
    for precision in ("fp32", "bf16", HALF):
        words = (*WORDS, "task=sst2", "recipe=dense", "model.dropout=0", f"train.precision={precision}")
        run(configure(*words, f"data.cache={tmp_path}/cache"), tmp_path / precision)
        losses[precision] = [line["loss"] for line in history(tmp_path / precision) if "loss" in line]
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.05)
    assert losses[HALF] == pytest.approx(losses["fp32"], abs=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_micro_batches_of_so_many_tokens_make_the_same_steps(tmp_path, trained_only):
    words = (*WORDS, "model.dropout=0", "task=squad", "recipe=gradual80", "train.precision=fp32")
    losses = []
    for number, more in enumerate(([], ["train.tokens=512"])):
        run(configure(*words, *more, f"data.cache={tmp_path}/cache"), tmp_path / str(number))
        losses.append([line["loss"] for line in history(tmp_path / str(number)) if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)
