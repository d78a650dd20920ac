"""Linears and Embeddings that compute with fake-quantized values.

``prepare`` changes the class of a model's modules in place: ``nn.Linear`` becomes ``QuantLinear``. Parameters and their
names stay, so checkpoints of the model load as before. Life of a quantized model:

- ``prepare`` at the start of a run; the modules stay in floating point until ``QuantMode.active``,
- training or calibration fills the observers,
- ``freeze`` fixes scales and ranges,
- ``quant_file`` writes them beside the model, and ``deployment/integer_graph`` makes int8 matrices of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from sparse_xp.functional.architectures import is_matrix, same_input
from sparse_xp.functional.fake_quant import (
    MinMaxObserver,
    activation_scale,
    fake_quantize_activation,
    fake_quantize_weight,
    rounded_weight,
    straight_through,
    weight_scale,
)
from sparse_xp.functional.integer_product import IntegerWeight, half_precision, integer_linear, integer_weight
from sparse_xp.functional.model_calls import full_precision
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.selection import select_modules

R = TypeVar("R")


@dataclass
class QuantState:
    """The quantization of one module.

    ``config`` and ``mode`` are shared by the model. ``bits`` and ``per_channel`` are those of this module's weight.
    An observer is None where the activation stays in floating point. ``scale``: that of the weight once it is frozen.
    ``updates_inputs``: modules that read the same activation share an observer, and only one of them updates it.
    ``rounded``: the weight of this training step, rounded (``once_a_step``).
    """

    config: QuantConfig
    mode: QuantMode
    bits: int
    per_channel: bool = False
    input_observer: MinMaxObserver | None = None
    output_observer: MinMaxObserver | None = None
    scale: Tensor | None = None
    updates_inputs: bool = True
    rounded: tuple[object, Any] = field(default=((), None), compare=False, repr=False)

    @classmethod
    def of_linear(cls, config: QuantConfig, mode: QuantMode, scale: Tensor | None = None) -> QuantState:
        """Return the state of a Linear, without observers."""
        return cls(config, mode, config.matrix_bits, config.per_channel, scale=scale)

    @classmethod
    def of_embedding(cls, config: QuantConfig, mode: QuantMode, scale: Tensor | None = None) -> QuantState:
        """Return the state of an Embedding, without observers: one scale for the whole table."""
        return cls(config, mode, config.weight_bits, scale=scale)

    @property
    def observers(self) -> dict[str, MinMaxObserver]:
        """The observers that are there, as ``inputs`` and ``outputs``: these are keys of checkpoints and files."""
        pairs = (("inputs", self.input_observer), ("outputs", self.output_observer))
        return {name: observer for name, observer in pairs if observer is not None}

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy gets: all but the rounded weight."""
        return {**self.__dict__, "rounded": ((), None)}

    def scale_of(self, weight: Tensor) -> Tensor:
        """Return the frozen scale of ``weight``, or the one that fits it now."""
        if self.scale is not None:
            return self.scale.to(weight.device)
        return weight_scale(weight, self.bits, self.per_channel)

    def once_a_step(self, weight: Tensor, dtype: torch.dtype | None, training: bool, compute: Callable[[], R]) -> R:
        """Return what ``compute`` makes of ``weight``, from memory in later micro-batches of a training step.

        ``dtype``: of the result, where there are several. What has been kept is used only as long as the weight is the
        same memory, in the same version, with the same scale. Memory that is written behind the back of the version, as
        by ``weight.data``, is written between steps. Evaluation keeps nothing: there, averages of weights come and go.
        """
        if torch.compiler.is_compiling() or not (training and self.mode.step):
            return compute()
        key = (self.mode.step, weight._version, weight.data_ptr(), weight.shape, id(self.scale), dtype)
        if self.rounded[0] != key:
            self.rounded = (key, compute())
        result: R = self.rounded[1]
        return result

    def round_weight(self, weight: Tensor, training: bool) -> Tensor:
        """Fake-quantize a matrix, as float32."""
        fitting = self.scale is None

        def compute() -> tuple[Tensor, Tensor | None]:
            return rounded_weight(weight, self.scale_of(weight), self.bits, fitting=fitting)

        return straight_through(weight, *self.once_a_step(weight, None, training, compute))

    def integers_of(self, weight: Tensor, dtype: torch.dtype, training: bool) -> IntegerWeight:
        """Return a matrix in integers, held in ``dtype``."""
        fitting = self.scale is None

        def compute() -> IntegerWeight:
            return integer_weight(weight, self.scale_of(weight), self.bits, dtype, fitting=fitting)

        return self.once_a_step(weight, dtype, training, compute)

    def round_rows(self, rows: Tensor, table: Tensor, training: bool) -> Tensor:
        """Fake-quantize rows of ``table`` with its scale."""
        scale = self.once_a_step(table, None, training, lambda: self.scale_of(table))
        return fake_quantize_weight(rows, scale, self.bits, fitting=self.scale is None)

    def input_grid(self, values: Tensor, training: bool) -> tuple[Tensor, Tensor] | None:
        """Return scale and zero point of what the module reads (see ``grid_of``), None if it stays as it is."""
        observer = self.input_observer
        return None if observer is None else self.grid_of(values, observer, training, self.updates_inputs)

    def round_outputs(self, values: Tensor, training: bool) -> Tensor:
        """Fake-quantize what the module returns."""
        return self.round_activation(values, self.output_observer, training)

    def round_activation(self, values: Tensor, observer: MinMaxObserver | None, training: bool) -> Tensor:
        """Fake-quantize ``values`` by the range of ``observer``, which a training batch updates first.

        Values stay as they are without an observer, or with one that has never seen a batch.
        """
        grid = None if observer is None else self.grid_of(values, observer, training)
        return values if grid is None else fake_quantize_activation(values, *grid, self.config.activation_bits)

    def grid_of(
        self, values: Tensor, observer: MinMaxObserver, training: bool, updates: bool = True
    ) -> tuple[Tensor, Tensor] | None:
        """Return the scale and zero point of ``values``; None if their observer, updated first, has never seen a batch.

        ``updates``: whether this caller may update an observer that has a range already.
        """
        bits = self.config.activation_bits
        if self.config.dynamic:
            return activation_scale(*torch.aminmax(values.detach()), bits)
        # Gradient checkpointing computes a layer again in the backward pass: what is there has been observed already.
        again = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
        collects = self.mode.calibrating or (training and self.mode.observing and not again)
        if collects and (updates or observer.low is None):
            observer.update(values)
        return observer.grid(values.device, bits)  # evaluation data must not calibrate


