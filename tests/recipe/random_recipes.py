"""Recipes at random, of every tag, with any of its fields."""

from __future__ import annotations

import json
import random
from typing import Any

from sparse_xp.recipe.tags import TAGS


def between(draw: random.Random, low: float, high: float) -> float:
    return round(draw.uniform(low, high), draw.choice([1, 3, 6]))


def names(draw: random.Random) -> list[str]:
    some = [
        "re:bert.encoder.layer.*.weight",
        "re:.*\\.query\\.weight$",
        "a.b",
        "re:x${2}",
        "re:y\\${z}",
        "'",
        "# no",
        "é",
    ]
    return draw.sample(some, draw.randint(1, 4))


def selection(draw: random.Random) -> Any:
    return draw.choice(["__ALL__", "__ALL_PRUNABLE__", names(draw)])


def some(draw: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    """Each optional field, or not."""
    return {name: value for name, value in fields.items() if draw.random() < 0.6}


def window(draw: random.Random) -> dict[str, Any]:
    start = draw.choice([0, 1, 2.5])
    return {"start_epoch": start, "end_epoch": start + draw.choice([0.5, 2, 7.25])}


def gradual(draw: random.Random) -> dict[str, Any]:
    final = draw.choice([0.5, 0.85, {"0.7": names(draw), "0.9": ["c.d"]}])
    several = isinstance(final, dict)
    return {
        **window(draw),
        "params": [] if several else selection(draw),
        "final_sparsity": final,
        "init_sparsity": draw.choice([0, 0.05, "__FROM_PARAM__"]),
        "update_frequency": draw.choice([-1, 0.01, 1]),
        **some(draw, {"leave_enabled": draw.choice([True, False]), "inter_func": draw.choice(["linear", "cubic"])}),
    }


def scheduler(draw: random.Random) -> dict[str, Any]:
    return draw.choice(
        [
            {"lr_class": "StepLR", "lr_kwargs": {"step_size": 1, "gamma": 0.5}},
            {"lr_class": "MultiStepLR", "lr_kwargs": {"milestones": [1, 2.5], "gamma": 0.1}},
            {"lr_class": "ExponentialLR", "lr_kwargs": {"gamma": 0.95}},
            {"lr_class": "CosineAnnealingWarmRestarts", "lr_kwargs": {"lr_min": 0, "cycle_epochs": 2}},
        ]
    )


def fields_of(tag: str, draw: random.Random) -> dict[str, Any]:
    """Valid fields for a tag."""
    both = {"start_epoch": draw.choice([-1, 0, 1]), "end_epoch": -1}
    shaped = some(draw, {"mask_type": draw.choice(["unstructured", "block4", [1, 4], [4, 1]])})
    together = some(draw, {"global_sparsity": draw.choice([True, False])})
    at = {"start_epoch": draw.choice([0.0, 1, 2.75])}
    shape = draw.choice(["linear", "cosine", "cyclic_linear"])
    cycle = {"cycle_epochs": 0.5} if shape == "cyclic_linear" else {}
    rate = between(draw, 1e-6, 1e-2) + 1e-9
    layers = {f"{who}_layer_names": names(draw) for who in ("student", "teacher")}
    legacy = {
        "submodules": names(draw),
        "weight_bits": 4,
        "quantize_embeddings": 0,
        "exclude_module_types": ["LayerNorm"],
    }
    scheme = {
        "ignore": names(draw),
        "scheme": "default",
        "scheme_overrides": {"Embedding": {"input_activations": None}},
    }
    return {
        "EpochRangeModifier": lambda: {"start_epoch": 0, "end_epoch": draw.randint(1, 30)},
        "LearningRateFunctionModifier": lambda: {
            **window(draw), "lr_func": shape, "init_lr": rate, "final_lr": 1e-8, **cycle,
        },
        "LearningRateModifier": lambda: {**scheduler(draw), "init_lr": rate, **some(draw, window(draw))},
        "SetLearningRateModifier": lambda: {"learning_rate": rate, **at},
        "SetWeightDecayModifier": lambda: {"weight_decay": between(draw, 0, 0.1), **at},
        "TrainableParamsModifier": lambda: {
            "params": selection(draw), "trainable": draw.choice([True, False]), **both,
            **some(draw, {"params_strict": False}),
        },
        "SetParamModifier": lambda: {"params": selection(draw), "val": between(draw, -1e5, 1e5), **at},
        "GMPruningModifier": lambda: {**gradual(draw), **shaped, **together},
        "MagnitudePruningModifier": lambda: {**gradual(draw), **shaped},
        "GlobalMagnitudePruningModifier": lambda: {**gradual(draw), **shaped},
        "ConstantPruningModifier": lambda: {"params": selection(draw), **both},
        "ACDCPruningModifier": lambda: {
            **window(draw), "params": selection(draw), "compression_sparsity": 0.9, "update_frequency": 0.5,
            **together, **shaped,
        },
        "MovementPruningModifier": lambda: {**gradual(draw), **shaped, **together},
        "OBSPruningModifier": lambda: {
            **gradual(draw), **together, **some(draw, {"grad_sampler_kwargs": {"batch_size": 8}}),
            **some(draw, {"num_grads": 64, "damp": 1e-8, "fisher_block_size": 48}),
        },
        "LayerPruningModifier": lambda: {"layers": names(draw)},
        "DistillationModifier": lambda: {
            **some(draw, {"hardness": between(draw, 0, 1), "temperature": 5, "distill_output_keys": ["start_logits"]}),
            **both,
        },
        "PerLayerDistillationModifier": lambda: {
            **some(draw, {"gain": 2.5, "normalize": False, "project_features": False, "epsilon": 1e-5, **layers}),
            **both,
        },
        "QuantizationModifier": lambda: {
            "start_epoch": 1, **some(draw, draw.choice([legacy, scheme])),
            **some(draw, {"disable_quantization_observer_epoch": 2}),
        },
        "SparsificationLoggingModifier": lambda: {"update_frequency": 1},
    }[tag]()  # fmt: skip


def random_recipe(draw: random.Random) -> str:
    """The text of a recipe: a few tags, each once or twice; JSON is YAML."""
    tags = draw.choices(list(TAGS), k=draw.randint(1, 6))
    entries = []
    for tag in ["EpochRangeModifier", *tags]:
        entries += [f"  - !{tag} {json.dumps(fields_of(tag, draw))}"]
    return "\n".join(["variable: 1", "some_modifiers:", *entries, ""])
