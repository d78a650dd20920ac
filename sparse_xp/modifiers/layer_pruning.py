"""Layer dropping: encoders with fewer layers.

Layers are bypassed while the run trains, and removed when it ends (``sparse_xp.functional.layers``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sparse_xp.clock import parse_time
from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class LayerPruning(Modifier):
    """Train and deliver the model without some of its encoder layers. It acts for the whole run.

    Attributes:
        layers: The layers to remove: exact names (``bert.encoder.layer.1``) or ``re:<pattern>``. An entry that matches
            nothing is an error. During the run the remaining layers keep their names, so that ``params`` of pruning
            modifiers still refer to them; in the delivered model they are renumbered.
    """

    layers: list[str] = field(default_factory=list)

    changes_structure: ClassVar[bool] = True
    display: ClassVar[Display] = Display(module_fields=("layers",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if parse_time(self.start)[0] != 0 or parse_time(self.end) != (100.0, "%"):
            raise ValueError(
                f"LayerPruning from start={self.start} to end={self.end}: layers can only be removed for the whole "
                "run. Leave start and end out (0 and '100%')."
            )
        if not self.layers:
            raise ValueError(
                "LayerPruning.layers is empty: name encoder layers, such as [bert.encoder.layer.1], or 're:<pattern>'."
            )
        #: names of the layers that are left out, once it is attached
        self.removed: list[str] = []

    @property
    def exclusive_resource(self) -> str:
        return "layers of the encoder"

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.layers import removable_architecture

        for name in self.select(model):
            removable_architecture(model, name)

    def select(self, model: PreTrainedModel) -> list[str]:
        """Return the names of the layers to remove. Raises UserError if none is left, or a pattern matches nothing."""
        from sparse_xp.functional.layers import encoder_layers
        from sparse_xp.functional.selection import select_modules

        layers = encoder_layers(model)
        if not layers:
            raise UserError(
                f"LayerPruning: {type(model).__name__} has no encoder layers that could be removed. Its weights "
                "can be pruned (MagnitudePruning)."
            )
        names = list(select_modules(layers, self.layers, "encoder layer"))
        if len(names) == len(layers):
            raise UserError(
                f"LayerPruning.layers={self.layers} removes all {len(layers)} layers of the encoder. Name fewer."
            )
        return names

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.layers import bypass_layers

        # Bypassed, not removed: removing renumbers the layers, and other modifiers attach after this one.
        self.removed = self.select(context.model)
        bypass_layers(context.model, self.removed)

    def detach(self, context: HookContext) -> None:
        from sparse_xp.functional.layers import remove_bypassed

        remove_bypassed(context.model)
