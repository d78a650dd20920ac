"""Recipes as SparseML 1.8 writes them beside a checkpoint: every field with its default, and composed stages.

The texts are what its manager printed for the short forms. Tags: keys in alphabetical order, Python's notation.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    Distillation,
    LayerPruning,
    MagnitudePruning,
    Quantization,
    SetParam,
    TrainableParams,
    WeightDecay,
)
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.recipe.parsed import ParsedRecipe, parse_modifiers
from sparse_xp.recipe.tags import TAGS
from sparse_xp.recipe.text import read_recipe

GRADUAL = "params: [a], init_sparsity: 0.05, final_sparsity: 0.8, start_epoch: 1, end_epoch: 3, update_frequency: 0.5"
SAVED_GRADUAL = {
    "end_epoch": "3.0",
    "final_sparsity": "0.8",
    "init_sparsity": "0.05",
    "inter_func": "cubic",
    "leave_enabled": "True",
    "mask_type": "unstructured",
    "params": "['a']",
    "start_epoch": "1.0",
    "update_frequency": "0.5",
}
WHOLE = {"end_epoch": "-1.0", "start_epoch": "-1.0"}
ARGS = "{'num_bits': 8, 'symmetric': %s, 'strategy': 'tensor', 'kwargs': {}}"
SCHEME = (
    f"{{'input_activations': {ARGS % False}, 'weights': {ARGS % True}, 'output_activations': 'null', "
    "'target_hardware': %s}"
)
EMBEDDING = (
    f"{{'Embedding': {{'input_activations': None, 'weights': {ARGS % True}, 'output_activations': None, "
    "'target_hardware': None}}"
)
SAVED_OLDER = {
    "activation_bits": "8",
    "end_epoch": "-1.0",
    "exclude_batchnorm": "True",
    "model_fuse_fn_name": "conv_bn_relus",
    "quantize_conv_activations": "True",
    "quantize_embedding_activations": "True",
    "quantize_embeddings": "True",
    "quantize_linear_activations": "True",
    "reduce_range": "False",
    "start_epoch": "2.0",
    "submodules": "['bert.encoder']",
    "tensorrt": "False",
    "weight_bits": "8",
}
SAVED_NEWER = {
    "end_epoch": "-1.0",
    "ignore": "[]",
    "model_fuse_fn_kwargs": "{}",
    "scheme": SCHEME % "'null'",
    "scheme_overrides": "{}",
    "start_epoch": "2.0",
    "strict": "True",
}

#: tag, the fields of its short form, the fields that SparseML saved
CASES: list[tuple[str, str, dict[str, str]]] = [
    ("EpochRangeModifier", "start_epoch: 0, end_epoch: 3", {"end_epoch": "3.0", "start_epoch": "0.0"}),
    (
        "LearningRateFunctionModifier",
        "lr_func: linear, init_lr: 5e-5, final_lr: 0, start_epoch: 0, end_epoch: 3",
        {
            "cycle_epochs": "1.0",
            "end_epoch": "3.0",
            "final_lr": "0.0",
            "init_lr": "5e-05",
            "lr_func": "linear",
            "start_epoch": "0.0",
            "update_frequency": "-1.0",
        },
    ),
    (
        "LearningRateModifier",
        "lr_class: MultiStepLR, lr_kwargs: {gamma: 0.9, milestones: [1, 2]}, init_lr: 0.01, start_epoch: 0, end_epoch: 3",
        {
            "constant_logging": "False",
            "end_epoch": "3.0",
            "init_lr": "0.01",
            "lr_class": "MultiStepLR",
            "lr_kwargs": "{'gamma': 0.9, 'milestones': [1, 2]}",
            "start_epoch": "0.0",
            "update_frequency": "-1.0",
        },
    ),
    (
        "SetLearningRateModifier",
        "learning_rate: 0.01",
        WHOLE | {"constant_logging": "False", "learning_rate": "0.01"},
    ),
    ("SetWeightDecayModifier", "weight_decay: 0", WHOLE | {"constant_logging": "False", "weight_decay": "0.0"}),
    (
        "TrainableParamsModifier",
        "params: [a], trainable: False",
        WHOLE | {"params": "['a']", "params_strict": "True", "trainable": "False"},
    ),
    (
        "SetParamModifier",
        "params: [a], val: 0.5",
        WHOLE | {"params": "['a']", "params_strict": "True", "start_epoch": "0.0", "val": "0.5"},
    ),
    ("GMPruningModifier", GRADUAL, SAVED_GRADUAL | {"global_sparsity": "False"}),
    (
        "GMPruningModifier",
        GRADUAL.replace("[a]", "[]").replace("0.8", "{0.5: [a], 0.8: ['re:b.*']}"),
        SAVED_GRADUAL | {"global_sparsity": "False", "params": "[]", "final_sparsity": "{0.5: ['a'], 0.8: ['re:b.*']}"},
    ),
    (
        "GMPruningModifier",
        f"{GRADUAL.replace('0.8', '0.5')}, mask_type: '2:4'",
        SAVED_GRADUAL | {"global_sparsity": "False", "final_sparsity": "0.5", "mask_type": "2:4"},
    ),
    (
        "GMPruningModifier",
        GRADUAL.replace("[a]", r"['re:.*[.]query\.weight']"),
        SAVED_GRADUAL | {"global_sparsity": "False", "params": r"['re:.*[.]query\\.weight']"},
    ),
    ("MagnitudePruningModifier", GRADUAL, SAVED_GRADUAL),
    ("GlobalMagnitudePruningModifier", GRADUAL, SAVED_GRADUAL),
    ("MovementPruningModifier", GRADUAL, SAVED_GRADUAL),
    (
        "OBSPruningModifier",
        f"{GRADUAL}, grad_sampler_kwargs: {{batch_size: 8}}",
        SAVED_GRADUAL
        | {
            "damp": "1e-07",
            "fisher_block_size": "1",
            "global_sparsity": "True",
            "grad_sampler_kwargs": "{'batch_size': 8}",
            "num_grads": "1024",
            "num_recomputations": "1",
        },
    ),
    (
        "ConstantPruningModifier",
        "params: __ALL_PRUNABLE__",
        WHOLE | {"params": "__ALL_PRUNABLE__", "update_frequency": "-1"},
    ),
    (
        "ACDCPruningModifier",
        "compression_sparsity: 0.9, start_epoch: 0, end_epoch: 10, update_frequency: 2, params: [a]",
        {
            "compression_sparsity": "0.9",
            "end_epoch": "10.0",
            "global_sparsity": "True",
            "leave_enabled": "True",
            "mask_type": "unstructured",
            "momentum_buffer_reset": "True",
            "params": "['a']",
            "start_epoch": "0.0",
            "update_frequency": "2",
        },
    ),
    ("LayerPruningModifier", "layers: [a, b]", WHOLE | {"layers": "['a', 'b']", "update_frequency": "-1.0"}),
    (
        "DistillationModifier",
        "distill_output_keys: [start_logits, end_logits]",
        WHOLE
        | {
            "distill_output_keys": "['start_logits', 'end_logits']",
            "hardness": "0.5",
            "temperature": "2.0",
            "update_frequency": "-1.0",
        },
    ),
    (
        "PerLayerDistillationModifier",
        "",
        WHOLE
        | {
            "epsilon": "1e-06",
            "gain": "1.5",
            "normalize": "True",
            "project_features": "True",
            "update_frequency": "-1.0",
        },
    ),
    ("QuantizationModifier", "start_epoch: 2, submodules: [bert.encoder]", SAVED_OLDER),
    (
        "QuantizationModifier",
        "start_epoch: 2, submodules: [bert.encoder], disable_quantization_observer_epoch: 3, quantize_embeddings: 0, "
        "quantize_linear_activations: 0, exclude_module_types: [LayerNorm]",
        SAVED_OLDER
        | {
            "custom_quantizable_module_types": "['X']",
            "disable_quantization_observer_epoch": "3",
            "exclude_module_types": "['LayerNorm']",
            "freeze_bn_stats_epoch": "3",
            "num_calibration_steps": "10",
            "quantize_embeddings": "0",
            "quantize_linear_activations": "0",
        },
    ),
    ("QuantizationModifier", "start_epoch: 2", SAVED_NEWER),
    (
        "QuantizationModifier",
        "start_epoch: 2, scheme: deepsparse, ignore: [LayerNorm]",
        SAVED_NEWER
        | {
            "ignore": "['LayerNorm']",
            "model_fuse_fn_name": "no_fuse",
            "scheme": SCHEME % "'deepsparse'",
            "scheme_overrides": EMBEDDING,
        },
    ),
    (
        "SparsificationLoggingModifier",
        "start_epoch: 0",
        {"end_epoch": "-1.0", "start_epoch": "0.0", "update_frequency": "1.0"},
    ),
]


def plan(text: str) -> ParsedRecipe:
    return parse_modifiers(read_recipe(text))


def saved_text(tag: str, fields: dict[str, str]) -> str:
    """What SparseML's manager prints."""
    lines = "".join(f"        {key}: {value}\n" for key, value in sorted(fields.items()))
    metadata = "__metadata__:\n  fp16: True\n  framework_metadata:\n    sparseml_version: 1.8.0\n"
    return f"version: 1.1.0\n\n{metadata}\nmodifiers:\n    - !{tag}\n{lines}\n"


