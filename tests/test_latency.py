"""``python -m sparse_xp.latency``."""

from __future__ import annotations

import json

import pytest

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.latency_table import (
    read_latency_tables,
)
from sparse_xp.errors import UserError
from sparse_xp.latency import main
from tests.latency_tables import SHAPE


def test_the_command(tmp_path, capsys):
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=30, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=2)
    BertModel(config).save_pretrained(tmp_path / "model")
    main([f"model={tmp_path}/model", "latency=onnxruntime:auto:1x16", f"out={tmp_path}/both.json"])
    assert [table.spec.precision for table in read_latency_tables(tmp_path / "both.json")] == ["fp32", "int8"]
    assert "fp32, 2 heads, 32 neurons:" in capsys.readouterr().out
    main([f"model={tmp_path}/model", "latency=onnxruntime:int8:1x16", f"out={tmp_path}/table.json"])
    assert read_latency_tables(tmp_path / "table.json")[0].shape == SHAPE
    assert json.loads((tmp_path / "table.json").read_text())["machine"] == str(this_cpu())
    assert "int8, 2 heads, 32 neurons:" in capsys.readouterr().out
    with pytest.raises(UserError, match="out= is missing"):
        main([f"model={tmp_path}/model", "latency=onnxruntime:int8:1x16"])
    with pytest.raises(UserError, match="expected ENGINE:PRECISION"):
        main([f"model={tmp_path}/model", "latency=fast", f"out={tmp_path}/x.json"])