class QuantLinear(nn.Linear):
    """A Linear that fake-quantizes its input and its weight.

    It computes in float32, whatever autocast says, and with weights in half precision, whose type its outputs then
    have. On a GPU under autocast, the product is one of integers (``integer_product``), as exact as in float32. Only
    what leaves the module is in half precision there, as with any other Linear.
    """

    quant: QuantState

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        quant = self.quant
        if not quant.mode.active:
            return super().forward(input)
        half = half_precision(input.device)
        returned = half if half and torch.is_autocast_enabled(input.device.type) else self.weight.dtype
        with full_precision(input.device):
            bias = None if self.bias is None else self.bias.float()
            grid = quant.input_grid(input, self.training)
            if grid is None:
                outputs = linear(input.float(), quant.round_weight(self.weight, self.training), bias)
                return quant.round_outputs(outputs, self.training).to(returned)
            input = fake_quantize_activation(input, *grid, quant.config.activation_bits)
            if half is None:
                outputs = linear(input, quant.round_weight(self.weight, self.training), bias)
            else:
                rounded = quant.integers_of(self.weight, half, self.training)
                # What is rounded once more must not have been rounded to half precision before.
                out = torch.float32 if quant.output_observer else returned
                outputs = integer_linear(input, grid[0], self.weight, rounded, bias, out)
            return quant.round_outputs(outputs, self.training).to(returned)


class QuantEmbedding(nn.Embedding):
    """An Embedding that fake-quantizes its table, with one scale."""

    quant: QuantState

    def forward(self, input: Tensor) -> Tensor:
        """Map row indices [...] to rows of the table [..., width]."""
        if not self.quant.mode.active:
            return super().forward(input)
        rows = embedding(input, self.weight, self.padding_idx).float()
        rows = self.quant.round_rows(rows, self.weight, self.training)
        return self.quant.round_outputs(rows, self.training).to(self.weight.dtype)


QuantModule = QuantLinear | QuantEmbedding


def to_quant_linear(module: nn.Linear, state: QuantState) -> QuantLinear:
    """Make ``module`` a ``QuantLinear`` in place."""
    module.__class__ = QuantLinear
    assert isinstance(module, QuantLinear)
    module.quant = state
    return module


