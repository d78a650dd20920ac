"""Losses over a large vocabulary without the logits of all tokens at once: exact, in chunks, gradients included.

Of a step of masked language modelling with distillation the projection to the vocabulary takes the most, and its logits
[tokens, vocabulary] most of the memory (``benchmarks/vocabulary.py``). In training a model's last Linear therefore
leaves its work undone (``Projected``), and the loss does it chunk by chunk: logits, loss and gradient of a chunk, then
the next. Numbers differ from the plain way by the rounding of sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: logits of one chunk: on a CPU few enough for its caches, on a GPU enough to fill it
ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}


@dataclass
class Projected:
    """The logits ``hidden @ weight.T + bias``, not computed yet. ``dtype``: of that product, float32 comes out.

    ``hidden`` [..., width], ``weight`` [vocabulary, width], ``bias`` [vocabulary].
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    def __getitem__(self, rows: Tensor | slice) -> Projected:
        """The logits of some rows, or (by a mask [rows, tokens]) of some tokens."""
        return replace(self, hidden=self.hidden[rows])

    def __len__(self) -> int:
        return len(self.hidden)

    def dim(self) -> int:
        """Of the logits."""
        return self.hidden.dim()

    def float(self) -> Projected:
        """The logits are float32 whatever comes in."""
        return self

    def whole(self) -> Tensor:
        """The logits [..., vocabulary], float32."""
        with torch.autocast(self.hidden.device.type, enabled=False):
            product = functional.linear(self.hidden.to(self.dtype), self.weight.to(self.dtype)).float()
        return product if self.bias is None else product + self.bias.float()


class LazyLinear(nn.Linear):
    """``nn.Linear``, but in training mode a ``Projected``."""

    def forward(self, input: Tensor) -> Any:
        """[..., width] in."""
        if not self.training:
            return super().forward(input)
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        return Projected(input, self.weight, self.bias, dtype)


def projection_of(model: PreTrainedModel) -> nn.Linear | None:
    """The Linear from hidden states to the vocabulary; None if there is none, or it is no plain one."""
    found = model.get_output_embeddings()
    return found if type(found) is nn.Linear else None


@contextmanager
def lazy_projection(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model's logits over the vocabulary are ``Projected`` in training; then it is as it was."""
    projection = projection_of(model)
    if projection is not None:
        projection.__class__ = LazyLinear
    try:
        yield
    finally:
        if projection is not None:
            projection.__class__ = nn.Linear


def always_lazy(model: PreTrainedModel) -> None:
    """The same for a teacher, which is in eval mode: of its modules only this one is put into training mode."""
    if (projection := projection_of(model)) is not None:
        projection.__class__ = LazyLinear
        projection.train()


#: for some rows and their logits [rows, vocabulary], which it may overwrite: the sum of the loss, and its derivative
Grade = Callable[[slice, Tensor], tuple[Tensor, Tensor]]


class _Graded(torch.autograd.Function):
    """The sum over rows of what ``grade`` says of their logits; the gradients are computed on the way there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: Any, grade: Grade) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        wanted = ctx.needs_input_grad
        by_hidden, by_weight = (torch.zeros_like(each, dtype=torch.float32) for each in (hidden, weight))
        by_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        # A derivative of a softmax is as small as half precision cannot tell from zero; bfloat16 can.
        back = torch.bfloat16 if dtype == torch.float16 and torch.cuda.is_bf16_supported() else dtype
        back = torch.float32 if back == torch.float16 else back
        with torch.autocast(hidden.device.type, enabled=False):
            ahead, behind = weight.to(dtype), weight.to(back)
            size = max(1, ELEMENTS.get(hidden.device.type, 1 << 23) // len(weight))
            for start in range(0, len(hidden), size):
                rows = slice(start, start + size)
                logits = functional.linear(hidden[rows].to(dtype), ahead).float()
                if bias is not None:
                    logits += bias
                value, slope = grade(rows, logits)
                total += value
                if by_bias is not None:
                    by_bias += slope.sum(0)
                slope = slope.to(back)
                if wanted[0]:
                    by_hidden[rows] = (slope @ behind).float()
                if wanted[1]:
                    by_weight += (slope.T @ hidden[rows].to(back)).float()
        ctx.save_for_backward(by_hidden.to(hidden.dtype), by_weight.to(weight.dtype), by_bias)
        ctx.wanted = wanted
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        scaled = [None if each is None else each * gradients[0] for each in ctx.saved_tensors]
        return (*(each if wanted else None for each, wanted in zip(scaled, ctx.wanted, strict=False)), None, None)


def graded(logits: Projected, grade: Grade) -> Tensor:
    """The sum over rows, with a gradient for hidden states, weight and bias; ``logits.hidden`` is [rows, width]."""
    total: Tensor = _Graded.apply(logits.hidden, logits.weight, logits.bias, logits.dtype, grade)
    return total


def cross_entropy(logits: Projected | Tensor, labels: Tensor, ignored: int = -100) -> Tensor:
    """Mean over the labels [...] that are not ``ignored``, 0 if all are; ``logits`` [..., vocabulary]."""
    counts = labels != ignored
    logits, labels = logits[counts], labels[counts]
    if isinstance(logits, Tensor):
        return functional.cross_entropy(logits.float(), labels, reduction="sum") / max(1, len(labels))

    def grade(rows: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        log_q, wanted = z.log_softmax(-1), labels[rows, None]
        value = -log_q.gather(1, wanted).sum()
        slope = log_q.exp_()
        return value, slope.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=slope.dtype))

    return graded(logits, grade) / max(1, len(labels))


def divergence(student: Projected, teacher: Projected | Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher/T) || softmax(student/T)), mean over rows (Hinton et al. 2015); both [rows, vocabulary].

    The derivative by the student's logits is T * (q - p).
    """

    def grade(rows: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        other = teacher[rows]
        with torch.no_grad():
            taught = other.whole() if isinstance(other, Projected) else other.float()
        log_p = (
            taught.div_(temperature).log_softmax(-1) if taught is not other else (taught / temperature).log_softmax(-1)
        )
        log_q = z.div_(temperature).log_softmax(-1)
        p = log_p.exp()
        value = temperature**2 * (torch.linalg.vecdot(p, log_p) - torch.linalg.vecdot(p, log_q)).sum()
        return value, log_q.exp_().sub_(p).mul_(temperature)

    return graded(student, grade) / max(1, len(student))
