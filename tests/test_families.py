"""Whole runs of encoders that are no BERT: trained, exported, compared and asked (all of them: docs/families.md)."""

from __future__ import annotations

import pytest

from sparse_xp.deployment.pipeline import Pipeline
from sparse_xp.errors import UserError
from sparse_xp.result import Result
from sparse_xp.run import check_student, run
from tests.families import FAMILIES, build_checkpoint
from tests.runs import configure

SHORT = (
    "profile=embedded", "model=bert_base", "model.revision=null", "log=none", "data.embedded_train_rows=32",
    "data.embedded_eval_rows=8", "train.epochs=2", "train.batch_size=16", "train.warmup=0", "task.max_length=64",
    "teacher=none",
)  # fmt: skip
QUICK = {
    ("deberta_v3", "sst2", "recipe=prune70_quant"),
    ("modernbert", "squad", "recipe=structured50_quant", "sparsity.multiple=4", "task.doc_stride=8"),
    ("xlm_roberta", "conll2003", "recipe=gradual80", "model.dropout=0.2"),
}
ALL = {(family, "conll2003", "recipe=prune70_quant") for family in FAMILIES} | {
    (family, "sst2", "recipe=structured50_quant", "sparsity.multiple=4")
    for family, kind in FAMILIES.items()
    if not kind.shares_layers
}
TEXTS = {
    "sst2": {"sentence": "a fine film"},
    "squad": {"question": "who sleeps?", "context": " the cat sleeps"},
    "conll2003": {"text": "Anna lives in Paris."},
}


@pytest.mark.parametrize(
    "case",
    [*sorted(QUICK), *(pytest.param(case, marks=pytest.mark.slow) for case in sorted(ALL - QUICK))],
    ids=lambda case: "-".join(word.removeprefix("recipe=") for word in case[:3]),
)
def test_a_run_ends_with_a_file_that_answers(tmp_path, case):
    family, task, *words = case
    checkpoint = build_checkpoint(family, tmp_path / "checkpoint")
    shown = (f"task={task}", *words, *SHORT, f"model.checkpoint={checkpoint}", f"data.cache={tmp_path}/cache")
    result = run(configure(*shown), tmp_path / "run")
    assert Result.read(tmp_path / "run/result.json") == result
    assert result.deployment.integers == ("_quant" in words[0])
    if "structured" in words[0]:
        assert result.sparsity.removed is not None
        assert 0.45 < result.sparsity.removed.share < 0.6
    else:
        assert result.sparsity.prunable == pytest.approx(0.8 if "80" in words[0] else 0.7, abs=0.02)
    answer = Pipeline(tmp_path / "run/deployment")(**TEXTS[task])
    if task == "squad":
        text = TEXTS[task]["context"]
        assert answer["answer"] == text[answer["start"] : answer["end"]] == answer["answer"].strip()


def test_what_a_family_cannot_have_is_refused_before_its_teacher_is_trained(tmp_path):
    checkpoint = build_checkpoint("albert", tmp_path / "checkpoint")
    words = ("task=sst2", "recipe=structured50", *SHORT, "teacher=dense", f"model.checkpoint={checkpoint}")
    config = configure(*words, f"data.cache={tmp_path}/cache")
    with pytest.raises(UserError, match=r"uses one layer several times, so .* it can have sparse weights"):
        check_student(config, None, config)
    long = ("task=sst2", "recipe=dense", *SHORT, f"model.checkpoint={checkpoint}", "task.max_length=131")
    with pytest.raises(UserError, match=r"task\.max_length=131: .* at most 130 tokens"):
        run(configure(*long), tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()
