"""Tags of SparseML as our modifiers: the corpus' oddities, and the cases T.. of the old engine's behaviour."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    ACDCPruning,
    ConstantPruning,
    Distillation,
    LayerPruning,
    LearningRate,
    MagnitudePruning,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    ScheduledLearningRate,
    SetLearningRate,
    SetParam,
    TrainableParams,
    WeightDecay,
)
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.recipe.parsed import ParsedRecipe, parse_modifiers
from sparse_xp.recipe.tags import TAGS
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import FILES

GRADUAL = "params: [a], init_sparsity: 0.0, final_sparsity: 0.8, start_epoch: 1, end_epoch: 3, update_frequency: 0.5"


def plan(*tags: str, head: str = "") -> ParsedRecipe:
    """The plan of modifiers written as ``Tag {field: value}``."""
    return parse_modifiers(read_recipe(head + "modifiers:\n" + "".join(f"  - !{tag}\n" for tag in tags)))


def only(*tags: str):
    [modifier] = plan(*tags).modifiers.values()
    return modifier


@pytest.mark.parametrize(
    ("tag", "modifier"),
    [
        (
            "LearningRateFunctionModifier {lr_func: cosine, init_lr: 5e-5, final_lr: 0, start_epoch: 0, end_epoch: 2}",
            LearningRate(shape="cosine", init_lr=5e-5, final_lr=0.0, end=2.0),
        ),
        (
            "LearningRateFunctionModifier {lr_func: cyclic_linear, init_lr: 0.1, final_lr: 0.01, start_epoch: 0, "
            "end_epoch: 4, cycle_epochs: 2.0}",
            LearningRate(shape="cyclic_linear", init_lr=0.1, final_lr=0.01, end=4.0, cycle=2.0),
        ),
        (
            "LearningRateModifier {lr_class: StepLR, lr_kwargs: {step_size: 1, gamma: 0.5}, init_lr: 0.1}",
            ScheduledLearningRate(lr_class="StepLR", lr_kwargs={"step_size": 1, "gamma": 0.5}, init_lr=0.1),
        ),
        (
            "SetLearningRateModifier {learning_rate: 1e-8, start_epoch: 6, end_epoch: 9}",
            SetLearningRate(learning_rate=1e-8, start=6.0),
        ),
        (
            "SetWeightDecayModifier {weight_decay: 1e-2, end_epoch: 6}",
            WeightDecay(weight_decay=0.01, all_groups=True),
        ),
        (
            "TrainableParamsModifier {params: ['re:.*'], trainable: False, end_epoch: 1}",
            TrainableParams(params=["re:.*"], trainable=False, end=1.0),
        ),
        (
            "SetParamModifier {params: [a.bias], val: 0, params_strict: false}",
            SetParam(params=["a.bias"], val=0.0, params_strict=False),
        ),
        (
            f"GMPruningModifier {{{GRADUAL}, mask_type: [1, 4], log_types: __ALL__}}",
            MagnitudePruning(
                params=["a"], final_sparsity=0.8, start=1.0, end=3.0, update_frequency=0.5, mask_type=[1, 4]
            ),
        ),
        (
            f"GMPruningModifier {{{GRADUAL}, mask_type: [1, 4, 1, 1], global_sparsity: 1, leave_enabled: False, phased: False}}",
            MagnitudePruning(
                params=["a"],
                final_sparsity=0.8,
                start=1.0,
                end=3.0,
                update_frequency=0.5,
                mask_type=[1, 4],
                global_sparsity=True,
                leave_enabled=False,
            ),
        ),
        (
            f"MagnitudePruningModifier {{{GRADUAL}}}",
            MagnitudePruning(params=["a"], final_sparsity=0.8, start=1.0, end=3.0, update_frequency=0.5),
        ),
        (
            f"GlobalMagnitudePruningModifier {{{GRADUAL}, inter_func: linear}}",
            MagnitudePruning(
                params=["a"],
                final_sparsity=0.8,
                start=1.0,
                end=3.0,
                update_frequency=0.5,
                inter_func="linear",
                global_sparsity=True,
            ),
        ),
        (
            f"MovementPruningModifier {{{GRADUAL}}}",
            MovementPruning(params=["a"], final_sparsity=0.8, start=1.0, end=3.0, update_frequency=0.5),
        ),
        (  # global unlike GMPruning, and a block size of 1
            f"OBSPruningModifier {{{GRADUAL}, damp: 1e-7, grad_sampler_kwargs: {{batch_size: 8}}}}",
            OBSPruning(
                params=["a"],
                final_sparsity=0.8,
                start=1.0,
                end=3.0,
                update_frequency=0.5,
                global_sparsity=True,
                fisher_block_size=1,
                num_grads=1024,
                damp=1e-7,
                grad_batch_size=8,
            ),
        ),
        (
            "ConstantPruningModifier {params: __all_prunable__}",
            ConstantPruning(params=["__ALL_PRUNABLE__"], refresh_masks=True),
        ),
        (
            "ACDCPruningModifier {compression_sparsity: 0.9, start_epoch: 0, end_epoch: 10, update_frequency: 2, params: [a]}",
            ACDCPruning(compression_sparsity=0.9, end=10.0, update_frequency=2.0, params=["a"]),
        ),
        (
            "LayerPruningModifier {layers: [bert.encoder.layer.1], start_epoch: -1, update_frequency: -1}",
            LayerPruning(layers=["bert.encoder.layer.1"]),
        ),
        ("DistillationModifier", Distillation()),
        (
            "DistillationModifier {hardness: 1.0, temperature: 5.0, distill_output_keys: [logits], start_epoch: 0.0, end_epoch: 6}",
            Distillation(hardness=1.0, temperature=5.0, outputs=["logits"], end=6.0),
        ),
        ("PerLayerDistillationModifier {gain: 2}", PerLayerDistillation(gain=2.0)),
        (
            "QuantizationModifier {start_epoch: 8.0, disable_quantization_observer_epoch: 12, freeze_bn_stats_epoch: 12, "
            "quantize_embeddings: 1, quantize_linear_activations: 0, exclude_module_types: ['LayerNorm'], submodules: [bert]}",
            Quantization(
                start=8.0,
                observers_end=12.0,
                linear_outputs=False,
                embedding_outputs=True,
                exclude=["LayerNorm"],
                submodules=["bert"],
                per_channel=False,
                reduce_range=False,
            ),
        ),
        (
            "QuantizationModifier {start_epoch: 2, reduce_range: true}",
            Quantization(start=2.0, linear_outputs=True, embedding_outputs=True, per_channel=False, reduce_range=True),
        ),
        (
            "QuantizationModifier {start_epoch: 2}",
            Quantization(start=2.0, per_channel=False, reduce_range=False),
        ),  # the newer class
    ],
)
def test_each_tag_is_its_modifier(tag, modifier):
    assert only(tag) == modifier


@pytest.mark.parametrize(
    "tag", ["EpochRangeModifier {start_epoch: 0.0, end_epoch: 3}", "SparsificationLoggingModifier"]
)
def test_tags_that_need_no_modifier(tag):
    assert not plan(tag).modifiers


def test_every_tag_has_a_test():
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [tag for tag in TAGS if f'"{tag} ' not in text and f'"{tag}"' not in text]


@pytest.mark.parametrize(
    ("tags", "epochs"),
    [
        (["EpochRangeModifier {start_epoch: 0, end_epoch: 13}"], 13.0),
        (
            [
                "LearningRateFunctionModifier {lr_func: linear, init_lr: 1e-4, final_lr: 0, start_epoch: 0, end_epoch: 2.3}"
            ],
            3.0,
        ),
        (["DistillationModifier", "ConstantPruningModifier {params: [a]}"], None),
        (["EpochRangeModifier {start_epoch: 0, end_epoch: 2}", f"GMPruningModifier {{{GRADUAL}}}"], 3.0),
        (["QuantizationModifier {start_epoch: 8}", "EpochRangeModifier {start_epoch: 0, end_epoch: 5}"], 8.0),
    ],
)
def test_t18_the_length_is_the_last_time_of_any_modifier(tags, epochs):
    assert plan(*tags).epochs == epochs


def test_t11_the_lower_of_two_levels_wins():
    found = plan(
        "GMPruningModifier {params: [], init_sparsity: 0.0, final_sparsity: {0.8: ['re:.*weight'], 0.5: [0.weight]}, "
        "start_epoch: 0, end_epoch: 2, update_frequency: 1}"
    ).modifiers
    assert [(m.final_sparsity, m.params, m.exclude) for m in found.values()] == [
        (0.5, ["0.weight"], []),
        (0.8, ["re:.*weight"], ["0.weight"]),
    ]
    ModifierList(found, Clock(4, 12))  # they do not count as overlapping


@pytest.mark.parametrize(
    ("tags", "least"),
    [
        (["ConstantPruningModifier {params: [a]}"], 0.05),
        (["ConstantPruningModifier {params: [a], start_epoch: 1}"], 0.0),
        (["ConstantPruningModifier {params: [a]}", f"GMPruningModifier {{{GRADUAL}}}"], 0.0),
    ],
)
def test_zeros_that_nothing_makes_have_to_be_there(tags, least):
    assert plan(*tags).modifiers["ConstantPruning"].min_sparsity == least


def test_t7_tiles_are_tiles_and_that_is_said():
    found = plan(f"GMPruningModifier {{{GRADUAL}, mask_type: [2, 4]}}")
    assert "runs of 8 consecutive weights" in found.remarks[0]


def test_t28_an_integer_and_a_token_for_the_first_sparsity():
    assert only(f"GMPruningModifier {{{GRADUAL.replace('0.0', '0')}}}").init_sparsity == 0
    assert only(f"GMPruningModifier {{{GRADUAL.replace('0.0', '__FROM_PARAM__')}}}").init_sparsity == "__FROM_PARAM__"


def test_names_of_equal_tags():
    assert list(plan(*["DistillationModifier"] * 3).modifiers) == ["Distillation", "Distillation_2", "Distillation_3"]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (
            f"GMPruningModifier {{{GRADUAL.replace('0.8', '1.0')}}}",
            "final_sparsity=1.0: expected a fraction strictly",
        ),
        (f"GMPruningModifier {{{GRADUAL.replace('0.8', '0')}}}", "final_sparsity=0.0: expected"),
        (f"GMPruningModifier {{{GRADUAL}, phased: True}}", "phased: true has been an error"),
        (f"GMPruningModifier {{{GRADUAL}, mask_type: channel}}", "mask_type: channel has been an error"),
        (f"GMPruningModifier {{{GRADUAL}, mask_type: [a, b]}}", "mask_type: expected [out, in], not ['a', 'b']"),
        (f"GMPruningModifier {{{GRADUAL}, score_type: movement}}", "write !MovementPruningModifier"),
        (f"GMPruningModifier {{{GRADUAL}, score_type: MFAC}}", "write !OBSPruningModifier"),
        (f"GMPruningModifier {{{GRADUAL}, mask_typ: block4}}", "has no mask_typ. Did you mean 'mask_type'?"),
        (f"GMPruningModifier {{{GRADUAL.replace('params: [a]', 'params: encoder')}}}", "expected a list, __ALL__"),
        ("GMPruningModifier {params: [a]}", "GMPruningModifier needs init_sparsity"),
        ("MFACPruningModifier {params: [a]}", "!OBSPruningModifier has second-order scores"),
        ("EpochRangModifier {start_epoch: 0}", "Did you mean 'EpochRangeModifier'?"),
        ("EpochRangeModifier {start_epoch: -2, end_epoch: 3}", "start_epoch: expected an epoch from 0, or -1"),
        ("SetWeightDecayModifier {weight_decay: much}", "weight_decay: expected a number, not 'much'"),
        ("QuantizationModifier {start_epoch: 0, weight_qconfig_kwargs: {a: 1}}", "classes of torch.ao"),
        ("QuantizationModifier {start_epoch: 0, tensorrt: true}", "tensorrt: true is not supported"),
        ("QuantizationModifier {start_epoch: 0, reduce_range: some}", "reduce_range: expected true or false"),
        ("LayerPruningModifier {layers: [a], start_epoch: 2}", "LayerPruning"),
        (
            "SetLearningRateModifier {learning_rate: 0.1, param_groups: [0]}",
            "!SetLearningRateModifier: param_groups: all groups are driven together here",
        ),
    ],
)
def test_what_cannot_be_says_where(tag, message):
    with pytest.raises(UserError, match=r"^recipe:2:\d+: ") as error:
        plan(tag)
    assert message in str(error.value)


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_recipes_of_the_package(path):
    found = parse_modifiers(read_recipe(str(path)))
    assert found.epochs
    steps = int(found.epochs * 10)
    ModifierList(found.modifiers, Clock(10, steps))


def test_the_recipe_of_the_seed_in_the_order_of_its_times():
    found = parse_modifiers(read_recipe(str(FILES / "bert-base-12layers_prune70_quant.md")))
    assert found.epochs == 40
    windows = {
        name: modifier.window(Clock(10, 400))
        for name, modifier in ModifierList(found.modifiers, Clock(10, 400)).modifiers.items()
    }
    assert windows == {
        "LearningRateFunction": (0.0, 30.0),
        "Distillation": (0.0, 40.0),
        "GMPruning": (2.0, 20.0),
        "LearningRateFunction_2": (30.0, 40.0),
        "Quantization": (30.0, 40.0),
    }
