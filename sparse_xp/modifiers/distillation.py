"""Knowledge distillation on the logits (Hinton et al. 2015), correct on padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display, LoggedNumber

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    classes: Tensor | None = None,
    tokens: Tensor | None = None,
    problem_type: str = "single_label_classification",
) -> Tensor:
    """Return how far the student's logits are from the teacher's, mean over rows (and tokens); both [..., classes].

    ``problem_type`` ``single_label_classification``: T^2 * KL(softmax(teacher/T) || softmax(student/T)) (Hinton et al.
    2015, section 2); ``multi_label_classification``: the same for each label on its own (sigmoid), mean over labels;
    ``regression``: the squared error, which has no temperature.
    ``classes`` [..., classes] bool: classes that exist; the others (padding positions of a start or end head) get no
    probability on either side, so that the loss of a row does not depend on how far it was padded.
    ``tokens`` [rows, tokens] bool, for logits [rows, tokens, classes]: tokens that count; the mean is over them.
    Logits over a vocabulary may be ``LazyLogits``: the same, chunk by chunk.
    """
    import torch
    from torch.nn.functional import logsigmoid

    from sparse_xp.functional.chunked_loss import LazyLogits, divergence

    student, teacher = student.float(), teacher.float()
    if tokens is not None and student.dim() == 3:
        student, teacher = student[tokens], teacher[tokens]
    if isinstance(student, LazyLogits):
        return divergence(student, teacher, temperature)
    if problem_type == "regression":
        return (student - teacher).square().mean()
    student, teacher = student / temperature, teacher / temperature
    if problem_type == "multi_label_classification":
        p, q = teacher.sigmoid(), student
        terms = p * (logsigmoid(teacher) - logsigmoid(q)) + (1 - p) * (logsigmoid(-teacher) - logsigmoid(-q))
        return temperature**2 * terms.mean()
    if classes is not None:
        nothing = torch.finfo(torch.float32).min
        student, teacher = student.masked_fill(~classes, nothing), teacher.masked_fill(~classes, nothing)
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    terms = log_p.exp() * (log_p - log_q)
    if classes is not None:
        terms = terms.masked_fill(~classes, 0.0)
    return temperature**2 * terms.sum(-1).mean()


@dataclass(kw_only=True)
class Distillation(Modifier):
    """loss = (1 - hardness) * task loss + hardness * mean over ``outputs`` of the distillation loss.

    Where the task's own loss is a sum over its outputs (pretraining on pairs), so is the distillation loss.
    ``outputs``: names of model outputs to match; None means every logits output of the task. For outputs with one
    entry per token, ``tokens``: ``all`` that are no padding, or the ``targets``, which the task's loss is about (masked
    tokens); ``token_share``: of these, how many are compared, drawn anew in every step: fewer cost less, and the
    expectation is the same.
    """

    hardness: float = 0.5
    temperature: float = 2.0
    outputs: list[str] | None = None
    tokens: str = "all"
    token_share: float = 1.0

    display: ClassVar[Display] = Display(bar_style="green", span_colour="tab:green")
    logged: ClassVar[tuple[LoggedNumber, ...]] = (
        LoggedNumber("loss_task", 10, "task {:.4f}"),
        LoggedNumber("loss_distillation", 20, "distil {:.4f}"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hardness <= 1:
            raise ValueError(f"Distillation.hardness={self.hardness}: want a weight in [0, 1].")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"Distillation.temperature={self.temperature}: want a number above 0.")
        if self.tokens not in ("all", "targets"):
            raise ValueError(f"Distillation.tokens={self.tokens}: want all or targets.")
        if not 0 < self.token_share <= 1:
            raise ValueError(f"Distillation.token_share={self.token_share}: want a fraction above 0, at most 1.")
        self.last: dict[str, Tensor] = {}

    @property
    def exclusive_resource(self) -> str:
        return "distillation"

    def is_active(self, clock: Clock, step: int) -> bool:
        """To the step at ``end`` and with it, as in SparseML: there a window that follows mixes with this one."""
        start, end = self.window(clock)
        return start <= clock.epoch(step) <= end

    def attach(self, context: HookContext) -> None:
        unknown = set(self.outputs or ()) - set(context.task.outputs)
        if unknown:
            raise UserError(
                f"teacher.distillation.outputs names {', '.join(sorted(unknown))}, but task {context.task.name} has "
                f"{', '.join(context.task.outputs)}."
            )
        if context.teacher is None:
            raise UserError(
                "Distillation compares the student with a teacher, and there is none: write teacher=dense, "
                "teacher=self, or teacher=checkpoint teacher.path=DIR."
            )

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        import torch

        if not self.is_active(context.clock, context.step):
            self.last = {}
            return loss
        assert context.teacher is not None
        taught = context.teacher(rows, batch)
        names = self.outputs or context.task.outputs
        task = context.task
        masks = task.class_mask(batch), self.chosen(task.token_mask(batch), batch)
        terms = [
            distillation_loss(outputs[name], taught[name], self.temperature, *masks, task.problem_type)
            for name in names
        ]
        distilled = torch.stack(terms).sum() if task.loss_reduction == "sum" else torch.stack(terms).mean()
        self.last = {"loss_task": loss.detach(), "loss_distillation": distilled.detach()}
        return (1 - self.hardness) * loss + self.hardness * distilled

    def chosen(self, mask: Tensor | None, batch: dict[str, Tensor]) -> Tensor | None:
        """Of the tokens that have outputs [rows, tokens] bool those that are compared in this step."""
        import torch

        if mask is not None and self.tokens == "targets":
            mask = mask & (batch["labels"] >= 0)
        if mask is not None and self.token_share < 1:
            mask = mask & (torch.rand(mask.shape) < self.token_share).to(mask.device)
        return mask

    def logs(self, context: HookContext) -> dict[str, float]:
        return {name: value.item() for name, value in self.last.items()}
