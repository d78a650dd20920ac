"""Distillation of attention: to which tokens the heads of a layer attend. Logits: ``distillation``.

Forward hooks on both models record the queries and keys of the paired layers, from which ``functional/attention_maps``
computes the distributions: fused attention kernels, which never write them down, can stay. torch is imported late,
inside the hooks: composing a configuration must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError, check_one_of
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display, LoggedNumber
from sparse_xp.modifiers.distillation import require_teacher

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

    from sparse_xp.functional.attention_maps import AttentionLayer
    from sparse_xp.modifiers.context import Cuts, HookContext


@dataclass(kw_only=True)
class AttentionDistillation(Modifier):
    """Train the attention of the student on the teacher's (MiniLM, Wang et al. 2020, arXiv:2002.10957).

    loss = loss + ``gain`` * sum over pairs of layers of ``attention_loss``: the distance of the distributions of
    attention, a mean over heads and tokens. Padding has no part in it.

    Attributes:
        start: The time from which it acts, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: The time until which it acts.
        gain: The weight of the added loss.
        student_layers: The numbers of the student's layers to compare, from 0; -1 is the last. They are paired with
            those of the teacher in this order. By default the last one, as in MiniLM.
        teacher_layers: The numbers of the teacher's layers.
        distance: ``kl``: the divergence from the teacher's distribution, as in MiniLM. ``mse``: the squared difference.
        average_heads: Compare the means over the heads of a layer. It is needed where the student has fewer heads than
            the teacher; otherwise each head is compared with the one of its number.
    """

    gain: float = 1.0
    student_layers: list[int] | None = None
    teacher_layers: list[int] | None = None
    distance: str = "kl"
    average_heads: bool = False

    additive_loss: ClassVar[bool] = True
    display: ClassVar[Display] = Display(span_colour="tab:olive")
    logged: ClassVar[tuple[LoggedNumber, ...]] = (
        LoggedNumber("loss_attention", 31, "attention {:.4f}", in_report=False),
    )
    live_teacher: ClassVar[str | None] = "the recipe compares attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gain < float("inf"):
            raise ValueError(f"AttentionDistillation.gain={self.gain}: expected a number above 0.")
        check_one_of("AttentionDistillation.distance", self.distance, ("kl", "mse"))
        for key in ("student_layers", "teacher_layers"):
            if getattr(self, key) == []:
                raise ValueError(
                    f"AttentionDistillation.{key} is empty: name layers, or leave it out for the last one."
                )
        self.pairs: list[tuple[AttentionLayer, AttentionLayer]] = []
        self.recorded: dict[str, Tensor] = {}  # queries and keys of the current micro-batch
        self.hooks: list[RemovableHandle] = []
        self.weights: list[float] = []  # of the micro-batches to come
        self.active = False  # whether the current step is in the window
        self.last_losses: dict[str, Tensor] = {}  # of the latest step, for the log

    @property
    def needs_training_mode(self) -> bool:
        return True

    @property
    def learns_from_teacher(self) -> bool:
        return True

    @property
    def exclusive_resource(self) -> str:
        return "distillation of attention"

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.hidden_states import record_outputs

        teacher_model = require_teacher(
            context, "AttentionDistillation compares the student's attention with a teacher's"
        ).model
        assert teacher_model is not None  # ``live_teacher`` requires it
        students = choose_layers(context.model, self.student_layers, "student")
        teachers = choose_layers(teacher_model, self.teacher_layers, "teacher")
        if len(students) != len(teachers):
            raise UserError(
                f"AttentionDistillation: {len(students)} layers of the student and {len(teachers)} of the teacher. "
                "Name as many of each in student_layers and teacher_layers."
            )
        self.pairs = list(zip(students, teachers, strict=True))
        for student, teacher in self.pairs:
            if student.heads != teacher.heads and not self.average_heads:
                raise UserError(
                    f"AttentionDistillation: layer {student.number} of the student has {student.heads} heads, layer "
                    f"{teacher.number} of the teacher {teacher.heads}. Write average_heads=true to compare their means."
                )
        self.recorded, self.last_losses, self.active = {}, {}, False
        self.hooks = [
            # Not in evaluation: no ``loss`` follows that would clear what was recorded.
            *record_outputs(
                projections("student", students), self.recorded, lambda module: self.active and module.training
            ),
            *record_outputs(projections("teacher", teachers), self.recorded, lambda module: self.active),
        ]

    def before_step(self, context: HookContext) -> None:
        self.active = self.is_active(context.clock, context.step)

    def before_batches(self, context: HookContext, rows: list[list[int]], batches: list[dict[str, Tensor]]) -> None:
        self.last_losses = {}
        from sparse_xp.functional.model_calls import attention_mask

        if self.active:
            masks = map(attention_mask, batches)
            counts = [
                len(numbers) if mask is None else int(mask.sum()) for numbers, mask in zip(rows, masks, strict=True)
            ]
            [self.weights] = context.shares(counts)

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        import torch

        from sparse_xp.functional.attention_maps import attention_log_probabilities, attention_loss
        from sparse_xp.functional.model_calls import attention_mask

        if not self.active:
            return loss
        assert context.teacher is not None
        context.teacher(rows, batch)  # its hooks record; those of the student did in its forward pass
        mask = attention_mask(batch)
        if mask is None:  # no token is padding
            mask = torch.ones_like(self.recorded["student query 0"][:, :, 0], dtype=torch.bool)
        terms = []
        for number, pair in enumerate(self.pairs):
            student, teacher = (
                attention_log_probabilities(
                    self.recorded[f"{whose} query {number}"],
                    self.recorded[f"{whose} key {number}"],
                    layer.head_size,
                    mask,
                )
                for whose, layer in zip(("student", "teacher"), pair, strict=True)
            )
            terms.append(attention_loss(student, teacher, mask, self.distance, self.average_heads))
        # Clearing frees memory, and a missing output of the next batch becomes a KeyError instead of a stale tensor.
        self.recorded.clear()
        attention = torch.stack(terms).sum() * self.weights.pop(0)
        self.last_losses = {"loss_attention": self.last_losses.get("loss_attention", 0) + attention.detach()}
        return loss + self.gain * attention

    def allows_cuts(self, context: HookContext, cuts: Cuts) -> bool:
        return False  # each head is compared with the teacher's of its number

    def detach(self, context: HookContext) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks, self.pairs = [], []

    def logs(self, context: HookContext) -> dict[str, float]:
        return {name: context.mean_over_processes(value) for name, value in self.last_losses.items()}


def choose_layers(model: PreTrainedModel, numbers: list[int] | None, whose: str) -> list[AttentionLayer]:
    """Return the attention of the layers of ``model`` with these numbers, by default of the last one.

    ``whose``: student or teacher, for messages. Raises UserError for a number that no layer has.
    """
    from sparse_xp.functional.attention_maps import attention_layers

    layers = attention_layers(model, f"the {whose}")
    known = {layer.number: layer for layer in layers}
    for number in numbers or ():
        if number not in known and number != -1:
            raise UserError(
                f"AttentionDistillation.{whose}_layers: the {whose} has no layer {number}. There are: "
                f"{', '.join(map(str, known))}."
            )
    return [layers[-1] if number == -1 else known[number] for number in numbers or [-1]]


def projections(whose: str, layers: list[AttentionLayer]) -> dict[str, nn.Module]:
    """Return the query and key projections of layers under the names of what they give."""
    return {
        f"{whose} {side} {number}": module
        for number, layer in enumerate(layers)
        for side, module in (("query", layer.query), ("key", layer.key))
    }
