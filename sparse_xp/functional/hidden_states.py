"""Hidden states of a model: recorded by forward hooks, and compared with those of a teacher.

``modifiers/per_layer_distillation`` decides when.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparse_xp.functional.chunked_loss import LazyLogits

#: what a module of a transformers model returns: for some (attention) the first of several outputs counts
ModuleOutput = Tensor | LazyLogits | tuple[Tensor | LazyLogits, ...]


def layer_loss(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    normalize: bool = True,
    epsilon: float = 1e-6,
    mean_square: Tensor | None = None,
) -> Tensor:
    """Return mean((student - teacher)^2), divided by mean(teacher^2) + ``epsilon`` if ``normalize``.

    ``student``, ``teacher``: hidden states [..., width]. ``mask`` [rows, tokens] bool: True for tokens that are not
    padding. For hidden states [rows, tokens, width] both means are over these tokens. ``mean_square``: the mean of
    ``teacher^2`` over a larger batch that this one is a part of. Computed in float32.
    """
    student, teacher = without_padding(student.float(), mask), without_padding(teacher.float(), mask)
    distance = (student - teacher).square().mean()
    if not normalize:
        return distance
    return distance / ((teacher.square().mean() if mean_square is None else mean_square) + epsilon)


def without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the values of the tokens in ``mask`` [rows, tokens]; all values if they have no such dimensions."""
    return values[mask] if mask is not None and is_per_token(values, mask) else values


def is_per_token(values: Tensor, mask: Tensor) -> bool:
    """Return whether the values are [rows, tokens, width] for a ``mask`` [rows, tokens]."""
    return values.dim() == 3 and values.shape[:2] == mask.shape


def first_output(output: ModuleOutput) -> Tensor:
    """Return the output of a module, or the first one if it has several. Lazy logits are computed."""
    first = output[0] if isinstance(output, tuple) else output
    return first.materialize() if isinstance(first, LazyLogits) else first


def record_outputs(
    modules: dict[str, nn.Module], outputs: dict[str, Tensor], condition: Callable[[nn.Module], bool]
) -> list[RemovableHandle]:
    """Register hooks that write the output of each module into ``outputs`` by name; return their handles.

    ``condition``: a module is recorded only in forward passes for which this returns True.
    """

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], ModuleOutput], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: ModuleOutput) -> None:
            if condition(module):
                outputs[name] = first_output(output)

        return hook

    return [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