@pytest.mark.parametrize(("tag", "short", "saved"), CASES, ids=[f"{tag}-{short[:30]}" for tag, short, _ in CASES])
def test_each_tag_with_all_its_fields_is_that_of_its_short_form(tag, short, saved):
    one = plan(f"modifiers:\n  - !{tag} {{{short}}}\n")
    other = plan(saved_text(tag, saved))
    assert other.modifiers == one.modifiers
    assert other.epochs == one.epochs
    assert {name: type(each) for name, each in other.modifiers.items()} == {
        name: type(each) for name, each in one.modifiers.items()
    }


def test_every_tag_that_can_be_read_is_among_them():
    assert {tag for tag, _, _ in CASES} == TAGS.keys()


# Composed recipes: SparseML shifts a later stage, and gives an end to all that has none in an earlier one

COMPOSED = f"""\
version: 1.1.0

stage_0:
  __metadata__: None

  stage_0_modifiers:
      - !GMPruningModifier
          end_epoch: 3.0
          final_sparsity: 0.8
          global_sparsity: False
          init_sparsity: 0.05
          inter_func: cubic
          leave_enabled: True
          mask_type: unstructured
          params: ['re:.*\\\\\\\\.query\\\\\\\\.weight']
          start_epoch: 1.0
          update_frequency: 0.5
  
      - !DistillationModifier
          end_epoch: 4
          hardness: 0.5
          start_epoch: -1.0
          temperature: 2.0
          update_frequency: -1.0
  
      - !LayerPruningModifier
          end_epoch: 4
          layers: ['bert.encoder.layer.1']
          start_epoch: -1.0
          update_frequency: -1.0
  
      - !SetWeightDecayModifier
          constant_logging: False
          end_epoch: 4
          start_epoch: -1.0
          weight_decay: 0.0
  
      - !TrainableParamsModifier
          end_epoch: 4
          params: __ALL__
          params_strict: True
          start_epoch: -1.0
          trainable: True
  
      - !EpochRangeModifier
          end_epoch: 4.0
          start_epoch: 0.0
  
      - !SetParamModifier
          end_epoch: 4
          params: __ALL__
          params_strict: True
          start_epoch: 0.0
          val: 0.0
  
      - !QuantizationModifier
          disable_quantization_observer_epoch: 3
          end_epoch: 4
          ignore: []
          model_fuse_fn_kwargs: {{}}
          scheme: {SCHEME % "'null'"}
          scheme_overrides: {{}}
          start_epoch: 2.0
          strict: True
  

stage_1:
  __metadata__: None

  stage_1_modifiers:
      - !EpochRangeModifier
          end_epoch: 7.0
          start_epoch: 4.0
  
      - !DistillationModifier
          end_epoch: -1.0
          hardness: 1.0
          start_epoch: 4.0
          temperature: 2.0
          update_frequency: -1.0
  
      - !LayerPruningModifier
          end_epoch: -1.0
          layers: ['bert.encoder.layer.3']
          start_epoch: 4.0
          update_frequency: -1.0
  
      - !SetWeightDecayModifier
          constant_logging: False
          end_epoch: -1.0
          start_epoch: 4.0
          weight_decay: 0.01
  
"""  # noqa: W293


