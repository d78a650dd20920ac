"""Knowledge distillation on the logits (Hinton et al. 2015), correct on padding.

``Distillation`` weighs the task loss against ``distillation_loss``. The teacher's logits come from ``context.teacher``
(``training/teacher.py``), which reads them from disk or runs the teacher. Hidden layers: ``per_layer_distillation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display, LoggedNumber

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext, TeacherModel


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    classes: Tensor | None = None,
    tokens: Tensor | None = None,
    problem_type: str = "single_label_classification",
) -> Tensor:
    """Return the distillation loss, a mean over rows (and tokens). ``student``, ``teacher``: logits [..., classes].

    ``temperature``: T, which divides the logits of both.
    ``classes`` [..., classes] bool: False excludes a class (the padding positions of a start or end head) from both
    distributions, so that the loss of a row does not depend on how far it was padded.
    ``tokens`` [rows, tokens] bool, for logits [rows, tokens, classes]: the tokens that the mean is taken over.
    ``problem_type``: ``single_label_classification``: T^2 * KL(softmax(teacher/T) || softmax(student/T)) (Hinton et al.
    2015, arXiv:1503.02531, section 2). ``multi_label_classification``: the same with a sigmoid for each label, mean
    over labels. ``regression``: the squared error; ``embedding``: ``embedding_distance``. These have no temperature.
    Logits over a vocabulary may be ``LazyLogits``; the loss is then computed in chunks.
    """
    import torch
    from torch.nn.functional import logsigmoid

    from sparse_xp.functional.chunked_loss import LazyLogits, divergence
    from sparse_xp.functional.embedding_losses import embedding_distance

    student, teacher = student.float(), teacher.float()
    if tokens is not None and student.dim() == 3:
        student, teacher = student[tokens], teacher[tokens]
    if isinstance(student, LazyLogits):
        return divergence(student, teacher, temperature)
    if not len(student):
        return student.sum()  # no token counts: 0, where the mean is NaN
    if problem_type == "regression":
        return (student - teacher).square().mean()
    if problem_type == "embedding":
        return embedding_distance(student, teacher)
    student, teacher = student / temperature, teacher / temperature
    if problem_type == "multi_label_classification":
        # KL of two Bernoulli distributions; logsigmoid(-x) is log(1 - sigmoid(x)) without cancellation.
        p = teacher.sigmoid()
        positive = p * (logsigmoid(teacher) - logsigmoid(student))
        negative = (1 - p) * (logsigmoid(-teacher) - logsigmoid(-student))
        terms = positive + negative
        return temperature**2 * terms.mean()
    if classes is not None:
        # The lowest finite number: its probability is 0, and -inf - (-inf) below would be NaN.
        lowest = torch.finfo(torch.float32).min
        student, teacher = student.masked_fill(~classes, lowest), teacher.masked_fill(~classes, lowest)
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    terms = log_p.exp() * (log_p - log_q)
    if classes is not None:
        terms = terms.masked_fill(~classes, 0.0)
    return temperature**2 * terms.sum(-1).mean()


@dataclass(kw_only=True)
class Distillation(Modifier):
    """Train the student on the teacher's logits (Hinton et al. 2015, arXiv:1503.02531).

    loss = (1 - hardness) * task loss + hardness * distillation loss. The distillation loss is the mean over ``outputs``
    of ``distillation_loss``; it is their sum for tasks whose own loss is a sum over outputs (pretraining on pairs of
    texts).

    Attributes:
        start: The time from which it acts, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: The time until which it acts. The step that begins at ``end`` is included.
        hardness: The weight of the distillation loss, from 0 to 1.
        temperature: Divides the logits of teacher and student; higher values soften both distributions.
        outputs: The names of the model outputs to match. None (the default): all logits of the task.
        tokens: For outputs with one entry per token, which tokens count: ``all`` without padding, or the ``targets`` of
            the task's loss (masked tokens).
        token_share: The fraction of these tokens that is compared, sampled in every step. A smaller fraction is cheaper
            and has the same expected loss.
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
            raise ValueError(f"Distillation.hardness={self.hardness}: expected a weight in [0, 1].")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"Distillation.temperature={self.temperature}: expected a number above 0.")
        if self.tokens not in ("all", "targets"):
            raise ValueError(f"Distillation.tokens={self.tokens}: expected all or targets.")
        if not 0 < self.token_share <= 1:
            raise ValueError(f"Distillation.token_share={self.token_share}: expected a fraction above 0, at most 1.")
        self.weights: list[tuple[Tensor | None, float, float]] = []  # of the micro-batches to come, see before_batches
        self.last_losses: dict[str, Tensor] = {}  # of the latest step, for the log

    @property
    def learns_from_teacher(self) -> bool:
        return self.hardness > 0

    @property
    def exclusive_resource(self) -> str:
        return "distillation"

    def is_active(self, clock: Clock, step: int) -> bool:
        """Return whether step number ``step`` begins in the window, its end included.

        As in SparseML: where one window follows another without a gap, both act in the step between them.
        """
        start, end = self.window(clock)
        return start <= clock.epoch(step) <= end

    def attach(self, context: HookContext) -> None:
        unknown = set(self.outputs or ()) - set(context.task.outputs)
        if unknown and context.task.outputs:
            raise UserError(
                f"teacher.distillation.outputs names {', '.join(sorted(unknown))}, but task {context.task.name} has "
                f"{', '.join(context.task.outputs)}."
            )
        require_teacher(context, "Distillation compares the student with a teacher")

    def before_batches(self, context: HookContext, rows: list[list[int]], batches: list[dict[str, Tensor]]) -> None:
        """Draw the tokens to compare, and weigh each micro-batch by its number of tokens, or of rows."""
        self.last_losses = {}
        if not self.is_active(context.clock, context.step):
            return
        masks = [self.select_tokens(context, *each) for each in zip(rows, batches, strict=True)]
        tokens = [0 if mask is None else int(mask.sum()) for mask in masks]
        by_token, by_row = context.shares(tokens, list(map(len, rows)))
        self.weights = list(zip(masks, by_token, by_row, strict=True))

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        import torch

        from sparse_xp.functional.model_calls import moved

        if not self.is_active(context.clock, context.step):
            return loss
        assert context.teacher is not None  # ``attach`` has checked it
        task = context.task
        teacher_logits = context.teacher(rows, batch)
        tokens, by_token, by_row = self.weights.pop(0)
        masks = task.class_mask(batch), moved(tokens, context.accelerator.device)
        terms = []
        if context.distillation_function:
            terms.append(context.distillation_function(outputs, teacher_logits, batch) * by_row)
        else:
            for name in self.outputs or task.outputs:
                check_comparable(name, outputs, teacher_logits, any_size=task.problem_type == "embedding")
                term = distillation_loss(
                    outputs[name], teacher_logits[name], self.temperature, *masks, task.problem_type
                )
                is_per_token = tokens is not None and outputs[name].dim() == 3
                terms.append(term * (by_token if is_per_token else by_row))
        distillation = torch.stack(terms).sum() if task.loss_reduction == "sum" else torch.stack(terms).mean()
        for key, value in (("loss_task", loss), ("loss_distillation", distillation)):
            self.last_losses[key] = self.last_losses.get(key, 0) + value.detach()
        return (1 - self.hardness) * loss + self.hardness * distillation

    def select_tokens(self, context: HookContext, rows: list[int], batch: dict[str, Tensor]) -> Tensor | None:
        """Return which tokens are compared in this step, [rows, tokens]; None for outputs without tokens."""
        import numpy as np
        import torch

        mask = context.task.token_mask(batch)
        if mask is not None and self.tokens == "targets":
            if "labels" not in batch:
                raise UserError(
                    "Distillation.tokens=targets compares the tokens with a label: the batch has no labels."
                )
            mask = mask & (batch["labels"] >= 0)
        if mask is not None and self.token_share < 1:
            # A function of seed, step and row alone: neither the batching nor the padding changes the sample.
            draws = [np.random.default_rng([context.seed, context.step, row]).random(mask.shape[1]) for row in rows]
            mask = mask & (torch.from_numpy(np.stack(draws)) < self.token_share).to(mask.device)
        return mask

    def logs(self, context: HookContext) -> dict[str, float]:
        return {name: context.mean_over_processes(value) for name, value in self.last_losses.items()}


