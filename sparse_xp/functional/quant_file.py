"""``quantization.json``: scales and ranges from which a saved floating-point model is quantized again.

The file is an object of ``settings`` (fields of ``QuantConfig``) and ``modules``: by name the ``kind`` (linear or
embedding), the ``scale`` (a number, or one for each output row), and ``inputs`` and ``outputs``: [low, high] of an
observed activation, [] where the range is dynamic or was never observed. A module of kind attention has such a range
for each factor of its products.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError, shortened
from sparse_xp.files.json_text import to_json
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_json_object
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.writing import write_text
from sparse_xp.functional.fake_quant import MinMaxObserver
from sparse_xp.functional.quant_attention import (
    FACTORS,
    QuantAttention,
    install_attention,
    quantized_attentions,
    self_attentions,
)
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import (
    QuantLinear,
    QuantModule,
    QuantState,
    quantized_modules,
    to_quant_embedding,
    to_quant_linear,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

QUANTIZATION_FILE = "quantization.json"


def save_quantization(model: nn.Module, directory: Path) -> None:
    """Write ``quantization.json`` of ``model`` into ``directory``; nothing for a model that is not quantized."""
    modules = dict(quantized_modules(model))
    if not modules:
        return
    config = next(iter(modules.values())).quant.config
    described = {name: describe_module(module) for name, module in modules.items()}
    described |= {name: describe_attention(module) for name, module in quantized_attentions(model)}
    stored = {"settings": dataclasses.asdict(config), "modules": described}
    write_text(directory / QUANTIZATION_FILE, to_json(stored))


def describe_module(module: QuantModule) -> dict[str, object]:
    """Return the entry of one module."""
    return {
        "kind": "linear" if isinstance(module, QuantLinear) else "embedding",
        "scale": module.quant.scale_of(module.weight).tolist(),
        **{side: describe_range(observer) for side, observer in module.quant.observers.items()},
    }


def describe_attention(module: QuantAttention) -> dict[str, object]:
    """Return the entry of the products of one attention."""
    return {"kind": "attention", **{factor: describe_range(each) for factor, each in module.observers.items()}}


def describe_range(observer: MinMaxObserver) -> list[float]:
    """Return the ends of an observed range, none if nothing was observed."""
    return [] if observer.low is None or observer.high is None else [observer.low.item(), observer.high.item()]


def load_quantization(model: PreTrainedModel, directory: Path) -> bool:
    """Quantize ``model``, loaded from ``directory``, as its ``quantization.json`` says. Return False if it has none.

    Raises UserError for the file of another model or with impossible values; ``model`` is unchanged then.
    """
    path = directory / QUANTIZATION_FILE
    if not os.path.lexists(path):
        return False
    stored = read_json_object(path)
    modules = dict(model.named_modules())
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        states, attentions = parse_modules(stored, model, path)
    # All entries are valid: only now the model changes.
    if attentions:
        install_attention(model, attentions)
    for name, state in states.items():
        module = modules[name]
        if isinstance(module, nn.Linear):
            to_quant_linear(module, state)
        elif isinstance(module, nn.Embedding):
            to_quant_embedding(module, state)
    return True


def parse_modules(
    stored: dict[str, Any], model: PreTrainedModel, path: Path
) -> tuple[dict[str, QuantState], dict[str, QuantAttention]]:
    """Return the state of each module that the file names, and what rounds the factors of each attention.

    Raises ValueError or UserError for impossible entries.
    """
    modules = dict(model.named_modules())
    config, mode = parse_config(stored["settings"]), QuantMode(active=True, observing=False)
    if not isinstance(stored["modules"], dict) or not stored["modules"]:
        raise ValueError("it has no object 'modules', or an empty one")
    kinds: dict[str, type[nn.Module]] = {"linear": nn.Linear, "embedding": nn.Embedding}
    states, attentions = {}, {}
    known = self_attentions(model) if has_attention(stored["modules"]) else []
    for name, entry in stored["modules"].items():
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if kind == "attention" and name in known:
            attentions[name] = parse_attention(entry, config, mode, name)
            continue
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"{shortened(name, 100)} has no kind: expected linear or embedding")
        module = modules.get(name)
        if not isinstance(module, kinds[kind]):
            raise UserError(
                f"{path} is of another model: this one has no {kind} {shortened(name, 100)}. {CHECKPOINT_ADVICE}"
            )
        try:
            states[name] = parse_state(entry, module, config, mode)
        except ValueError as error:
            raise ValueError(f"{shortened(name, 100)}: {error}") from error
    if attentions and len(attentions) < len(known):
        raise ValueError(f"it has {len(attentions)} of {len(known)} entries of kind attention")
    return states, attentions


def has_attention(entries: dict[str, object]) -> bool:
    """Return whether a file has entries of kind attention."""
    return any(isinstance(entry, dict) and entry.get("kind") == "attention" for entry in entries.values())


def parse_attention(entry: dict[str, object], config: QuantConfig, mode: QuantMode, name: str) -> QuantAttention:
    """Return what rounds the factors of the attention ``name``. Raises ValueError for impossible values."""
    if set(entry) != {"kind", *FACTORS}:
        raise ValueError(f"{shortened(name, 100)} is not an object of kind, {', '.join(FACTORS)}")
    try:
        observers = {factor: parse_observer(entry, factor) for factor in FACTORS}
    except ValueError as error:
        raise ValueError(f"{shortened(name, 100)}: {error}") from error
    return QuantAttention(config, mode, {factor: each for factor, each in observers.items() if each is not None})


def parse_config(stored: object) -> QuantConfig:
    """Return the configuration that all modules of a file share. Raises ValueError for impossible values."""
    bits, flags = ("weight_bits", "activation_bits"), ("per_channel", "dynamic", "reduce_range")
    if not isinstance(stored, dict) or set(stored) != {*bits, *flags}:
        raise ValueError(f"its settings are not an object of {', '.join((*bits, *flags))}")
    for name in bits:
        if type(stored[name]) is not int or not 2 <= stored[name] <= 8:
            raise ValueError(f"{name} is {shortened(repr(stored[name]), 100)}, expected 2 to 8")
    for name in flags:
        if type(stored[name]) is not bool:
            raise ValueError(f"{name} is {shortened(repr(stored[name]), 100)}, expected true or false")
    return QuantConfig(**stored)


def parse_state(entry: dict[str, object], module: nn.Module, config: QuantConfig, mode: QuantMode) -> QuantState:
    """Return the state of ``module`` (a Linear or an Embedding). Raises ValueError for impossible values."""
    is_linear = isinstance(module, nn.Linear)
    if unknown := set(entry) - {"kind", "scale", "outputs", *(["inputs"] if is_linear else [])}:
        raise ValueError(f"unknown key {shortened(repr(min(unknown)), 100)}")
    if "scale" not in entry or (is_linear and "inputs" not in entry):
        raise ValueError("it has no scale, or no inputs")
    scale = parse_numbers(entry["scale"])
    state = (QuantState.of_linear if is_linear else QuantState.of_embedding)(config, mode, scale)
    weight = module.weight
    assert isinstance(weight, Tensor)
    if list(scale.shape) != ([len(weight)] if state.per_channel else []) or not bool((scale > 0).all()):
        expected = f"a list of {len(weight)} numbers" if state.per_channel else "a number"
        raise ValueError(f"its scale is not {expected} above 0")
    state.input_observer = parse_observer(entry, "inputs")
    state.output_observer = parse_observer(entry, "outputs")
    return state


def parse_observer(entry: dict[str, object], side: str) -> MinMaxObserver | None:
    """Return the range of ``entry[side]``; None where the activation is not quantized."""
    if side not in entry:
        return None
    if entry[side] == []:  # dynamic, or never observed
        return MinMaxObserver()
    ends = parse_numbers(entry[side])
    if list(ends.shape) != [2] or bool(ends[0] > ends[1]):
        raise ValueError(f"its {side} are not two numbers, the lower one first")
    return MinMaxObserver(ends[0], ends[1])


def parse_numbers(stored: object) -> Tensor:
    """Return a number or a list of numbers as float32. Raises ValueError for anything else or not finite."""
    values: list[Any] = stored if isinstance(stored, list) else [stored]
    if not all(type(value) in (int, float) and abs(value) <= torch.finfo(torch.float32).max for value in values):
        raise ValueError("expected finite numbers")
    return torch.tensor(stored, dtype=torch.float32)
