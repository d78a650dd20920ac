"""Quantization-aware training: from some time on the model computes as an integer engine will (``fake_quant``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, When, parse_when
from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.functional.fake_quant import QuantEmbedding, QuantLinear
    from sparse_xp.training.state import Run


@dataclass(kw_only=True)
class Quantization(Modifier):
    """Weights and activations of Linears, and tables of Embeddings, as integers from ``start`` on (Jacob et al. 2018).

    ``observers_end``: when the ranges of activations and the scales of weights are frozen; None: never.
    ``calibration_rows``: nothing is trained in integers: after training, so many training rows settle the ranges.
    ``submodules``: names of modules to stay within, None for the whole model; ``exclude``: classes or names of modules
    that stay in floating point. ``embeddings``: their tables too, wherever they are.
    ``linear_outputs``, ``embedding_outputs``: what comes out is rounded again, not only what goes in.
    Weights are signed and symmetric in ``weight_bits``, with a scale for each output row (``per_channel``) or one;
    activations unsigned and asymmetric in ``activation_bits``, with one range from a moving average over batches, or
    (``dynamic``) that of the batch itself. The step at ``start`` and all after it are float32, whatever
    ``train.precision`` says.

    ``reduce_range``: matrices that are multiplied use at most 7 bits, -63 to 63. CPUs without VNNI add two products in
    16 bits, which 8-bit weights overflow and these cannot: such a file computes the same in every session on every CPU
    (``saturation``).
    """

    observers_end: When = None
    calibration_rows: int | None = None
    submodules: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    embeddings: bool = True
    linear_outputs: bool = False
    embedding_outputs: bool = False
    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    dynamic: bool = False
    reduce_range: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end != "100%":
            raise ValueError(f"Quantization.end={self.end}: a model stays quantized once it is. Leave end out.")
        if self.observers_end is not None:
            parse_when(self.observers_end, "Quantization.observers_end")
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
        self.modules: dict[str, QuantLinear | QuantEmbedding] = {}

    @property
    def occupies(self) -> str:
        return "quantization"

    @property
    def option(self) -> str:
        """What ``quantization=`` calls this: int8, int8_sparseml, int8_dynamic, ptq_int8; int4 for fewer bits."""
        name = f"{'ptq_' * self.late}int{self.weight_bits}"
        return f"{name}_dynamic" if self.dynamic else name if self.per_channel else f"{name}_sparseml"

    @property
    def late(self) -> bool:
        return self.calibration_rows is not None

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        if not self.late and clock.first_step(start) >= clock.total_steps:
            raise ValueError(f"Quantization: start={self.start} lies behind the last step: nothing would be quantized.")
        if self.observers_end is not None and clock.at(self.observers_end) < start:
            raise ValueError(f"Quantization.observers_end={self.observers_end} lies before start={self.start}.")
        return start, end

    def phase(self, clock: Clock, step: int) -> str:
        """``off``, ``training``, or ``frozen`` (scales and zero points) in step number ``step``."""
        if self.late or step < clock.first_step(self.window(clock)[0]):
            return "off"
        over = self.observers_end is not None and step >= clock.first_step(clock.at(self.observers_end))
        return "frozen" if over else "training"

    def attach(self, run: Run) -> None:
        from sparse_xp.functional.fake_quant import Settings, prepare

        self.settings = Settings(
            self.weight_bits, self.activation_bits, self.per_channel, self.dynamic, self.reduce_range
        )
        self.modules = prepare(
            run.model,
            self.settings,
            self.submodules,
            self.exclude,
            self.embeddings,
            self.linear_outputs,
            self.embedding_outputs,
        )

    def before_step(self, run: Run) -> None:
        from sparse_xp.functional.fake_quant import freeze

        if self.late:
            return
        phase = self.phase(run.clock, run.progress.step)
        self.settings.active = phase != "off"
        if not self.settings.active:
            return
        assert run.shell is not None
        run.shell.autocast = False  # a difference of one integer step would be lost in the rounding of half precision
        if phase == "frozen" and self.settings.observing:
            freeze(self.modules)

    def after_update(self, run: Run) -> None:
        """With several processes each has seen other rows: all go on with the mean of their ranges, and save that."""
        import torch

        observed = self.settings.active and self.settings.observing and not self.dynamic
        if run.accelerator.num_processes > 1 and observed:
            known = [seen for seen in self.ranges().values() if seen.low is not None]
            if known:
                both = torch.stack([torch.stack([seen.low, seen.high]) for seen in known])
                for seen, (low, high) in zip(known, run.accelerator.reduce(both, "mean"), strict=True):
                    seen.low, seen.high = low, high

    def detach(self, run: Run) -> None:
        from sparse_xp.functional.fake_quant import freeze

        if self.late:
            self.calibrate(run)
        freeze(self.modules)

    def calibrate(self, run: Run) -> None:
        """Let rows from all over the training set settle the ranges, and compute in integers from now on."""
        import torch

        from sparse_xp.data.batches import collate, evaluation_batches
        from sparse_xp.evaluation import to_device

        total = len(run.train_features)
        count = min(self.calibration_rows or total, total)
        rows = [i * total // count for i in range(count)]
        features = run.train_features.select(rows)
        run.model.eval()
        self.settings.active = self.settings.calibrating = True
        with torch.no_grad():
            for batch in evaluation_batches(features, run.eval_batch_size):
                run.model(**to_device(run, collate(features, batch, run.inputs, run.padding)))
        self.settings.calibrating = False

    def reached(self, run: Run) -> bool:
        return self.late or self.settings.active

    def logs(self, run: Run) -> dict[str, float]:
        return {"quantized": float(self.weight_bits * self.settings.active)}

    def ranges(self) -> dict[str, Any]:
        """Each range once, under the name of the first module that it belongs to."""
        from sparse_xp.functional.fake_quant import ranges_of

        return ranges_of(self.modules)

    def state_dict(self) -> dict[str, Any]:
        found: dict[str, Tensor] = {}
        for name, seen in self.ranges().items():
            if seen.low is not None and seen.high is not None:
                found |= {f"{name}.low": seen.low, f"{name}.high": seen.high}
        scales = {name: module.quant.scale for name, module in self.modules.items() if module.quant.scale is not None}
        counts = {name: seen.count for name, seen in self.ranges().items()}
        settings = {"active": self.settings.active, "observing": self.settings.observing}
        return {"ranges": found, "counts": counts, "scales": scales, "settings": settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, seen in self.ranges().items():
            seen.low, seen.high = (state["ranges"].get(f"{name}.{which}") for which in ("low", "high"))
            seen.count = state["counts"][name]
        for name, module in self.modules.items():
            module.quant.scale = state["scales"].get(name)
        for name, value in state["settings"].items():
            setattr(self.settings, name, value)
