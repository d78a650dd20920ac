"""Parameter groups of the optimizer, and its moments when parameters change shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from sparse_xp.modifiers.context import Cuts


def parameter_groups(model: nn.Module, others: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Return the parameter groups of AdamW: the one that weight decay applies to, and the one that it spares.

    Matrices decay; biases and LayerNorms do not (Devlin et al. 2019). ``others``: matrices that train beside the model
    (``Modifier.parameters``); they decay and form a third group. ``WeightDecay`` sets the decay itself.
    """
    decaying = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    not_decaying = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": 0.0},
        {"params": not_decaying, "weight_decay": 0.0},
    ]
    return [*groups, {"params": list(others), "weight_decay": 0.0}] if others else groups


def cut_moments(optimizer: Any, model: nn.Module, cuts: Cuts) -> None:
    """Cut what ``optimizer`` keeps about the parameters in ``cuts`` as they are cut, before they are.

    ``optimizer``: one of PyTorch, or Accelerate's around it. Of a parameter that is removed it forgets everything.
    """
    for name, parameter in model.named_parameters():
        if name not in cuts or parameter not in optimizer.state:
            continue
        cut = cuts[name]
        if cut is None:
            del optimizer.state[parameter]
            continue
        kept = optimizer.state[parameter]
        kept |= {key: cut(value) for key, value in kept.items() if getattr(value, "shape", None) == parameter.shape}
