"""Quantization-aware training and post-training quantization.

``attach`` replaces the classes of Linear and Embedding modules (``functional/quant_modules``), which simulate integer
arithmetic once ``mode.active`` is set (``functional/fake_quant``). ``detach`` freezes scales and zero points;
``functional/quant_file`` saves them beside the model, and ``deployment/integer_graph`` writes an integer ONNX file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import UserError
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import ACTS, HOLDS, Display, LoggedNumber, Span

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from sparse_xp.functional.fake_quant import MinMaxObserver
    from sparse_xp.functional.quant_attention import QuantAttention
    from sparse_xp.functional.quant_modules import QuantModule
    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class Quantization(Modifier):
    """Quantize the Linears and Embeddings of the model from ``start`` on (Jacob et al. 2018, arXiv:1712.05877).

    Weights are signed and symmetric. Activations are unsigned and asymmetric, with one scale and zero point per tensor.
    From the step at ``start`` on, training is in float32, whatever ``train.precision`` is, except on a GPU. Times are
    epochs, ``'N steps'`` or ``'N%'`` of the run.

    Attributes:
        observers_end: The time at which activation ranges and weight scales are frozen. None (the default): never.
        calibration_rows: Post-training quantization: after training, calibrate the activation ranges on this many
            training rows, spread over the training set. None (the default): quantization-aware training.
        submodules: Quantize only inside these modules, by name. None (the default): the whole model.
        exclude: Classes or names of modules that stay in floating point.
        quantize_embeddings: Quantize embedding tables as well, also those outside ``submodules``.
        linear_outputs: Also quantize the outputs of Linears, not only their inputs.
        embedding_outputs: Also quantize the outputs of Embeddings.
        weight_bits: The bits of a weight, from 2 to 8.
        activation_bits: The bits of an activation, from 2 to 8.
        per_channel: One weight scale per output row (the default) instead of one per matrix.
        attention_products: Quantize both products of attention too, queries times keys and probabilities times values:
            their factors have a range each. They are activations of 8 bits, so that the file computes the same on every
            CPU only in an exact session.
        dynamic: Compute activation ranges from each batch, instead of a moving average that is frozen later.
        reduce_range: Limit weights of matrix products to 7 bits, -63 to 63. CPUs without VNNI add two products in 16
            bits, which saturates with 8-bit weights and cannot with 7-bit weights. The file then computes the same on
            every CPU (``saturation``).
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
    attention_products: bool = False
    dynamic: bool = False
    reduce_range: bool = True

    display: ClassVar[Display] = Display(bar_style="blue", span_colour="tab:blue", module_fields=("submodules",))
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("quantized", 80, "int{:g}", hide_zero=True),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end != "100%":
            raise ValueError(f"Quantization.end={self.end}: a quantized model stays quantized. Leave end out.")
        if self.observers_end is not None:
            parse_time(self.observers_end, "Quantization.observers_end")
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"Quantization.{name}={getattr(self, name)}: expected 2 to 8 bits.")
        if self.calibration_rows is not None and self.calibration_rows < 1:
            raise ValueError(f"Quantization.calibration_rows={self.calibration_rows}: expected at least 1, or null.")
        if self.calibration_rows is not None and self.dynamic:
            raise ValueError("Quantization: dynamic ranges need no calibration_rows.")
        if self.calibration_rows is not None and (self.start != 0 or self.observers_end is not None):
            raise ValueError(
                "Quantization: with calibration_rows it acts after training only. Leave start and observers_end out."
            )
        if self.dynamic and self.activation_bits != 8:
            raise ValueError(
                f"Quantization.activation_bits={self.activation_bits}: ONNX computes dynamic ranges in 8 bits only."
            )
        self.mode = QuantMode()
        self.modules: dict[str, QuantModule] = {}
        self.attentions: dict[str, QuantAttention] = {}

    @property
    def exclusive_resource(self) -> str:
        return "quantization"

    @property
    def option(self) -> str:
        """The option of ``quantization=``: int8, int8_sparseml, int8_dynamic, ptq_int8, or int4 for fewer bits."""
        name = f"{'ptq_' * self.post_training}int{self.weight_bits}"
        return f"{name}_dynamic" if self.dynamic else name if self.per_channel else f"{name}_sparseml"

    @property
    def post_training(self) -> bool:
        return self.calibration_rows is not None

    @property
    def needs_batches(self) -> bool:
        return self.post_training

    @property
    def needs_training_mode(self) -> bool:
        return not self.post_training and not self.dynamic

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        if not self.post_training and clock.first_step(start) >= clock.total_steps:
            raise ValueError(f"Quantization: start={self.start} is after the last step: nothing would be quantized.")
        if self.observers_end is not None and clock.to_epochs(self.observers_end) < start:
            raise ValueError(f"Quantization.observers_end={self.observers_end} is before start={self.start}.")
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
        """Return ``off``, ``training``, or ``frozen`` (scales and zero points) for step number ``step``."""
        if self.post_training or step < clock.first_step(self.window(clock)[0]):
            return "off"
        frozen = self.observers_end is not None and step >= clock.first_step(clock.to_epochs(self.observers_end))
        return "frozen" if frozen else "training"

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.selection import select_modules

        select_modules(dict(model.named_modules()), self.submodules or [])
        if self.attention_products:
            from sparse_xp.functional.quant_attention import self_attentions

            self_attentions(model)

    def attach(self, context: HookContext) -> None:
        self.attach_to(context.model)

    def attach_to(self, model: PreTrainedModel) -> None:
        """Replace the classes of the model's modules; their numbers do not change yet."""
        from sparse_xp.functional.quant_attention import prepare_attention
        from sparse_xp.functional.quant_modules import prepare

        self.mode = QuantMode()
        config = QuantConfig(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            per_channel=self.per_channel,
            dynamic=self.dynamic,
            reduce_range=self.reduce_range,
        )
        self.modules = prepare(
            model,
            config,
            self.mode,
            submodules=self.submodules,
            exclude=self.exclude,
            embeddings=self.quantize_embeddings,
            linear_outputs=self.linear_outputs,
            embedding_outputs=self.embedding_outputs,
        )
        if not self.modules:
            within = f" in submodules={' '.join(self.submodules)}" if self.submodules else ""
            raise UserError(
                f"Quantization: {type(model).__name__} has no Linear and no Embedding{within} that is not quantized "
                "already. Convolutions and recurrent networks stay in floating point."
            )
        self.attentions = prepare_attention(model, config, self.mode) if self.attention_products else {}

    def before_step(self, context: HookContext) -> None:
        from sparse_xp.functional.quant_modules import freeze

        if self.post_training:
            return
        phase = self.phase(context.clock, context.step)
        self.mode.step += 1
        self.mode.active = phase != "off"
        if not self.mode.active:
            return
        if next(context.model.parameters()).device.type != "cuda":
            context.disable_autocast()  # only a GPU multiplies integers in half precision
        if phase == "frozen" and self.mode.observing:
            freeze(self.modules)

    def after_update(self, context: HookContext) -> None:
        """Average the observed ranges over processes: each has seen different rows, and all must save the same."""
        import torch

        self.mode.step += 1
        observed = self.mode.active and self.mode.observing and not self.dynamic
        if context.accelerator.num_processes > 1 and observed:
            observed_ranges = [
                (observer, torch.stack([observer.low, observer.high]))
                for observer in self.observers().values()
                if observer.low is not None and observer.high is not None
            ]
            if observed_ranges:
                # One reduction for all observers instead of one for each.
                means = context.accelerator.reduce(torch.stack([bounds for _, bounds in observed_ranges]), "mean")
                for (observer, _), (low, high) in zip(observed_ranges, means, strict=True):
                    observer.low, observer.high = low, high

    def detach(self, context: HookContext) -> None:
        from sparse_xp.functional.quant_modules import freeze

        if self.calibration_rows is not None:
            self.calibrate(context.model, context.calibration_batches(self.calibration_rows))
        freeze(self.modules)

    def calibrate(self, model: PreTrainedModel, batches: Iterable[Any]) -> None:
        """Observe the activation ranges of ``batches`` of training rows, and quantize from now on."""
        import torch

        from sparse_xp.functional.model_calls import call_model

        model.eval()
        self.mode.active = self.mode.calibrating = True
        with torch.no_grad():
            for batch in batches:
                call_model(model, batch)
        self.mode.calibrating = False

    def quantize_trained(self, model: PreTrainedModel, batches: Iterable[Any]) -> None:
        """Quantize a trained model without training it. ``batches``: calibrate the ranges, unless they are dynamic."""
        from sparse_xp.functional.quant_modules import freeze

        self.attach_to(model)
        self.calibrate(model, batches)
        freeze(self.modules)

    def target_reached(self, context: HookContext) -> bool:
        return self.post_training or self.mode.active

    def is_pending(self, context: HookContext) -> bool:
        return not self.mode.active

    def logs(self, context: HookContext) -> dict[str, float]:
        return {"quantized": float(self.weight_bits * self.mode.active)}

    def observers(self) -> dict[str, MinMaxObserver]:
        """Return each observer once, under the name of the first module that uses it.

        Modules with the same input share an observer.
        """
        from sparse_xp.functional.quant_modules import observers_of

        found = observers_of(self.modules)
        for name, module in self.attentions.items():
            found |= {f"{name}.{factor}": observer for factor, observer in module.observers.items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        ranges: dict[str, Tensor] = {}
        for name, observer in self.observers().items():
            if observer.low is not None and observer.high is not None:
                ranges |= {f"{name}.low": observer.low, f"{name}.high": observer.high}
        scales = {name: module.quant.scale for name, module in self.modules.items() if module.quant.scale is not None}
        counts = {name: observer.batches for name, observer in self.observers().items()}
        settings = {"active": self.mode.active, "observing": self.mode.observing}
        return {"ranges": ranges, "counts": counts, "scales": scales, "settings": settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, observer in self.observers().items():
            observer.low, observer.high = (state["ranges"].get(f"{name}.{bound}") for bound in ("low", "high"))
            observer.count, observer.compiled = state["counts"][name], None
        for name, module in self.modules.items():
            module.quant.scale = state["scales"].get(name)
        for name, value in state["settings"].items():
            setattr(self.mode, name, value)
