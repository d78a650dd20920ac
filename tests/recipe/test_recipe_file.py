"""``recipe=file``: what a SparseML recipe takes over of a run, and the stubs of the zoo."""

from __future__ import annotations

import pytest

from sparse_xp.errors import UserError
from sparse_xp.modifiers import WeightDecay
from sparse_xp.recipe.parsed import parse_modifiers
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import FILES, find_model, find_recipe
from sparse_xp.synthetic.model import build_checkpoint, vocabulary
from sparse_xp.tasks import all_generated_words
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

TRANSFER = f"recipe.path={FILES / 'obert_base_pruned90_quant_squad.yaml'}"
CLASSES = f"recipe.path={FILES / 'bert_base_pruned80_classes.yaml'}"
QUICK = "recipe.args={num_epochs: 2, qat_start_epoch: 1, observer_epoch: 1.5}"
ZOO = "zoo:nlp/question_answering/obert-base/pytorch/huggingface/squad"


def test_its_modifiers_and_its_length_rule():
    config = configure(
        "recipe=file", TRANSFER, "teacher=self", "recipe.args={num_epochs: 4, qat_start_epoch: 3, observer_epoch: 3.5}"
    )
    assert config.recipe.name == "obert_base_pruned90_quant_squad"
    assert config.train.epochs == 4
    assert list(config.modifiers()) == [
        "recipe.modifiers.LearningRateFunction",
        "recipe.modifiers.Quantization",
        "recipe.modifiers.Distillation",
        "recipe.modifiers.ConstantPruning",
        "recipe.modifiers.SetWeightDecay",
    ]
    assert isinstance(config.recipe.modifiers["SetWeightDecay"], WeightDecay)
    assert any("sets 4 epochs, in place of train.epochs=" in remark for remark in config.recipe.remarks)


def test_without_a_rate_of_its_own_that_of_the_command_counts():
    config = configure(
        "task=sst2", "recipe=file", CLASSES, "teacher=disable", "train.learning_rate=1e-3", "train.warmup=20%"
    )
    names = list(config.modifiers())
    assert names[:3] == ["recipe.learning_rate.warmup", "recipe.learning_rate.decay", "recipe.weight_decay"]
    assert config.recipe.learning_rate["decay"].init_lr == 1e-3
    assert "recipe.modifiers.Distillation" not in names


def test_a_recipe_that_distils_needs_a_teacher_or_a_word():
    with pytest.raises(UserError, match=r"teacher=dense .*teacher=disable to train without"):
        configure("recipe=file", TRANSFER)


def test_a_teacher_that_no_one_asks_is_not_trained():
    config = configure("recipe=file", f"recipe.path={FILES / 'obert_base_squad.yaml'}", "teacher=dense")
    assert not config.teacher.given
    assert any("does not distil: teacher=dense is not used" in remark for remark in config.recipe.remarks)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "recipe=file needs recipe.path=FILE"),
        (["recipe.path=nowhere.yaml"], "nowhere.yaml: No such file"),
        (["recipe.path=recipe.json"], "expected a file ending in .md, .yaml or .yml"),
        ([TRANSFER, "recipe.args={epochs: 3}"], "names epochs, and the recipe has no such variable"),
        (
            [
                f"recipe.path={FILES / 'bert-base-12layers_prune70_quant.md'}",
                "recipe.args={num_epochs: 3}",
                "recipe.strict=true",
            ],
            "recipe.anchors=true",
        ),
    ],
)
def test_what_cannot_be_read(words, message):
    with pytest.raises(UserError, match=message):
        configure("recipe=file", *words)


def test_text_in_place_of_a_file():
    text = "modifiers:\\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}\\n"
    config = configure("recipe=file", f'recipe.path="{text}"'.replace("\\n", "\n"))
    assert (config.recipe.name, config.train.epochs) == ("recipe", 2)


def test_every_stub_of_the_tutorials_has_an_answer():
    base = "zoo:nlp/masked_language_modeling"
    assert find_model(f"{base}/obert-base/pytorch/huggingface/wikipedia_bookcorpus/base-none") == "bert-base-uncased"
    assert find_model(f"{ZOO}/base-none") == "neuralmagic/oBERT-teacher-squadv1"
    stub = f"{base}/bert-base/pytorch/huggingface/bookcorpus_wikitext/12layer_pruned80-none"
    with pytest.raises(UserError, match=r"switched off in 2025.*the nearest is Intel/bert-base-uncased-squadv1.1"):
        find_model(stub)
    for task in ("SQuAD", "QQP", "MNLI", "CoNLL2003", "SST2"):
        assert find_recipe(f"{stub}?recipe_type=transfer-{task}").startswith(str(FILES))
        assert find_recipe(f"{stub}?recipe=transfer-{task}").startswith(str(FILES))
    assert find_recipe(f"{ZOO}/pruned90_quant-none") == str(FILES / "obert_base_pruned90_quant_squad.yaml")
    assert find_recipe("mine.yaml") == "mine.yaml"