def check_comparable(name: str, student: Mapping[str, Any], teacher: Mapping[str, Any], any_size: bool = False) -> None:
    """Raise UserError unless both models give the output ``name``, in one shape: broadcasting would compare others.

    ``any_size``: the last dimension may differ.
    """
    for whose, outputs in (("model", student), ("teacher", teacher)):
        if name not in outputs:
            raise UserError(f"Distillation compares '{name}', and the {whose} returns {', '.join(outputs)}.")
    ours, theirs = (getattr(outputs[name], "shape", None) for outputs in (student, teacher))  # lazy logits have none
    if any_size and ours is not None and theirs is not None:
        ours, theirs = ours[:-1], theirs[:-1]
    if ours is not None and theirs is not None and ours != theirs:
        same = "embeddings of the same size" if "embedding" in name else "the same classes"
        raise UserError(
            f"Distillation: '{name}' is {tuple(ours)} for the model and {tuple(theirs)} for the teacher. Both "
            f"have to give {same} for the same batch."
        )


def require_teacher(context: HookContext, purpose: str) -> TeacherModel:
    """Return the teacher of the run. Raises UserError, which begins with the ``purpose``, if it has none."""
    if context.teacher is None:
        raise UserError(
            f"{purpose}, and the run has no teacher: write teacher=dense, teacher=self, or teacher=checkpoint "
            "teacher.path=DIR."
        )
    return context.teacher
