"""Options of a model that each family calls otherwise: dropout and attention."""

from __future__ import annotations

import pytest

from sparse_xp.models.loading import load_model
from sparse_xp.tasks import TextClassification
from tests.families import FAMILIES, build_checkpoint

DROPOUT = {
    "DistilBert": ["dropout", "attention_dropout"],
    "ModernBert": ["embedding_dropout", "attention_dropout", "mlp_dropout"],
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")

    def of(name: str) -> str:
        directory = root / name
        return str(directory if directory.exists() else build_checkpoint(name, directory))

    return of


def task_of() -> TextClassification:
    return TextClassification(name="toy", dataset="toy", folder="toy", max_length=64, classes=["bad", "good"])


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout_and_attention_of_every_family(name, checkpoints, capsys):
    model, new = load_model(task_of(), checkpoints(name), dropout=0.25)
    keys = DROPOUT.get(FAMILIES[name].model, ["hidden_dropout_prob", "attention_probs_dropout_prob"])
    assert [getattr(model.config, key) for key in keys] == [0.25] * len(keys)
    assert new
    assert not any(".layer." in name or ".layers." in name for name in new)
    has_fused = FAMILIES[name].model not in ("MPNet", "DebertaV2")
    assert model.config._attn_implementation == ("sdpa" if has_fused else "eager")
    assert ("has no fused attention" in capsys.readouterr().out) != has_fused
