"""Computing as an integer engine will, in floating point: scales, rounding with a straight-through gradient, modules.

Weights are signed and symmetric (a zero stays exactly zero, so that masks survive), activations unsigned and
asymmetric, the form for which onnxruntime and OpenVINO have fast kernels. Jacob et al. 2018, arXiv:1712.05877.
A module keeps its class name, its parameters and their names: ``nn.Linear`` becomes ``QuantLinear`` in place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from sparse_xp.data.hub import AGAIN, read_object
from sparse_xp.errors import UserError, shortened
from sparse_xp.files import reading, write_text
from sparse_xp.functional.layers import select_modules

#: how much of a new batch goes into the range of an activation, as in SparseML's moving average; the first hundred
#: batches make a plain mean, lest the very first one rule for long
AVERAGING = 0.01


def weight_scale(weight: Tensor, bits: int = 8, per_channel: bool = True) -> Tensor:
    """What one integer step is worth, float32: [out] for each row of [out, in], or a scalar; never 0."""
    low, high = torch.aminmax(weight.detach(), dim=1) if per_channel else torch.aminmax(weight.detach())
    highest = torch.maximum(-low, high).float()  # no copy of the matrix: this happens at every step
    return (highest / (2 ** (bits - 1) - 1)).clamp_min(torch.finfo(torch.float32).tiny)


def fake_weight(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """``weight`` rounded to whole multiples of ``scale`` within -(2^(bits-1) - 1) and its opposite.

    The gradient is that of the identity inside the range and 0 outside of it.
    """
    limit = 2 ** (bits - 1) - 1
    if scale.ndim:
        zeros = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -limit, limit)
    zero = torch.zeros((), dtype=torch.int32, device=scale.device)
    return torch.fake_quantize_per_tensor_affine(weight, scale, zero, -limit, limit)


def integers(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """The integers that stand for ``weight``, int8, of its shape: ``fake_weight`` divided by ``scale``."""
    limit = 2 ** (bits - 1) - 1
    per_row = scale.reshape(-1, *[1] * (weight.ndim - 1))
    # Times the inverse, as fake_quantize computes it: a division would now and then round to the other side.
    return (weight.detach() * (1 / per_row)).round().clamp(-limit, limit).to(torch.int8)


def activation_scale(low: Tensor, high: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) for values from ``low`` to ``high``, a range that is made to hold 0."""
    low, high = low.float().clamp_max(0.0), high.float().clamp_min(0.0)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp_min(torch.finfo(torch.float32).tiny)
    return scale, (-low / scale).round().clamp(0, top).to(torch.int32)


def fake_activation(values: Tensor, scale: Tensor, zero_point: Tensor, bits: int = 8) -> Tensor:
    """``values`` rounded to what unsigned integers can say of them; the gradient as of ``fake_weight``."""
    return torch.fake_quantize_per_tensor_affine(values.float(), scale, zero_point, 0, 2**bits - 1)


@dataclass
class Range:
    """The lowest and highest value of an activation: a moving average over batches, so that one batch is no rule."""

    low: Tensor | None = None
    high: Tensor | None = None
    count: int = 0

    def update(self, values: Tensor) -> None:
        """Take a batch into account."""
        low, high = (each.float() for each in torch.aminmax(values.detach()))
        self.count += 1
        share = max(AVERAGING, 1 / self.count)
        self.low = low if self.low is None else self.low + share * (low - self.low)
        self.high = high if self.high is None else self.high + share * (high - self.high)


