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
    return values[mask] if is_per_token(values, mask) else values


def is_per_token(values: Tensor, mask: Tensor | None) -> bool:
    """Return whether the values are [rows, tokens, width] for a ``mask`` [rows, tokens]; None: there are no tokens."""
    return mask is not None and values.dim() == 3 and values.shape[:2] == mask.shape


def first_output(output: ModuleOutput) -> Tensor:
    """Return the output of a module, or the first one if it has several. Lazy logits are computed."""
    first = output[0] if isinstance(output, tuple) else output
    return first.materialize() if isinstance(first, LazyLogits) else first


class OutputRecorder:
    """A forward hook that writes the output of a module into ``outputs`` under a name, if ``condition`` holds.

    Its copy, in a copy of the model, records nothing.
    """

    def __init__(
        self,
        name: str = "",
        outputs: dict[str, Tensor] | None = None,
        condition: Callable[[nn.Module], bool] = lambda module: False,
    ):
        self.name, self.outputs, self.condition = name, {} if outputs is None else outputs, condition

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: ModuleOutput) -> None:
        """Record ``output`` of ``module``."""
        if self.condition(module):
            self.outputs[self.name] = first_output(output)

    def __deepcopy__(self, memo: object) -> OutputRecorder:
        return OutputRecorder()

    def __reduce__(self) -> tuple[type[OutputRecorder], tuple[()]]:
        return OutputRecorder, ()


def record_outputs(
    modules: dict[str, nn.Module], outputs: dict[str, Tensor], condition: Callable[[nn.Module], bool]
) -> list[RemovableHandle]:
    """Register hooks that write the output of each module into ``outputs`` by name; return their handles.

    ``condition``: a module is recorded only in forward passes for which this returns True.
    """
    return [module.register_forward_hook(OutputRecorder(name, outputs, condition)) for name, module in modules.items()]