def test_a_composed_recipe_is_read_whole():
    found = plan(COMPOSED)
    assert found.epochs == 7
    pruning = MagnitudePruning(
        params=[r"re:.*\.query\.weight"],
        init_sparsity=0.05,
        final_sparsity=0.8,
        start=1.0,
        end=3.0,
        update_frequency=0.5,
    )
    assert found.modifiers == {
        "GMPruning": pruning,
        "Distillation": Distillation(hardness=0.5, end=4.0),
        "LayerPruning": LayerPruning(layers=["bert.encoder.layer.1", "bert.encoder.layer.3"]),
        "SetWeightDecay": WeightDecay(all_groups=True, end=4.0),
        "TrainableParams": TrainableParams(params=["__ALL__"], trainable=True, end=4.0),
        "SetParam": SetParam(params=["__ALL__"], val=0.0),
        "Quantization": Quantization(start=2.0, observers_end=3.0, per_channel=False, reduce_range=False),
        "Distillation_2": Distillation(hardness=1.0, start=4.0),
        "SetWeightDecay_2": WeightDecay(weight_decay=0.01, all_groups=True, start=4.0),
    }
    assert sum("LayerPruningModifier: start_epoch and end_epoch are not used" in each for each in found.remarks) == 1
    ModifierList(found.modifiers, Clock(10, 70))


