"""Distillation of hidden layers (FitNets, Romero et al. 2015, arXiv:1412.6550), correct on padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display, LoggedNumber

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter

    from sparse_xp.modifiers.context import HookContext


def layer_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, normalize: bool = True, epsilon: float = 1e-6
) -> Tensor:
    """mean((student - teacher)^2), divided by mean(teacher^2) + ``epsilon`` if ``normalize``; both [..., width].

    ``mask`` [rows, tokens] bool: the tokens that count. It is used where the layers are [rows, tokens, width]; both
    means are then over the tokens that count. Computed in float32.
    """
    student, teacher = student.float(), teacher.float()
    if mask is not None and teacher.dim() == 3 and teacher.shape[:2] == mask.shape:
        student, teacher = student[mask], teacher[mask]
    distance = (student - teacher).square().mean()
    return distance / (teacher.square().mean() + epsilon) if normalize else distance


def only_tensor(output: Any) -> Any:
    """What a module says: its output, or the first of several."""
    from sparse_xp.functional.chunked_loss import LazyLogits

    output = output[0] if isinstance(output, tuple) else output
    return output.materialize() if isinstance(output, LazyLogits) else output


def listen(modules: dict[str, nn.Module], heard: dict[str, Tensor], when: Callable[[nn.Module], bool]) -> list[Any]:
    """Write what each module says into ``heard``, under its name, ``when`` that is true of it; returns the hooks."""

    def hook_of(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if when(module):
                heard[name] = only_tensor(output)

        return hook

    return [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]


@dataclass(kw_only=True)
class PerLayerDistillation(Modifier):
    """loss + ``gain`` * sum over layers of the distance between the outputs of student and teacher.

    The distance is ``layer_loss``: the mean squared error, relative to that of silence if ``normalize``.
    ``student_layer_names``, ``teacher_layer_names``: exact names or ``re:<pattern>`` of modules, paired in this order;
    None: all Linear modules. ``project_features``: the student's outputs pass a bias-less Linear to the teacher's width
    first, which trains along (its gradient is not part of the clipped norm) and is thrown away at the end.
    """

    gain: float = 1.5
    normalize: bool = True
    student_layer_names: list[str] | None = None
    teacher_layer_names: list[str] | None = None
    project_features: bool = True
    epsilon: float = 1e-6

    additive_loss: ClassVar[bool] = True
    display: ClassVar[Display] = Display(span_colour="tab:olive", module_fields=("student_layer_names",))
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("loss_layers", 30, "layers {:.4f}", in_report=False),)
    live_teacher: ClassVar[str | None] = "the recipe compares hidden layers"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, positive in (("gain", self.gain), ("epsilon", self.epsilon)):
            if not 0 < positive < float("inf"):
                raise ValueError(f"PerLayerDistillation.{name}={positive}: want a number above 0.")
        for key in ("student_layer_names", "teacher_layer_names"):
            if getattr(self, key) == []:
                raise ValueError(f"PerLayerDistillation.{key} is empty: name modules, or leave it out for all Linear.")
        self.pairs: list[tuple[str, str]] = []
        self.projections: dict[str, nn.Linear] = {}  # by the name of the student's module
        self.said: dict[str, Tensor] = {}
        self.taught: dict[str, Tensor] = {}
        self.hooks: list[Any] = []
        self.active = False
        self.last: dict[str, Tensor] = {}

    @property
    def exclusive_resource(self) -> str:
        return "distillation of hidden layers"

    def attach(self, context: HookContext) -> None:
        import torch

        if context.teacher is None:
            raise UserError(
                "PerLayerDistillation compares the student's layers with a teacher's, and there is none: write "
                "teacher=dense, teacher=self, or teacher=checkpoint teacher.path=DIR."
            )
        assert context.teacher.model is not None  # ``live_teacher`` asks for one
        student = choose_modules(context.model, self.student_layer_names, "the student")
        teacher = choose_modules(context.teacher.model, self.teacher_layer_names, "the teacher")
        if len(student) != len(teacher):
            raise UserError(
                f"PerLayerDistillation: the student has {len(student)} layers to compare, the teacher {len(teacher)}. "
                "Name as many of each in student_layer_names and teacher_layer_names."
            )
        self.pairs = list(zip(student, teacher, strict=True))
        ours, theirs = shapes(context, context.model, student), shapes(context, context.teacher.model, teacher)
        self.projections = {}
        for name, other in self.pairs:
            if ours[name][:-1] != theirs[other][:-1] or (ours[name] != theirs[other] and not self.project_features):
                hint = "" if self.project_features else " or write project_features=true"
                raise UserError(
                    f"PerLayerDistillation: for a row the student's {name} gives {ours[name]}, the teacher's {other} "
                    f"{theirs[other]}: they cannot be compared. Name other layers{hint}."
                )
            if self.project_features:
                widths = ours[name][-1], theirs[other][-1]
                self.projections[name] = torch.nn.Linear(*widths, bias=False, device=context.accelerator.device)
        if context.accelerator.num_processes > 1:  # DDP makes the model equal everywhere, and knows nothing of these
            from accelerate.utils import broadcast

            for weight in self.parameters(context):
                weight.data = broadcast(weight.data)
        self.said, self.taught, self.last, self.active = {}, {}, {}, False
        self.hooks = [
            # In evaluation nobody would take what was said.
            *listen(student, self.said, lambda module: self.active and module.training),
            *listen(teacher, self.taught, lambda module: self.active),
        ]

    def parameters(self, context: HookContext) -> list[Parameter]:
        return [weight for layer in self.projections.values() for weight in layer.parameters()]

    def before_step(self, context: HookContext) -> None:
        self.active = self.is_active(context.clock, context.step)

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        import torch

        if not self.active:
            self.last = {}
            return loss
        assert context.teacher is not None
        context.teacher(rows, batch)
        mask = batch["attention_mask"].bool()
        terms = []
        for name, other in self.pairs:
            said = self.said[name]
            if name in self.projections:
                said = self.projections[name](said.float())
            terms.append(layer_loss(said, self.taught[other], mask, self.normalize, self.epsilon))
        # The layers of a batch are large, and those of the next must not be taken for them.
        self.said.clear()
        self.taught.clear()
        distance = torch.stack(terms).sum()
        self.last = {"loss_layers": distance.detach()}
        return loss + self.gain * distance

    def before_update(self, context: HookContext) -> None:
        # The projections are no part of what DDP wraps. It takes the mean over processes, and so do they.
        if context.accelerator.num_processes > 1:
            for weight in self.parameters(context):
                if weight.grad is not None:
                    weight.grad = context.accelerator.reduce(weight.grad, "mean")

    def detach(self, context: HookContext) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def logs(self, context: HookContext) -> dict[str, float]:
        return {name: value.item() for name, value in self.last.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"projections": {name: layer.weight.detach() for name, layer in self.projections.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, layer in self.projections.items():  # in place: the optimizer has them already
            layer.weight.data.copy_(state["projections"][name])


def choose_modules(model: nn.Module, names: list[str] | None, whose: str) -> dict[str, nn.Module]:
    """The modules of ``model`` by name: all Linear ones if ``names`` is None. Raises UserError.

    But that of factored embeddings, which no other model need have.
    """
    from torch import nn

    from sparse_xp.functional.factored_embeddings import FactoredEmbedding
    from sparse_xp.functional.selection import select_modules

    if names is None:
        inside = {id(module.projection) for module in model.modules() if isinstance(module, FactoredEmbedding)}
        return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and id(m) not in inside}
    return select_modules({n: m for n, m in model.named_modules() if n}, names, f"module of {whose}")


def shapes(context: HookContext, model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """What each module gives for the first training row, by name. Raises UserError if that is no tensor of numbers."""
    import torch

    heard: dict[str, Any] = {}
    hooks, training = listen(modules, heard, lambda module: True), model.training
    device = next(model.parameters()).device
    batch = context.input_batch([0])
    try:
        with torch.no_grad():
            model.eval()(**{name: value.to(device) for name, value in batch.items()})
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for name in modules:
        value = heard.get(name)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() < 2:
            raise UserError(f"PerLayerDistillation: {name} gives no hidden states that could be compared.")
    return {name: tuple(heard[name].shape) for name in modules}