def to_quant_embedding(module: nn.Embedding, state: QuantState) -> QuantEmbedding:
    """Make ``module`` a ``QuantEmbedding`` in place."""
    module.__class__ = QuantEmbedding
    assert isinstance(module, QuantEmbedding)
    module.quant = state
    return module


def prepare(
    model: nn.Module,
    config: QuantConfig,
    mode: QuantMode,
    *,
    submodules: list[str] | None = None,
    exclude: list[str] | None = None,
    embeddings: bool = True,
    linear_outputs: bool = False,
    embedding_outputs: bool = False,
) -> dict[str, QuantModule]:
    """Make the Linears (within ``submodules``) and Embeddings of ``model`` quantizable in place; return them by name.

    ``submodules``: names, or ``re:`` and a regular expression; None for the whole model. ``exclude``: classes or names
    of modules that stay in floating point, with all that is inside of a named one. ``linear_outputs``,
    ``embedding_outputs``: outputs are rounded as well. Numbers change only once ``mode.active``. Raises UserError for
    submodules that do not exist.
    """
    modules = dict(model.named_modules())
    # An unknown name is an error: the head that it meant would silently stay in floating point.
    within = [""] if submodules is None else [f"{name}." for name in select_modules(modules, submodules)]
    only_self_attention = attends_to_itself(model)
    shared: dict[tuple[str, tuple[str, ...]], MinMaxObserver] = {}
    prepared: dict[str, QuantModule] = {}
    for name, module in modules.items():
        if any(type(module).__name__ == each or f"{name}.".startswith(f"{each}.") for each in exclude or ()):
            continue
        if (
            is_unquantized(module, nn.Linear, QuantLinear)
            and f"{name}.".startswith(tuple(within))
            and module.weight.numel()
        ):
            state = QuantState.of_linear(config, mode)
            # Query, key and value read one activation: one range, and one conversion in the engine.
            parent, _, child = name.rpartition(".")
            readers = (parent, same_input(child) if only_self_attention else (child,))
            state.updates_inputs = readers not in shared
            state.input_observer = shared.setdefault(readers, MinMaxObserver())
            state.output_observer = MinMaxObserver() if linear_outputs else None
            prepared[name] = to_quant_linear(module, state)
        elif (
            is_unquantized(module, nn.Embedding, QuantEmbedding)
            and embeddings
            and module.weight.numel()
            and not is_matrix(name)
        ):
            state = QuantState.of_embedding(config, mode)
            state.output_observer = MinMaxObserver() if embedding_outputs else None
            prepared[name] = to_quant_embedding(module, state)
    call_every_linear(model)
    return prepared


def is_unquantized(module: nn.Module, plain: type[nn.Module], quantizable: type[QuantModule]) -> TypeGuard[Any]:
    """Return whether a module is a ``plain`` one, or was made quantizable by a recipe that never quantized it."""
    return type(module) is plain or (isinstance(module, quantizable) and not module.quant.mode.active)


def attends_to_itself(model: nn.Module) -> bool:
    """Return whether queries, keys and values read the same activation everywhere: in encoders of transformers.

    In cross-attention they do not, and what the modules of others read is not known.
    """
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    crossing = ("is_encoder_decoder", "add_cross_attention")
    return bool(configs) and not any(getattr(config, key, False) for config in configs for key in crossing)


def call_every_linear(model: nn.Module) -> None:
    """Let the encoder layers of PyTorch call their Linears: in evaluation fused kernels would read their weights."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def observers_of(modules: dict[str, QuantModule]) -> dict[str, MinMaxObserver]:
    """Return each observer once, as ``<module>.inputs`` or ``<module>.outputs`` of the first module that has it."""
    found: dict[str, MinMaxObserver] = {}
    known: set[int] = set()
    for name, module in modules.items():
        for side, observer in module.quant.observers.items():
            if id(observer) not in known:
                known.add(id(observer))
                found[f"{name}.{side}"] = observer
    return found


def quantized_modules(model: nn.Module) -> Iterator[tuple[str, QuantModule]]:
    """Yield the modules of ``model`` whose quantization is active, by name."""
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear | QuantEmbedding) and module.quant.mode.active:
            yield name, module


def freeze(modules: dict[str, QuantModule]) -> None:
    """Freeze the scales of all ``modules`` of a model at those that fit their weights now, and the observed ranges."""
    for module in modules.values():
        module.quant.scale = module.quant.scale_of(module.weight)
    if modules:  # all share one mode
        next(iter(modules.values())).quant.mode.observing = False
