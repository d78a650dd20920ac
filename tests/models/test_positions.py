"""The longest text of a task and the positions of a model."""

from __future__ import annotations

import json

import pytest

from sparse_xp.errors import UserError
from sparse_xp.models.positions import check_local_text_length, check_text_length
from sparse_xp.tasks import TokenClassification
from tests.families import FAMILIES, build_checkpoint

ROBERTA = {"model_type": "roberta", "max_position_embeddings": 34, "pad_token_id": 1}


def task_of(max_length: int) -> TokenClassification:
    return TokenClassification(name="toy", dataset="toy", folder="toy", max_length=max_length)


def test_roberta_reads_two_tokens_fewer_than_it_has_positions():
    check_text_length("DIR", ROBERTA, task_of(32), sequence=32)
    with pytest.raises(UserError, match=r"task\.max_length=33: DIR reads texts of at most 32 tokens"):
        check_text_length("DIR", ROBERTA, task_of(33))
    with pytest.raises(UserError, match=r"export\.sequence=40: DIR reads .* Write export\.sequence=32, or"):
        check_text_length("DIR", ROBERTA, task_of(32), sequence=40)


def test_relative_positions_have_no_end():
    relative = {"model_type": "deberta-v2", "max_position_embeddings": 34, "position_biased_input": False}
    check_text_length("DIR", relative, task_of(4000))


def test_a_directory_is_read_and_a_hub_id_is_not(tmp_path):
    check_local_text_length("owner/name", task_of(4000))
    (tmp_path / "config.json").write_text(json.dumps(ROBERTA))
    with pytest.raises(UserError, match="at most 32 tokens"):
        check_local_text_length(str(tmp_path), task_of(4000))
    (tmp_path / "config.json").write_text(json.dumps(ROBERTA | {"max_position_embeddings": "34"}))
    with pytest.raises(UserError, match=r"config\.json is damaged: max_position_embeddings"):
        check_local_text_length(str(tmp_path), task_of(8))


def test_the_limit_of_every_family(tmp_path):
    for name, family in FAMILIES.items():
        directory = str(build_checkpoint(name, tmp_path / name))
        if family.positions is None:
            check_local_text_length(directory, task_of(4000))
            continue
        check_local_text_length(directory, task_of(family.positions))
        with pytest.raises(UserError, match=f"at most {family.positions} tokens"):
            check_local_text_length(directory, task_of(family.positions + 1))
