"""Quantization-aware training: from some time on the model computes as an integer engine will (``fake_quant``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import ACTS, HOLDS, Display, LoggedNumber, Span

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.functional.fake_quant import MinMaxObserver
    from sparse_xp.functional.quant_modules import QuantModule
    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class Quantization(Modifier):
    """Weights and activations of Linears, and tables of Embeddings, as integers from ``start`` on (Jacob et al. 2018).

    ``observers_end``: when the ranges of activations and the scales of weights are frozen; None: never.
    ``calibration_rows``: nothing is trained in integers: after training, so many training rows settle the ranges.
    ``submodules``: names of modules to stay within, None for the whole model; ``exclude``: classes or names of modules
    that stay in floating point. ``quantize_embeddings``: their tables too, wherever they are.
    ``linear_outputs``, ``embedding_outputs``: what comes out is rounded again, not only what goes in.
    Weights are signed and symmetric in ``weight_bits``, with a scale for each output row (``per_channel``) or one;
    activations unsigned and asymmetric in ``activation_bits``, with one range from a moving average over batches, or
    (``dynamic``) that of the batch itself. The step at ``start`` and all after it are float32, whatever
    ``train.precision`` says.

    ``reduce_range``: matrices that are multiplied use at most 7 bits, -63 to 63. CPUs without VNNI add two products in
    16 bits, which 8-bit weights overflow and these cannot: such a file computes the same in every session on every CPU
    (``saturation``).
    """

    observers_end: TimeSpec = None
    calibration_rows: int | None = None
    submodules: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    quantize_embeddings: bool = True
    linear_outputs: bool = False
    embedding_outputs: bool = False
    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    dynamic: bool = False
    reduce_range: bool = True

    display: ClassVar[Display] = Display(bar_style="blue", span_colour="tab:blue", module_fields=("submodules",))
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("quantized", 80, "int{:g}", hide_zero=True),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end != "100%":
            raise ValueError(f"Quantization.end={self.end}: a model stays quantized once it is. Leave end out.")
        if self.observers_end is not None:
            parse_time(self.observers_end, "Quantization.observers_end")
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"Quantization.{name}={getattr(self, name)}: want 2 to 8 bits.")
        if self.calibration_rows is not None and self.calibration_rows < 1:
            raise ValueError(f"Quantization.calibration_rows={self.calibration_rows}: want at least 1, or null.")
        if self.calibration_rows is not None and self.dynamic:
            raise ValueError("Quantization: dynamic ranges need no calibration_rows.")
        if self.calibration_rows is not None and (self.start != 0 or self.observers_end is not None):
            raise ValueError(
                "Quantization: with calibration_rows all happens after training; leave start and observers_end out."
            )
        if self.dynamic and self.activation_bits != 8:
            raise ValueError(
                f"Quantization.activation_bits={self.activation_bits}: ONNX finds dynamic ranges in 8 bits only."
            )
        self.mode = QuantMode()
        self.modules: dict[str, QuantModule] = {}

    @property
    def exclusive_resource(self) -> str:
        return "quantization"

    @property
    def option(self) -> str:
        """What ``quantization=`` calls this: int8, int8_sparseml, int8_dynamic, ptq_int8; int4 for fewer bits."""
        name = f"{'ptq_' * self.post_training}int{self.weight_bits}"
        return f"{name}_dynamic" if self.dynamic else name if self.per_channel else f"{name}_sparseml"

    @property
    def post_training(self) -> bool:
        return self.calibration_rows is not None

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        if not self.post_training and clock.first_step(start) >= clock.total_steps:
            raise ValueError(f"Quantization: start={self.start} is after the last step: nothing would be quantized.")
        if self.observers_end is not None and clock.to_epochs(self.observers_end) < start:
            raise ValueError(f"Quantization.observers_end={self.observers_end} lies before start={self.start}.")
        return start, end

    def spans(self, clock: Clock) -> list[Span]:
        if self.post_training:
            return []  # it acts after training
        start, end = self.window(clock)
        if self.observers_end is None:
            return [Span(start, end)]
        frozen = min(clock.end, clock.to_epochs(self.observers_end))
        return [Span(start, frozen, ACTS), Span(frozen, clock.end, HOLDS)]

    def phase(self, clock: Clock, step: int) -> str:
        """``off``, ``training``, or ``frozen`` (scales and zero points) in step number ``step``."""
        if self.post_training or step < clock.first_step(self.window(clock)[0]):
            return "off"
        over = self.observers_end is not None and step >= clock.first_step(clock.to_epochs(self.observers_end))
        return "frozen" if over else "training"

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.quant_modules import prepare

        self.mode = QuantMode()
        config = QuantConfig(self.weight_bits, self.activation_bits, self.per_channel, self.dynamic, self.reduce_range)
        self.modules = prepare(
            context.model,
            config,
            self.mode,
            self.submodules,
            self.exclude,
            self.quantize_embeddings,
            self.linear_outputs,
            self.embedding_outputs,
        )

    def before_step(self, context: HookContext) -> None:
        from sparse_xp.functional.quant_modules import freeze

        if self.post_training:
            return
        phase = self.phase(context.clock, context.step)
        self.mode.active = phase != "off"
        if not self.mode.active:
            return
        context.disable_autocast()  # a difference of one integer step would be lost in the rounding of half precision
        if phase == "frozen" and self.mode.observing:
            freeze(self.modules)

    def after_update(self, context: HookContext) -> None:
        """With several processes each has seen other rows: all go on with the mean of their ranges, and save that."""
        import torch

        observed = self.mode.active and self.mode.observing and not self.dynamic
        if context.accelerator.num_processes > 1 and observed:
            known = [
                (observer, torch.stack([observer.low, observer.high]))
                for observer in self.observers().values()
                if observer.low is not None and observer.high is not None
            ]
            if known:
                means = context.accelerator.reduce(torch.stack([ends for _, ends in known]), "mean")
                for (observer, _), (low, high) in zip(known, means, strict=True):
                    observer.low, observer.high = low, high

    def detach(self, context: HookContext) -> None:
        from sparse_xp.functional.quant_modules import freeze

        if self.post_training:
            self.calibrate(context)
        freeze(self.modules)

    def calibrate(self, context: HookContext) -> None:
        """Let rows from all over the training set settle the ranges, and compute in integers from now on."""
        import torch

        assert self.calibration_rows is not None
        context.model.eval()
        self.mode.active = self.mode.calibrating = True
        with torch.no_grad():
            for batch in context.calibration_batches(self.calibration_rows):
                context.model(**batch)
        self.mode.calibrating = False

    def target_reached(self, context: HookContext) -> bool:
        return self.post_training or self.mode.active

    def logs(self, context: HookContext) -> dict[str, float]:
        return {"quantized": float(self.weight_bits * self.mode.active)}

    def observers(self) -> dict[str, MinMaxObserver]:
        """Each range once, under the name of the first module that it belongs to."""
        from sparse_xp.functional.quant_modules import observers_of

        return observers_of(self.modules)

    def state_dict(self) -> dict[str, Any]:
        found: dict[str, Tensor] = {}
        for name, observer in self.observers().items():
            if observer.low is not None and observer.high is not None:
                found |= {f"{name}.low": observer.low, f"{name}.high": observer.high}
        scales = {name: module.quant.scale for name, module in self.modules.items() if module.quant.scale is not None}
        counts = {name: observer.count for name, observer in self.observers().items()}
        settings = {"active": self.mode.active, "observing": self.mode.observing}
        return {"ranges": found, "counts": counts, "scales": scales, "settings": settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, observer in self.observers().items():
            observer.low, observer.high = (state["ranges"].get(f"{name}.{which}") for which in ("low", "high"))
            observer.count = state["counts"][name]
        for name, module in self.modules.items():
            module.quant.scale = state["scales"].get(name)
        for name, value in state["settings"].items():
            setattr(self.mode, name, value)