def test_a_table_of_ones_own(tmp_path):
    own = tmp_path / "zoo.yaml"
    own.write_text(f"models:\n  {ZOO.removeprefix('zoo:')}/pruned90_quant-none: {tmp_path}\n")
    config = configure("recipe=dense", f"model.checkpoint={ZOO}/pruned90_quant-none", f"zoo={own}")
    assert config.model.checkpoint == str(tmp_path)
    own.write_text("[]")
    with pytest.raises(UserError, match="expected 'models:' and 'recipes:'"):
        find_model(f"{ZOO}/base-none", str(own))
    with pytest.raises(UserError, match="Did you mean 'nlp/question_answering/obert-base"):
        find_recipe(f"{ZOO}/pruned90_quant-non")


def test_a_whole_run_lands_where_the_recipe_says(tmp_path):
    from sparse_xp.run import run

    args = (
        "recipe.args={num_epochs: 3, init_lr: 2e-3, pruning_start_epoch: 0.5, pruning_end_epoch: 2, "
        "quantization_start_epoch: 2, qat_freeze_epoch: 2.5}"
    )
    config = configure(
        *SHORT,
        "recipe=file",
        f"recipe.path={FILES / 'bert-base-12layers_prune70_quant.md'}",
        args,
        "recipe.anchors=true",
        "teacher=disable",
        "train.epochs=50",
        "train.keep_best=false",
    )
    result = run(config, tmp_path / "run")
    assert result.training.epochs == 3
    assert result.sparsity.prunable == pytest.approx(0.7, abs=5e-4)  # whole blocks
    lines = {line["step"]: line for line in history(tmp_path / "run") if "loss" in line}
    assert lines[1]["lr"] == 2e-3
    assert lines[17]["lr"] == 2e-3  # the second segment begins again at the top, at epoch 2
    assert lines[4]["sparsity"] == pytest.approx(0.0, abs=0.01)
    assert lines[17]["sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert "Quantization" in (tmp_path / "run/recipe.yaml").read_text()
    saved = parse_modifiers(
        read_recipe(str(tmp_path / "run/model/recipe.yaml"))
    )  # beside the weights, in the same dialect
    assert {name: each for name, each in saved.modifiers.items() if name != "WeightDecay"} == config.recipe.modifiers
    assert saved.epochs == 3


SHORTER = "recipe.args={num_epochs: 5, init_lr: 2e-3}"


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "obert_base_pruned90_quant_squad.yaml",
            [SHORTER],
            r"yaml:33:5: Quantization: start=8.0 is not before end=100% in a run of 8 epochs. In the recipe "
            "Quantization's start_epoch is qat_start_epoch, Quantization's disable_quantization_observer_epoch is "
            r"observer_epoch: change them together \(recipe.args\).",
        ),
        (
            "bert-base-12layers_prune70_quant.md",
            [SHORTER, "recipe.anchors=true"],
            r"md:51:5: LearningRateFunction_2: start=30.0 is not before end=5.0 in a run of 30 epochs. In the recipe "
            "LearningRateFunction_2's start_epoch is quantization_start_epoch, LearningRateFunction_2's end_epoch is "
            "num_epochs: change",
        ),
    ],
)
def test_times_that_do_not_fit_name_their_variables_before_anything_is_loaded(name, words, message):
    with pytest.raises(UserError, match=message):
        configure("recipe=file", f"recipe.path={FILES / name}", "teacher=disable", *words)


def test_a_length_that_another_modifier_makes_is_told():
    args = "recipe.args={num_epochs: 5, qat_start_epoch: 7}"
    text = "".join((FILES / "obert_base_pruned90_quant_squad.yaml").read_text())
    text += "  - !SetParamModifier {params: [x], val: 0, start_epoch: 7.5}\n"
    config = configure(
        "recipe=file", f"recipe.path='{text}'".replace("['LayerNorm']", "[LayerNorm]"), "teacher=disable", args
    )
    assert config.train.epochs == 8
    assert any("EpochRangeModifier ends at 5, but SetParamModifier is in epoch 7.5" in r for r in config.recipe.remarks)


def test_a_recipe_that_keeps_zeros_starts_from_a_sparse_tiny_model():
    words = ("recipe=file", TRANSFER, "teacher=disable", "profile=embedded")
    config = configure(*words)
    assert config.recipe.modifiers["ConstantPruning"].min_sparsity == 0.05
    assert config.model.sparsity == 0.8
    assert any("the tiny model is made with 80% of them" in remark for remark in config.recipe.remarks)
    assert configure(*words, "recipe.start_sparsity=0.9").model.sparsity == 0.9
    assert configure("recipe=file", CLASSES, "teacher=disable", "model.checkpoint=x").model.checkpoint == "x"


def test_a_recipe_that_keeps_zeros_refuses_a_dense_checkpoint(tmp_path):
    from sparse_xp.run import run
    from sparse_xp.run_directory import unclaim_run

    dense = tmp_path / "dense"
    build_checkpoint(dense, vocabulary(all_generated_words()))
    config = configure(*SHORT, "recipe=file", TRANSFER, "teacher=disable", f"model.checkpoint={dense}", QUICK)
    with pytest.raises(UserError, match=r"has 0.0% zeros in __ALL_PRUNABLE__, expected at least 5%"):
        run(config, tmp_path / "run")
    unclaim_run(tmp_path / "run")  # as the command does
    assert not (tmp_path / "run").exists()
