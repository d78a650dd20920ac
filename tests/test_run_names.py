"""The names of directories: short, readable, one for each run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from sparse_xp.run_names import LONGEST, checkpoint_name, earlier_run_name, run_name

CHOICES = {"task": "squad", "model": "tiny", "recipe": "gradual80"}


def named(*words: str, profile: str = "full", seed: int = 42, parent: str | None = None) -> str:
    return run_name(CHOICES, list(words), profile, seed, parent)


def test_a_short_name_says_all():
    assert named() == "squad,tiny,gradual80,seed=42"
    words = ["recipe=gradual80", "train.epochs=4", "seed=1", "log=none"]
    assert named(*words, profile="embedded", seed=1) == "squad,tiny,gradual80,embedded,train.epochs=4,seed=1"


def test_a_long_name_has_a_hash_of_what_it_leaves_out():
    name = named("recipe.sparsity=0.9", "train.epochs=4", profile="embedded", seed=1)
    assert name == "squad,tiny,gradual80,embedded,4f79f7,seed=1"
    assert len(name) <= LONGEST


def test_the_order_of_words_does_not_matter():
    words = ["train.epochs=4", "sparsity=gradual_block4", "+modifier@recipe.modifiers.a=WeightDecay", "task=squad"]
    assert {named(*order) for order in itertools.permutations(words)} == {named(*words)}


def test_a_key_that_is_given_twice_counts_once_with_its_last_value():
    assert named("train.epochs=2", "train.epochs=3") == named("train.epochs=3")
    assert named("train.epochs=2", "+train.epochs=3") == named("train.epochs=3")


@pytest.mark.parametrize("spelling", ["3", "3.0", "3e0", "'3'"])
def test_spellings_of_a_number_are_one_value(spelling):
    long = "sparsity.params=['re:.*query']"
    assert named(long, f"train.epochs={spelling}") == named(long, "train.epochs=3")


@pytest.mark.parametrize("padding", [0, 300])
def test_values_are_told_apart(padding):
    padding_words = [f"task.question={'q' * padding}"] if padding else []
    words = [
        "train.epochs=4",
        "train.epochs=40",
        "train.batch_size=4",
        "sparsity=gradual_block4",
        "~recipe.learning_rate.warmup",
        "data.train=/some/one/rows.csv",
        "data.train=/some/other/rows.csv",
        "recipe.path=/some/one/recipe.yaml",
        "recipe.path=/some/other/recipe.yaml",
        "model.checkpoint=one/model",
        "model.checkpoint=other/model",
        "task.question=a b",
        "task.question=a_b",
    ]
    names = [named(*padding_words, word) for word in words] + [named(*padding_words), named(*padding_words, seed=1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "word",
    [
        "data.train=/some/where/else.csv",
        "data.train=../data.csv",
        "teacher.path=outputs/squad,tiny,dense,seed=42",
        "model.checkpoint=google-bert/bert-base-uncased",
        "model.checkpoint=/a dir/with blanks/and-a-very-long-name-of-a-model",
        "sparsity.params=['re:.*/weight','__ENCODER__']",
        "+modifier@recipe.modifiers.a=WeightDecay",
        "task.question=" + "long " * 100,
        "task.question=" + "ü" * 170,
        "task.question=" + "文" * 170,
        "data.train='a dir/with blanks'",
        "recipe.path=recipes/obert.yaml",
    ],
)
def test_a_name_is_one_short_file_name_with_the_seed_at_its_end(word):
    name = named(word, seed=7)
    assert "/" not in name
    assert len(name) <= LONGEST
    assert name.endswith(",seed=7")
    Path(name).mkdir()  # the file system agrees


@pytest.mark.parametrize(
    "words",
    [
        ("log=none", "log.every=3"),
        ("data.cache=elsewhere", "data.root=/a/mirror", "data.workers=2"),
        ("train.threads=1",),
        ("export.target_cpu=vnni", "export.max_abs_diff=1"),
    ],
)
def test_what_changes_no_number_is_left_out(words):
    assert named(*words) == named()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model.checkpoint=/models/all-MiniLM-L6-v2/"], "all-MiniLM-L6-v2"),
        (["model.checkpoint=google-bert/bert-base-uncased"], "bert-base-uncased"),
        (["model.checkpoint=outputs/sst2,tiny,dense,seed=1/model"], "sst2,tiny,dense,seed=1"),
        (["model.checkpoint=outputs/mine/checkpoints/epoch-3"], "mine"),
        (["model.checkpoint=zoo:nlp/a/b-none?recipe_type=x"], "b-none"),
        (["model.checkpoint=model"], "model"),
        (["model=bert_base", "model.checkpoint=DIR"], None),
        (["model.name=mine", "model.checkpoint=DIR"], None),
        (["train.epochs=3"], None),
    ],
)
def test_a_model_that_is_given_by_its_checkpoint_alone_is_called_after_it(words, name):
    assert checkpoint_name(words) == name


def test_the_directory_says_which_checkpoint_and_which_recipe_file():
    assert named("model.checkpoint=/models/all-MiniLM-L6-v2").startswith("squad,all-MiniLM-L6-v2,gradual80,")
    words = ["recipe=file", "recipe.path=recipes/obert_90.yaml"]
    assert run_name({**CHOICES, "recipe": "file"}, words, "full", 42).startswith("squad,tiny,obert_90,")


def test_a_name_of_its_own_stands_in_place_of_the_recipe():
    assert named("recipe.name=mine") == "squad,tiny,mine,recipe=gradual80,seed=42"
    assert run_name({**CHOICES, "recipe": "pruned80"}, ["recipe.name=mine"], "full", 42) != named("recipe.name=mine")


def test_a_run_that_prunes_without_a_recipe_is_filed_under_what_prunes():
    choices = {**CHOICES, "recipe": "dense"}
    words = ["sparsity=n_m", "recipe.sparsity=0.75"]
    assert run_name(choices, words, "full", 42) == "squad,tiny,n_m,recipe.sparsity=0.75,seed=42"
    assert run_name(choices, ["recipe=dense", "sparsity=none"], "full", 42) == "squad,tiny,dense,sparsity=none,seed=42"


def test_a_path_has_one_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    spellings = ("a/b", "./a/b", "a/b/", "a/../a/b", f"{tmp_path}/a/b")
    assert len({named(f"model.checkpoint={each}") for each in spellings}) == 1
    assert named("model.checkpoint=a/c") != named("model.checkpoint=./a/c")  # it may be the id of a hub


# ---- directories of earlier versions ----

WORDS = ["data.train=/rows/a.csv", "data.root=mirror", "train.threads=1"]


def make_earlier(parent: Path, train: str) -> str:
    """A run whose directory has the name that earlier versions gave it."""
    name = earlier_run_name(CHOICES, WORDS, "full", 42)
    (parent / name).mkdir()
    (parent / name / "config.yaml").write_text(yaml.safe_dump({"data": {"train": train}}))
    return name


def test_the_directory_of_an_earlier_version_is_found(tmp_path):
    earlier = make_earlier(tmp_path, "/rows/a.csv")
    assert earlier == "squad,tiny,gradual80,data.root=mirror,data.train=a.csv,train.threads=1,seed=42"
    assert named(*WORDS, parent=str(tmp_path)) == earlier
    assert named(*WORDS, parent=str(tmp_path / "other")) != earlier


def test_what_is_no_part_of_a_run_does_not_hide_its_earlier_directory(tmp_path):
    words = ["recipe.sparsity=0.9", "train.epochs=4", "train.batch_size=8"]
    earlier = earlier_run_name(CHOICES, words, "full", 42)
    (tmp_path / earlier).mkdir()
    (tmp_path / earlier / "config.yaml").write_text("data: {}")
    assert named(*words, "log=none", "train.threads=1", "data.root=mirror", parent=str(tmp_path)) == earlier


def test_a_file_of_another_directory_is_another_run(tmp_path):
    earlier = make_earlier(tmp_path, "/other/a.csv")
    assert named(*WORDS, parent=str(tmp_path)) != earlier


def test_a_run_under_its_new_name_comes_first(tmp_path):
    earlier = make_earlier(tmp_path, "/rows/a.csv")
    new = named(*WORDS)
    assert new != earlier
    (tmp_path / new).mkdir()
    assert named(*WORDS, parent=str(tmp_path)) == new
