"""Names of checkpoints: a directory, a hub id, or neither; what is wrong with a directory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sparse_xp.data.hub import check_available, explain_loading_errors, is_local_checkpoint
from sparse_xp.errors import UserError
from sparse_xp.places import CONF
from sparse_xp.run_directory import claim_run
from tests.tiny import make_bert


def refused(name: str) -> str:
    with pytest.raises(UserError) as caught:
        is_local_checkpoint(name)
    assert "unreachable" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["./x", "../x", "/abs/x", "models/x", "models/x/", "models/x/y", "..\\x", "C:\\x", "~/x", "a b", "x/"]
)
def test_a_local_directory_that_is_not_there_is_called_that(name):
    Path("models").mkdir()
    assert refused(name).startswith(f"No directory {name}: ")


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "a/b.c_d"])
def test_a_hub_id_is_no_directory(name):
    assert not is_local_checkpoint(name)


def test_the_nearest_directory_is_offered():
    Path("models/minilm").mkdir(parents=True)
    assert refused("models/minlm").endswith("Did you mean 'minilm'?")


def test_a_trailing_slash_is_fine():
    make_bert().save_pretrained("model")
    assert is_local_checkpoint("model/")


def test_a_file_is_no_checkpoint():
    make_bert().save_pretrained("model")
    assert "is a file" in (said := refused("model/model.safetensors"))
    assert said.endswith("Name its directory, model.")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "It holds nothing."),
        (["adapter_config.json", "adapter_model.safetensors"], "Merge it into its base model first"),
        (["model.gguf"], "llama.cpp"),
        (["model.onnx", "tokenizer.json"], "An ONNX file cannot be trained"),
        (["model.safetensors"], "Add the config.json that belongs to its weights"),
        (["pytorch_model.bin"], "Add the config.json that belongs to its weights"),
        (["step/config.json", "step/model.safetensors", "pooling/config.json"], "Its model is place/step."),
        ([f"{n}/{f}" for n in "ab" for f in ("config.json", "model.safetensors")], "Name one in it: place/a, place/b."),
    ],
)
def test_a_directory_without_a_configuration_says_what_to_do(files, message):
    Path("place").mkdir()
    for file in files:
        path = Path("place") / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert message in refused("place")


def test_a_run_that_is_not_finished():
    claim_run(Path("place"))
    assert "It is a run that has no model yet" in refused("place")


def test_a_checkpoint_that_is_not_in_the_cache_is_neither_a_directory_nor_to_be_had():
    with pytest.raises(UserError, match="no directory here: the hub is unreachable and it is not in the local cache"):
        check_available("model", "nobody/nothing", None)


def test_a_fault_of_a_cached_file_is_no_unreachable_hub():
    with (
        pytest.raises(UserError, match=r"^Could not load model some/name: it has no sdpa"),
        explain_loading_errors("model some/name", "some/name"),
    ):
        raise ValueError("it has no sdpa")


@pytest.mark.parametrize("path", sorted((CONF / "task").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_data_set_of_the_hub_is_pinned(path):
    """To a commit; of SQuADShifts only the branch with the hub's own conversion is known."""
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    if task["dataset"]:
        commit = r"[0-9a-f]{40}" if path.stem != "squadshifts" else "refs/convert/parquet"
        assert re.fullmatch(commit, task["revision"])
