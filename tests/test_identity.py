"""Is the run in a directory this one? Hashes of earlier versions, and the keys in which two runs differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from sparse_xp.config import result_hash
from sparse_xp.errors import UserError
from sparse_xp.identity import differences, hash_in, run_hash
from sparse_xp.run import write_config
from sparse_xp.run_directory import claim_run
from tests.runs import configure

WORDS = ("task=custom_classification", "recipe=gradual80", "profile=embedded", "data.train=/rows/a.csv")
EARLIER = "0123456789"


@pytest.fixture
def stored(tmp_path):
    """The directory of a run that has begun, and a way to edit its configuration."""
    claim_run(tmp_path)
    (tmp_path / "history.jsonl").touch()
    config = configure(*WORDS)
    write_config(replace(config, task=replace(config.task, classes=["no", "yes"])), tmp_path, EARLIER)
    return tmp_path


def edit(directory, change):
    path = directory / "config.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def test_the_same_values_are_the_same_run_whatever_their_hash(stored):
    config = configure(*WORDS)
    assert result_hash(config) != EARLIER
    assert run_hash(stored, config) == hash_in(stored, config) == EARLIER


def test_what_changes_no_number_makes_no_other_run(stored):
    config = configure(*WORDS, "log=tensorboard", "train.threads=1", "data.root=null", "export.max_abs_diff=1")
    assert run_hash(stored, config) == EARLIER


def test_a_key_that_an_earlier_version_lacked_had_its_default(stored):
    edit(stored, lambda values: values["train"].pop("keep_best"))
    assert run_hash(stored, configure(*WORDS)) == EARLIER
    with pytest.raises(UserError, match=r"They differ in train\.keep_best: true there, false here\."):
        run_hash(stored, configure(*WORDS, "train.keep_best=false"))


def test_a_key_that_no_longer_exists_is_no_difference(stored):
    edit(stored, lambda values: values["train"].update(retired=3))
    assert run_hash(stored, configure(*WORDS)) == EARLIER


def test_keys_that_differ_are_listed_with_both_values(stored):
    config = configure(*WORDS, "train.epochs=4", "data.validation=/rows/b.csv", "seed=7")
    with pytest.raises(UserError) as caught:
        run_hash(stored, config)
    assert str(caught.value) == (
        f"{stored} holds a run of another configuration. They differ in train.epochs: 10.0 there, 4.0 here; "
        "data.validation: null there, /rows/b.csv here; seed: 42 there, 7 here. Remove the directory, or give "
        "this run its own with hydra.run.dir=."
    )
    assert hash_in(stored, config) == result_hash(config)


def test_another_modifier_is_a_difference(stored):
    keys = {each.key for each in differences(stored, configure(*WORDS[:1], *WORDS[2:], "recipe=dense"))}
    assert "sparsity" in keys
    assert {"recipe.promise", "model.name"}.isdisjoint(keys)


def test_a_run_may_get_another_name_until_it_is_finished(stored):
    renamed = configure(*WORDS, "recipe.name=mine")
    assert run_hash(stored, renamed) == EARLIER
    (stored / "result.json").touch()
    with pytest.raises(UserError, match=r"They differ in recipe\.name: gradual80 there, mine here\."):
        run_hash(stored, renamed)


def test_a_path_has_one_spelling(stored, monkeypatch):
    monkeypatch.chdir(stored)
    (stored / "rows").mkdir()
    edit(stored, lambda values: values["data"].update(validation=f"{stored}/rows"))
    assert run_hash(stored, configure(*WORDS, "data.validation=./rows")) == EARLIER


def test_a_long_list_is_cut(stored):
    config = configure("task=squad", "recipe=structured50_quant", "profile=embedded", "seed=7")
    with pytest.raises(UserError, match=r"; and \d+ more\. Remove the directory"):
        run_hash(stored, config)


def test_an_empty_directory_has_no_run(tmp_path):
    config = configure(*WORDS)
    assert run_hash(tmp_path, config) == result_hash(config)
