"""Encoders with fewer layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sparse_xp.clock import parse_when
from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from sparse_xp.training.state import Run


@dataclass(kw_only=True)
class LayerPruning(Modifier):
    """Train and deliver the model without the encoder layers that ``layers`` names.

    ``layers``: exact names (``bert.encoder.layer.1``) or ``re:<pattern>``; each must match. During the run the other
    layers keep their names, which patterns of pruning refer to; in the delivered model they are numbered anew.
    """

    layers: list[str] = field(default_factory=list)

    structural: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if parse_when(self.start)[0] != 0 or parse_when(self.end) != (100.0, "%"):
            raise ValueError(
                f"LayerPruning from start={self.start} to end={self.end}: layers can only be removed for the whole "
                "run. Leave start and end out (0 and '100%')."
            )
        if not self.layers:
            raise ValueError(
                "LayerPruning.layers is empty: name encoder layers, such as [bert.encoder.layer.1], or 're:<pattern>'."
            )

    @property
    def occupies(self) -> str:
        return "layers of the encoder"

    def attach(self, run: Run) -> None:
        from sparse_xp.functional.layers import bypass, encoder_layers, select_modules

        layers = encoder_layers(run.model)
        names = select_modules(layers, self.layers, "encoder layer")
        if len(names) == len(layers):
            raise UserError(
                f"LayerPruning.layers={self.layers} removes all {len(layers)} layers of the encoder. Name fewer."
            )
        bypass(run.model, names)

    def detach(self, run: Run) -> None:
        from sparse_xp.functional.layers import remove_bypassed

        remove_bypassed(run.model)
