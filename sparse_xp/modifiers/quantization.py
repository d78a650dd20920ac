"""Quantization-aware training as a recipe says it: so far read and checked; a run says so and goes on in float."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, When, parse_when
from sparse_xp.console import say
from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from sparse_xp.loop import Run


@dataclass(kw_only=True)
class Quantization(Modifier):
    """Train as an integer engine will compute, from ``start`` to the end of the run.

    ``observers_end``: when scales and zero points are frozen. ``submodules``: names of modules, None for the whole
    model. ``embeddings``: the tables too. ``linear_outputs``, ``embedding_outputs``: activations behind Linear and
    Embedding, not only before. ``exclude``: class names (or, with schemes, module names) that stay in float.
    ``weight_bits``, ``activation_bits``: of signed symmetric weights and unsigned asymmetric activations.
    ``overrides``: other schemes for module types or names, as the later form of the old modifier has them.
    """

    observers_end: When = None
    submodules: list[str] | None = None
    embeddings: bool = True
    embedding_outputs: bool = True
    linear_outputs: bool = True
    exclude: list[str] = field(default_factory=list)
    weight_bits: int = 8
    activation_bits: int = 8
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end != "100%":
            raise ValueError(f"Quantization.end={self.end}: a model stays quantized once it is. Leave end out.")
        if self.observers_end is not None:
            parse_when(self.observers_end, "Quantization.observers_end")
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"Quantization.{name}={getattr(self, name)}: want 2 to 8 bits.")

    @property
    def occupies(self) -> str:
        return "quantization"

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        if self.observers_end is not None and clock.at(self.observers_end) < start:
            raise ValueError(f"Quantization.observers_end={self.observers_end} lies before start={self.start}.")
        return start, end

    def phase(self, clock: Clock, step: int) -> str:
        """``off``, ``training``, or ``frozen`` (scales and zero points) in step number ``step``."""
        now = clock.epoch(step)
        if now < self.window(clock)[0]:
            return "off"
        return "training" if self.observers_end is None or now < clock.at(self.observers_end) else "frozen"

    def attach(self, run: Run) -> None:
        say(
            f"quantization from epoch {self.window(run.clock)[0]:g}: read and checked, but this version does not train "
            "in integers yet; the run goes on in floating point, and its file is not quantized"
        )
