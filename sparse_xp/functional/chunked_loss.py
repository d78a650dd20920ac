"""Losses over a large vocabulary without the logits of all tokens at once: exact, in chunks, gradients included.

In masked language modelling with distillation, the projection to the vocabulary takes most of a step, and its logits
[tokens, vocabulary] most of the memory (``benchmarks/vocabulary.py``). In training the output projection therefore
returns ``LazyLogits``. The loss computes logits, loss and gradient chunk by chunk. Results differ from the plain
computation by the rounding of sums in another order.

A step of training: ``lazy_projection`` wraps the loop, ``cross_entropy`` is called by ``tasks/pretraining.py``, and
``divergence`` by ``modifiers/distillation.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: logits of one chunk, by device: few enough for the caches of a CPU, enough to fill a GPU
CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}


@dataclass
class LazyLogits:
    """The logits ``hidden @ weight.T + bias`` before they are computed.

    ``hidden`` [..., width], ``weight`` [vocabulary, width], ``bias`` [vocabulary]. ``dtype`` is that of the matrix
    product; the logits are float32.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    def __getitem__(self, rows: Tensor | slice) -> LazyLogits:
        """Return the logits of some rows, or of some tokens by a bool mask [rows, tokens]."""
        return replace(self, hidden=self.hidden[rows])

    def __len__(self) -> int:
        return len(self.hidden)

    def dim(self) -> int:
        """Return the number of dimensions of the logits."""
        return self.hidden.dim()

    def float(self) -> LazyLogits:
        """Return these logits: they are float32 already."""
        return self

    def materialize(self) -> Tensor:
        """Compute the logits [..., vocabulary], float32."""
        with torch.autocast(self.hidden.device.type, enabled=False):
            product = functional.linear(self.hidden.to(self.dtype), self.weight.to(self.dtype)).float()
        return product if self.bias is None else product + self.bias.float()


class LazyLinear(nn.Linear):
    """A Linear that returns ``LazyLogits`` in training mode."""

    def forward(self, input: Tensor) -> Any:
        """Map [..., width] to logits [..., vocabulary]: lazy ones in training, a Tensor in evaluation."""
        if not self.training:
            return super().forward(input)
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        return LazyLogits(input, self.weight, self.bias, dtype)


def vocabulary_projection(model: PreTrainedModel) -> nn.Linear | None:
    """Return the Linear from hidden states to the vocabulary, or None if it is not a plain ``nn.Linear``."""
    module = model.get_output_embeddings()
    return module if type(module) is nn.Linear else None


@contextmanager
def lazy_projection(model: PreTrainedModel) -> Iterator[None]:
    """Make ``model`` return lazy logits over the vocabulary in training mode, within the block."""
    projection = vocabulary_projection(model)
    if projection is not None:
        projection.__class__ = LazyLinear
    try:
        yield
    finally:
        if projection is not None:
            projection.__class__ = nn.Linear


def make_always_lazy(model: PreTrainedModel) -> None:
    """Make ``model``, a teacher in eval mode, return lazy logits from now on.

    Only its output projection is put into training mode; it has no dropout.
    """
    if (projection := vocabulary_projection(model)) is not None:
        projection.__class__ = LazyLinear
        projection.train()


#: Maps a slice of rows and their logits [rows, vocabulary], which it may overwrite, to the sum of their losses and the
#: derivative of that sum by the logits.
LossAndGrad = Callable[[slice, Tensor], tuple[Tensor, Tensor]]