@dataclass
class Settings:
    """What the modules of one model share, and what changes while it trains.

    ``reduce_range``: matrices that are multiplied use at most 7 bits, -63 to 63; tables that are looked up keep theirs.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    dynamic: bool = False  # the range of an activation is that of its own batch, in training as in the engine
    reduce_range: bool = False
    active: bool = False
    observing: bool = True
    calibrating: bool = False  # ranges are settled by rows that are not trained on

    @property
    def matrix_bits(self) -> int:
        """Bits of a matrix that is multiplied."""
        return min(self.weight_bits, 7) if self.reduce_range else self.weight_bits

    def activation(self, values: Tensor, seen: Range, training: bool, leads: bool = True) -> Tensor:
        """``values`` as integers can say them; in training their range is taken into account first.

        Of several modules that read the same values one ``leads``: they are one batch, and all see one range.
        """
        if self.dynamic:
            scale, zero_point = activation_scale(*torch.aminmax(values.detach()), self.activation_bits)
            return fake_activation(values, scale, zero_point, self.activation_bits)
        if (leads or seen.low is None) and (self.calibrating or (training and self.observing)):
            seen.update(values)
        if seen.low is None or seen.high is None:  # no training row came this way; evaluation rows settle nothing
            return values
        # On its way to be exported a model moves to the CPU, and its ranges are no buffers that would move with it.
        low, high = seen.low.to(values.device), seen.high.to(values.device)
        return fake_activation(values, *activation_scale(low, high, self.activation_bits), self.activation_bits)


@dataclass
class Quant:
    """Of one module: its bits, its ranges, the scale of its weight once that is frozen, whether it leads a range."""

    settings: Settings
    bits: int
    inputs: Range | None = None
    outputs: Range | None = None
    scale: Tensor | None = None
    leads: bool = True

    def scale_of(self, weight: Tensor, per_channel: bool) -> Tensor:
        """The frozen scale of ``weight``, or the one that fits it now."""
        if self.scale is not None:
            return self.scale.to(weight.device)
        return weight_scale(weight, self.bits, per_channel)

    def freeze(self, weight: Tensor, per_channel: bool) -> None:
        """From now on the scale of ``weight`` is what it is now."""
        self.scale = self.scale_of(weight, per_channel)


class QuantLinear(nn.Linear):
    """A Linear that sees its input and its weight as integers say them."""

    quant: Quant

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        quant, settings = self.quant, self.quant.settings
        if not settings.active:
            return super().forward(input)
        if quant.inputs is not None:
            input = settings.activation(input, quant.inputs, self.training, quant.leads)
        weight = fake_weight(self.weight, quant.scale_of(self.weight, settings.per_channel), quant.bits)
        found = linear(input, weight, self.bias)
        return found if quant.outputs is None else settings.activation(found, quant.outputs, self.training)


class QuantEmbedding(nn.Embedding):
    """An Embedding whose table is integers with one scale."""

    quant: Quant

    def forward(self, input: Tensor) -> Tensor:
        """Numbers of rows in, rows of the table out."""
        quant, settings = self.quant, self.quant.settings
        if not settings.active:
            return super().forward(input)
        found = embedding(input, self.weight, self.padding_idx)
        found = fake_weight(found, quant.scale_of(self.weight, per_channel=False), quant.bits)
        return found if quant.outputs is None else settings.activation(found, quant.outputs, self.training)


#: names of the layers that read the same activation: one range, one conversion in the engine
SHARED = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))


def prepare(
    model: nn.Module,
    settings: Settings,
    submodules: list[str] | None = None,
    exclude: list[str] | None = None,
    embeddings: bool = True,
    linear_outputs: bool = False,
    embedding_outputs: bool = False,
) -> dict[str, QuantLinear | QuantEmbedding]:
    """Make the Linears (within ``submodules``) and Embeddings of ``model`` quantizable, in place; these by name.

    ``submodules``: names, or ``re:`` and a regular expression. ``exclude``: classes or names of modules that stay as
    they are. Nothing changes until ``settings.active``.
    Raises UserError for submodules that are not there.
    """
    # A name that is nowhere is an error: the head that it meant would stay in floating point without a word.
    modules = dict(model.named_modules())
    within = [""] if submodules is None else [f"{each}." for each in select_modules(modules, submodules)]
    shared: dict[tuple[str, tuple[str, ...]], Range] = {}
    prepared: dict[str, QuantLinear | QuantEmbedding] = {}
    for name, module in modules.items():
        inside = f"{name}.".startswith(tuple(within))
        if {type(module).__name__, name} & set(exclude or ()):
            continue
        if type(module) is nn.Linear and inside and module.weight.numel():
            parent, _, child = name.rpartition(".")
            together = next((names for names in SHARED if child in names), (child,))
            leads = (parent, together) not in shared
            inputs = shared.setdefault((parent, together), Range())
            module.__class__ = QuantLinear
            outputs = Range() if linear_outputs else None
            module.quant = cast(Any, Quant(settings, settings.matrix_bits, inputs, outputs, leads=leads))
        elif type(module) is nn.Embedding and embeddings and module.weight.numel():
            module.__class__ = QuantEmbedding
            module.quant = cast(
                Any, Quant(settings, settings.weight_bits, None, Range() if embedding_outputs else None)
            )
        else:
            continue
        prepared[name] = cast(Any, module)
    return prepared


def ranges_of(modules: dict[str, QuantLinear | QuantEmbedding]) -> dict[str, Range]:
    """Each range once, under the name of the first module that it belongs to."""
    found: dict[str, Range] = {}
    for name, module in modules.items():
        for which in ("inputs", "outputs"):
            seen = getattr(module.quant, which)
            if seen is not None and not any(seen is other for other in found.values()):
                found[f"{name}.{which}"] = seen
    return found


def quantized(model: nn.Module) -> Iterator[tuple[str, QuantLinear | QuantEmbedding]]:
    """The modules of ``model`` that compute as integers do now."""
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear | QuantEmbedding) and module.quant.settings.active:
            yield name, module


def freeze(modules: dict[str, QuantLinear | QuantEmbedding]) -> None:
    """Freeze ranges and scales of all."""
    for module in modules.values():
        per_channel = isinstance(module, QuantLinear) and module.quant.settings.per_channel
        module.quant.freeze(module.weight, per_channel)
        module.quant.settings.observing = False


FILE = "quantization.json"


def save_integers(model: nn.Module, directory: Path) -> None:
    """``quantization.json``: how the floating-point model beside it becomes one of integers. Nothing if it does not."""
    modules = dict(quantized(model))
    if not modules:
        return
    settings = next(iter(modules.values())).quant.settings
    known = {
        name: {
            "kind": "linear" if isinstance(module, QuantLinear) else "embedding",
            "scale": module.quant.scale_of(
                module.weight, isinstance(module, QuantLinear) and settings.per_channel
            ).tolist(),
            **{
                which: [] if seen.low is None or seen.high is None else [seen.low.item(), seen.high.item()]
                for which in ("inputs", "outputs")
                if (seen := getattr(module.quant, which)) is not None
            },
        }
        for name, module in modules.items()
    }
    names = ("weight_bits", "activation_bits", "per_channel", "dynamic", "reduce_range")
    shared = {name: getattr(settings, name) for name in names}
    write_text(directory / FILE, json.dumps({"settings": shared, "modules": known}))


def load_integers(model: nn.Module, directory: Path) -> bool:
    """Make ``model``, loaded from ``directory``, compute as its ``quantization.json`` says. False if it has none.

    Raises UserError for a file of another model or with values that cannot be; ``model`` is as it was, then.
    """
    path = directory / FILE
    if not os.path.lexists(path):
        return False
    stored = read_object(path)
    with reading(path, AGAIN):
        settings = stored_settings(stored["settings"])
        if not isinstance(stored["modules"], dict) or not stored["modules"]:
            raise ValueError("it has no object 'modules', or an empty one")
        there: dict[str, Any] = dict(model.named_modules())
        quants = {}
        for name, known in stored["modules"].items():
            kinds: dict[str, type[nn.Module]] = {"linear": nn.Linear, "embedding": nn.Embedding}
            which = known.get("kind") if isinstance(known, dict) else None
            if not isinstance(which, str) or which not in kinds:
                raise ValueError(f"{shortened(name, 100)} has no kind: want linear or embedding")
            module = there.get(name)
            if not isinstance(module, kinds[which]):
                raise UserError(f"{path} is of another model: this one has no {which} {shortened(name, 100)}. {AGAIN}")
            try:
                quants[name] = stored_quant(known, module, settings)
            except ValueError as error:
                raise ValueError(f"{shortened(name, 100)}: {error}") from error
    for name, quant in quants.items():
        module = there[name]
        module.__class__ = QuantLinear if isinstance(module, nn.Linear) else QuantEmbedding
        module.quant = quant
    return True


def stored_settings(known: Any) -> Settings:
    """What the modules of a file share. Raises ValueError for what cannot be."""
    bits, flags = ("weight_bits", "activation_bits"), ("per_channel", "dynamic", "reduce_range")
    if not isinstance(known, dict) or set(known) != {*bits, *flags}:
        raise ValueError(f"its settings are not an object of {', '.join((*bits, *flags))}")
    for name in bits:
        if type(known[name]) is not int or not 2 <= known[name] <= 8:
            raise ValueError(f"{name} is {shortened(repr(known[name]), 100)}, want 2 to 8")
    for name in flags:
        if type(known[name]) is not bool:
            raise ValueError(f"{name} is {shortened(repr(known[name]), 100)}, want true or false")
    return Settings(**known, active=True, observing=False)


def stored_quant(known: dict[str, Any], module: nn.Module, settings: Settings) -> Quant:
    """What a file says of ``module``. Raises ValueError for what cannot be."""
    whole = isinstance(module, nn.Linear)
    if unknown := set(known) - {"kind", "scale", "outputs", *(["inputs"] if whole else [])}:
        raise ValueError(f"there is no {shortened(repr(min(unknown)), 100)}")
    if "scale" not in known or (whole and "inputs" not in known):
        raise ValueError("it has no scale, or no inputs")
    rows = len(cast(Any, module).weight)
    wanted = [rows] if whole and settings.per_channel else []
    scale = numbers(known["scale"])
    if list(scale.shape) != wanted or not bool((scale > 0).all()):
        raise ValueError(f"its scale is not {f'a list of {rows} numbers' if wanted else 'a number'} above 0")
    quant = Quant(settings, settings.matrix_bits if whole else settings.weight_bits, scale=scale)
    for which in ("inputs", "outputs"):
        if which in known:
            setattr(quant, which, stored_range(known[which], which))
    return quant


def stored_range(known: Any, which: str) -> Range:
    """The range that a file has of an activation; of a dynamic one, or where no row came by, there is none."""
    if known == []:
        return Range()
    ends = numbers(known)
    if list(ends.shape) != [2] or bool(ends[0] > ends[1]):
        raise ValueError(f"its {which} are not two numbers, the lower one first")
    return Range(ends[0], ends[1])


def numbers(known: Any) -> Tensor:
    """A number or a list of numbers, float32. Raises ValueError for anything else, and for what is not finite."""
    values = known if isinstance(known, list) else [known]
    if not all(type(value) in (int, float) and abs(value) <= torch.finfo(torch.float32).max for value in values):
        raise ValueError("want finite numbers")
    return torch.tensor(known, dtype=torch.float32)