# Settings in sequence

SET = {
    "SetWeightDecayModifier": ("weight_decay: 0.1", "weight_decay: 0.0", "weight_decay: 0.2"),
    "SetLearningRateModifier": ("learning_rate: 0.1", "learning_rate: 0.2", "learning_rate: 0.3"),
    "SetParamModifier": ("params: [a], val: 1", "params: [a], val: 2", "params: [a], val: 3"),
    "TrainableParamsModifier": ("params: [a], trainable: true", "params: [a], trainable: false", "params: [a], trainable: yes"),
}  # fmt: skip


@pytest.mark.parametrize("tag", SET)
def test_settings_in_sequence(tag):
    """Each holds until the next one."""
    values = zip(SET[tag], (4, 0, 2), strict=True)
    text = "".join(f"  - !{tag} {{{value}, start_epoch: {start}}}\n" for value, start in values)
    found = plan(f"modifiers:\n{text}").modifiers
    name = tag.removesuffix("Modifier")
    ordered = ModifierList(found, Clock(10, 60)).modifiers
    assert list(ordered) == [f"{name}_2", f"{name}_3", name]
    assert [each.start for each in ordered.values()] == [0.0, 2.0, 4.0]
    if tag in ("SetWeightDecayModifier", "TrainableParamsModifier"):
        assert [each.end for each in ordered.values()] == [2.0, 4.0, "100%"]


def test_two_settings_at_one_time_are_refused():
    two = plan(
        "modifiers:\n  - !SetWeightDecayModifier {weight_decay: 0.1}\n  - !SetWeightDecayModifier {weight_decay: 0}\n"
    )
    with pytest.raises(UserError, match="both drive the weight decay"):
        ModifierList(two.modifiers, Clock(10, 60))


# Removed layers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("end_epoch: 2", "!LayerPruningModifier: end_epoch: 2 is inside the run of 4 epochs"),
        ("start_epoch: 1", "!LayerPruningModifier: start_epoch: layers are removed from the first step on"),
    ],
)
def test_layers_that_come_back_are_refused(fields, message):
    with pytest.raises(UserError, match=r"^recipe:3:\d+: ") as error:
        plan(
            "modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 4}\n"
            f"  - !LayerPruningModifier {{layers: [a], {fields}}}\n"
        )
    assert message in str(error.value)