class _ChunkedLossContext(Protocol):
    """The autograd context, which PyTorch passes from forward to backward."""

    needs_input_grad: tuple[bool, ...]
    #: our own: ``needs_input_grad`` of the forward pass
    needs_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class _ChunkedLoss(torch.autograd.Function):
    """The sum of a loss over rows. The gradients are computed in the forward pass, while the logits are there."""

    @staticmethod
    def forward(
        ctx: _ChunkedLossContext,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        loss_and_grad: LossAndGrad,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        needs_grad = ctx.needs_input_grad
        hidden_grad, weight_grad = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (hidden, weight))
        bias_grad = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        backward_dtype = _backward_dtype(dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            forward_weight, backward_weight = weight.to(dtype), weight.to(backward_dtype)
            size = max(1, CHUNK_ELEMENTS.get(hidden.device.type, 1 << 23) // len(weight))
            for start in range(0, len(hidden), size):
                rows = slice(start, start + size)
                logits = functional.linear(hidden[rows].to(dtype), forward_weight).float()
                if bias is not None:
                    logits += bias
                loss, grad = loss_and_grad(rows, logits)
                total += loss
                if bias_grad is not None:
                    bias_grad += grad.sum(0)
                grad = grad.to(backward_dtype)
                if needs_grad[0]:
                    hidden_grad[rows] = (grad @ backward_weight).float()
                if needs_grad[1]:
                    weight_grad += (grad.T @ hidden[rows].to(backward_dtype)).float()
        ctx.save_for_backward(hidden_grad.to(hidden.dtype), weight_grad.to(weight.dtype), bias_grad)
        ctx.needs_grad = needs_grad
        return total

    @staticmethod
    def backward(ctx: _ChunkedLossContext, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if saved is None else saved * gradients[0] for saved in ctx.saved_tensors]
        grads = (grad if needed else None for grad, needed in zip(scaled, ctx.needs_grad, strict=False))
        return (*grads, None, None)


def _backward_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for products with softmax gradients: they underflow in float16, bfloat16 represents them."""
    if dtype != torch.float16:
        return dtype
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def chunked_loss(logits: LazyLogits, loss_and_grad: LossAndGrad) -> Tensor:
    """Return the sum of a loss over rows, with gradients for hidden states [rows, width], weight and bias."""
    arguments = (logits.hidden, logits.weight, logits.bias, logits.dtype, loss_and_grad)
    total: Tensor = _ChunkedLoss.apply(*arguments)  # type: ignore[no-untyped-call]
    return total


def cross_entropy(logits: LazyLogits | Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """Return the mean over the ``labels`` [...] that are not ``ignore_index``, 0 if all are.

    ``logits`` [..., vocabulary]. The derivative by the logits is softmax(logits) - one_hot(label).
    """
    counted = labels != ignore_index
    logits, labels = logits[counted], labels[counted]
    if isinstance(logits, Tensor):
        return functional.cross_entropy(logits.float(), labels, reduction="sum") / max(1, len(labels))

    def loss_and_grad(rows: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        log_q, targets = z.log_softmax(-1), labels[rows, None]
        loss = -log_q.gather(1, targets).sum()
        grad = log_q.exp_()
        return loss, grad.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=grad.dtype))

    return chunked_loss(logits, loss_and_grad) / max(1, len(labels))


def divergence(student: LazyLogits, teacher: LazyLogits | Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(softmax(teacher/T) || softmax(student/T)), the mean over rows; both [rows, vocabulary].

    The derivative by the student's logits is T * (q - p). Hinton et al. 2015, arXiv:1503.02531.
    """

    def loss_and_grad(rows: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        chunk = teacher[rows]
        if isinstance(chunk, LazyLogits):
            with torch.no_grad():
                log_p = chunk.materialize().div_(temperature).log_softmax(-1)
        else:  # may be a view of the stored logits: not in place
            log_p = (chunk.float() / temperature).log_softmax(-1)
        log_q = z.div_(temperature).log_softmax(-1)
        p = log_p.exp()
        loss = temperature**2 * (torch.linalg.vecdot(p, log_p) - torch.linalg.vecdot(p, log_q)).sum()
        return loss, log_q.exp_().sub_(p).mul_(temperature)

    return chunked_loss(student, loss_and_grad) / max(1, len(student))