def test_layers_that_stay_away_until_the_end_stay_away():
    found = plan("modifiers:\n  - !LayerPruningModifier {layers: [a], end_epoch: 4}\n")
    assert (found.modifiers, found.epochs) == ({"LayerPruning": LayerPruning(layers=["a"])}, 4.0)


# Schemes

NEWER = Quantization(per_channel=False, reduce_range=False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("scheme: {weights: {num_bits: 4, symmetric: true}}", replace(NEWER, weight_bits=4)),
        ("scheme: {input_activations: {num_bits: 7}}", replace(NEWER, activation_bits=7)),
        ("scheme: {weights: {symmetric: true, strategy: channel}}", replace(NEWER, per_channel=True)),
        (
            "scheme: {output_activations: {num_bits: 8, symmetric: false}}",
            replace(NEWER, linear_outputs=True, embedding_outputs=True),
        ),
        ("scheme_overrides: {Embedding: {input_activations: null}}", NEWER),
        ("scheme_overrides: {Embedding: {weights: {num_bits: 8, symmetric: false}}}", NEWER),
        (
            "scheme_overrides: {Embedding: {input_activations: null, weights: null}}",
            replace(NEWER, quantize_embeddings=False),
        ),
        ("scheme_overrides: {bert.pooler: default, LayerNorm: tensorrt_is_no_scheme}", None),
        ("scheme_overrides: {bert.pooler: default, LayerNorm: {weights: null}}", NEWER),
        (
            "scheme_overrides: {classifier: {input_activations: null, weights: null}}, ignore: [bert.pooler]",
            replace(NEWER, exclude=["bert.pooler", "classifier"]),
        ),
        ("scheme: null, scheme_overrides: null, ignore: null", NEWER),
        (
            "default_scheme: default, submodule_schemes: {bert.encoder: default}, exclude_module_types: [ReLU]",
            replace(NEWER, submodules=["bert.encoder"], exclude=["ReLU"]),
        ),
    ],
)
def test_schemes_of_the_newer_class(fields, expected):
    text = f"modifiers:\n  - !QuantizationModifier {{{fields}}}\n"
    if expected is None:
        with pytest.raises(UserError, match="LayerNorm: expected default, deepsparse or a mapping"):
            plan(text)
    else:
        assert list(plan(text).modifiers.values()) == [expected]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("scheme: tensorrt", "scheme: tensorrt has symmetric activations"),
        ("scheme: int8", "scheme: expected default, deepsparse or a mapping, not 'int8'"),
        ("scheme: [8]", "scheme: expected default"),
        ("scheme: {inputs: null}", "scheme: it has no inputs."),
        ("scheme: {input_activations: {symmetric: true}}", "input_activations: expected symmetric: false"),
        ("scheme: {weights: {num_bits: 8}}", "weights: expected symmetric: true"),
        ("scheme: {weights: null}", "inputs and weights of Linears are quantized together here"),
        ("scheme: {weights: {symmetric: true, num_bits: 16}}", "weight_bits=16: expected 2 to 8 bits"),
        ("scheme: {weights: {symmetric: true, num_bits: .inf}}", "scheme: expected a number"),
        ("scheme: {input_activations: {strategy: channel}}", "expected strategy: tensor, not 'channel'"),
        ("scheme: {input_activations: {kwargs: {reduce_range: true}}}", "kwargs are for classes of torch.ao"),
        ("scheme: {output_activations: {num_bits: 4}}", "inputs and outputs have one number of bits"),
        ("scheme_overrides: {Embedding: {weights: {num_bits: 4}}}", "Embedding: weights of 4 bits beside 8 bits"),
        ("scheme_overrides: {bert.pooler: {input_activations: null}}", "bert.pooler has another scheme"),
        ("scheme_overrides: {classifier: {a: 1}}", "scheme_overrides: classifier: it has no a."),
        ("scheme_overrides: 5", "scheme_overrides: expected 'name: value' lines"),
        ("submodule_schemes: {a: {input_activations: null}}", "submodule_schemes: expected default"),
    ],
)
def test_schemes_that_cannot_be_had_name_their_modifier(fields, message):
    with pytest.raises(UserError, match=r"^recipe:2:\d+: !QuantizationModifier: ") as error:
        plan(f"modifiers:\n  - !QuantizationModifier {{{fields}}}\n")
    assert message in str(error.value)


# What YAML 1.1 makes of plain values


@pytest.mark.parametrize(
    ("written", "sparsity"), [("2:4", 0.5), ("1:4", 0.75), ("4:8", 0.5), ("2:8", 0.75), ("1:2", 0.5)]
)
def test_mask_types_without_quotes(written, sparsity):
    for text in (written, f"'{written}'", f"eval(mask)\nmask: {written}"):
        value, _, variable = text.partition("\n")
        fields = GRADUAL.replace("0.8", str(sparsity))
        [found] = plan(
            f"{variable}\nmodifiers:\n  - !GMPruningModifier {{{fields}, mask_type: {value}}}\n"
        ).modifiers.values()
        assert (found.mask_type, found.pattern.n, found.pattern.m) == (written, int(written[0]), int(written[2]))


def test_a_mask_type_that_another_program_has_made_a_number():
    with pytest.raises(UserError, match=r"mask_type: 124 is what YAML 1.1 reads in 2:4; write '2:4'"):
        plan(f"modifiers:\n  - !GMPruningModifier {{{GRADUAL}, mask_type: 124}}\n")


@pytest.mark.parametrize(
    ("value", "expected"), [("on", True), ("yes", True), ("off", False), ("no", False), ("1", True), ("'False'", False)]
)
def test_words_that_yaml_takes_for_booleans(value, expected):
    [found] = plan(f"modifiers:\n  - !TrainableParamsModifier {{params: [a], trainable: {value}}}\n").modifiers.values()
    assert found.trainable is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("1_000", 1000), ("1e3", 1000), ("1.0e3", 1000), ("'1000'", 1000), ("0x10", 16)]
)
def test_numbers_in_other_notations(value, expected):
    [found] = plan(f"modifiers:\n  - !OBSPruningModifier {{{GRADUAL}, num_grads: {value}}}\n").modifiers.values()
    assert found.num_grads == expected


# Numbers that are none

HUGE = ["1e308", "1.0e+400", ".inf", "-.inf", ".nan", "10001", "-2", "9" * 90, "eval(10 ** 10)", "'1e308'"]
TIMES = {
    "EpochRangeModifier": "start_epoch: 0, end_epoch: {}",
    "EpochRangeModifier ": "start_epoch: {}, end_epoch: -1",
    "LearningRateFunctionModifier": "lr_func: linear, init_lr: 0.1, final_lr: 0, start_epoch: 0, end_epoch: {}",
    "SetWeightDecayModifier": "weight_decay: 0, start_epoch: {}",
    "GMPruningModifier": GRADUAL.replace("0.5", "{}"),
    "DistillationModifier": "end_epoch: {}",
    "LayerPruningModifier": "layers: [a], end_epoch: {}",
    "QuantizationModifier": "start_epoch: {}",
    "QuantizationModifier ": "start_epoch: 0, disable_quantization_observer_epoch: {}",
}


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(("tag", "fields"), TIMES.items())
def test_times_that_are_none(tag, fields, value):
    with pytest.raises(UserError, match=rf"^recipe:2:\d+: !{tag.strip()}: \w+: expected an? (number|epoch)"):
        plan(f"modifiers:\n  - !{tag.strip()} {{{fields.format(value)}}}\n")


@pytest.mark.parametrize("value", [10**400, float("nan"), "1e999"])
def test_arguments_that_are_no_number(value):
    with pytest.raises(UserError, match="!EpochRangeModifier: end_epoch: expected a number up to"):
        parse_modifiers(
            read_recipe(
                "n: 1\nmodifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(n)}\n", {"n": value}
            )
        )
