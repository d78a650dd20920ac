"""Distillation of hidden layers (FitNets, Romero et al. 2015, arXiv:1412.6550), correct on padding.

Forward hooks on both models record the outputs of the paired modules (``functional/hidden_states``);
``PerLayerDistillation.loss`` compares them after the student's forward pass. Logits: ``distillation``.

torch is imported late, inside the hooks: composing a configuration must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display, LoggedNumber
from sparse_xp.modifiers.distillation import require_teacher

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter
    from torch.utils.hooks import RemovableHandle

    from sparse_xp.modifiers.context import Cuts, HookContext


@dataclass(kw_only=True)
class PerLayerDistillation(Modifier):
    """Train hidden layers of the student on those of the teacher (FitNets, Romero et al. 2015, arXiv:1412.6550).

    loss = loss + ``gain`` * sum over pairs of layers of ``layer_loss``, the mean squared error of their outputs.

    Attributes:
        start: The time from which it acts, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: The time until which it acts.
        gain: The weight of the added loss.
        normalize: Divide each error by the mean square of the teacher's output, so that layers count alike.
        student_layer_names: The modules of the student to compare, as exact names or ``re:<pattern>``. They are paired
            with those of the teacher in this order. None: all Linear modules.
        teacher_layer_names: The modules of the teacher to compare, written in the same way. None: all Linear modules.
        project_features: Map the student's outputs to the teacher's width by a Linear without bias. The projections
            train along, their gradients are not part of the clipped norm, and they are discarded after training.
        epsilon: Added to the divisor of ``normalize``.
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
                raise ValueError(f"PerLayerDistillation.{name}={positive}: expected a number above 0.")
        for key in ("student_layer_names", "teacher_layer_names"):
            if getattr(self, key) == []:
                raise ValueError(f"PerLayerDistillation.{key} is empty: name modules, or leave it out for all Linear.")
        self.pairs: list[tuple[str, str]] = []
        self.projections: dict[str, nn.Linear] = {}  # by the name of the student's module
        self.student_outputs: dict[str, Tensor] = {}  # of the current micro-batch, by name of the module
        self.teacher_outputs: dict[str, Tensor] = {}
        self.hooks: list[RemovableHandle] = []
        self.active = False  # whether the current step is in the window
        self.weights: list[tuple[float, float]] = []  # by token and by row, of the micro-batches to come
        self.mean_squares: dict[str, Tensor] = {}  # of the teacher's outputs in all of them, where they are several
        self.last_losses: dict[str, Tensor] = {}  # of the latest step, for the log

    @property
    def needs_training_mode(self) -> bool:
        return True

    @property
    def learns_from_teacher(self) -> bool:
        return True

    @property
    def exclusive_resource(self) -> str:
        return "distillation of hidden layers"

    def attach(self, context: HookContext) -> None:
        import torch

        from sparse_xp.functional.hidden_states import record_outputs

        teacher_model = require_teacher(
            context, "PerLayerDistillation compares the student's layers with a teacher's"
        ).model
        assert teacher_model is not None  # ``live_teacher`` requires it
        student = choose_modules(context.model, self.student_layer_names, "the student")
        teacher = choose_modules(teacher_model, self.teacher_layer_names, "the teacher")
        if not student:
            raise UserError(
                f"PerLayerDistillation: {type(context.model).__name__} has no Linear whose outputs could be compared. "
                "Name modules in student_layer_names and teacher_layer_names."
            )
        if len(student) != len(teacher):
            raise UserError(
                f"PerLayerDistillation: the student has {len(student)} layers to compare, the teacher {len(teacher)}. "
                "Name as many of each in student_layer_names and teacher_layer_names."
            )
        self.pairs = list(zip(student, teacher, strict=True))
        student_shapes = output_shapes(context, context.model, student)
        teacher_shapes = output_shapes(context, teacher_model, teacher)
        self.projections = {}
        for student_name, teacher_name in self.pairs:
            ours, theirs = student_shapes[student_name], teacher_shapes[teacher_name]
            if ours[:-1] != theirs[:-1] or (ours != theirs and not self.project_features):
                hint = "" if self.project_features else " or write project_features=true"
                raise UserError(
                    f"PerLayerDistillation: for a row the student's {student_name} gives {ours}, the teacher's "
                    f"{teacher_name} {theirs}: they cannot be compared. Name other layers{hint}."
                )
            if self.project_features:
                device = context.accelerator.device
                self.projections[student_name] = torch.nn.Linear(ours[-1], theirs[-1], bias=False, device=device)
        if context.accelerator.num_processes > 1:  # DDP synchronizes the model only, and the projections are beside it
            for weight in self.parameters(context):
                weight.data = context.broadcast(weight.data)
        self.student_outputs, self.teacher_outputs, self.last_losses, self.active = {}, {}, {}, False
        self.hooks = [
            # Not in evaluation: no ``loss`` follows that would clear the outputs.
            *record_outputs(student, self.student_outputs, lambda module: self.active and module.training),
            *record_outputs(teacher, self.teacher_outputs, lambda module: self.active),
        ]

    def parameters(self, context: HookContext) -> list[Parameter]:
        return [weight for layer in self.projections.values() for weight in layer.parameters()]

    def before_step(self, context: HookContext) -> None:
        self.active = self.is_active(context.clock, context.step)

    def before_batches(self, context: HookContext, rows: list[list[int]], batches: list[dict[str, Tensor]]) -> None:
        """Weigh each micro-batch by its number of tokens, or of rows.

        The divisor of ``normalize`` is a mean over all of them. The teacher runs for it once more where they are
        several: keeping its hidden states would take the memory that small batches are to save.
        """
        self.last_losses, self.mean_squares = {}, {}
        from sparse_xp.functional.model_calls import attention_mask

        if not self.active:
            return
        masks, counts = list(map(attention_mask, batches)), list(map(len, rows))
        tokens = [count if mask is None else int(mask.sum()) for mask, count in zip(masks, counts, strict=True)]
        self.weights = list(zip(*context.shares(tokens, counts), strict=True))
        if self.normalize and (len(batches) > 1 or context.accelerator.num_processes > 1):
            self.mean_squares = self.measure_mean_squares(context, rows, batches)

    def measure_mean_squares(
        self, context: HookContext, rows: list[list[int]], batches: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the mean square of each output of the teacher over all micro-batches and processes, by its name."""
        import torch

        from sparse_xp.functional.hidden_states import without_padding
        from sparse_xp.functional.model_calls import attention_mask, moved

        assert context.teacher is not None
        names = list(dict.fromkeys(teacher_name for _, teacher_name in self.pairs))
        sums = torch.zeros(2, len(names), dtype=torch.float64, device=context.accelerator.device)
        for numbers, batch in zip(rows, batches, strict=True):
            if (mask := attention_mask(batch)) is not None and mask.device.type != sums.device.type:
                batch = moved(batch, sums.device)
            context.teacher(numbers, batch)  # fills ``teacher_outputs``
            for i, name in enumerate(names):
                values = without_padding(self.teacher_outputs[name].float(), attention_mask(batch))
                sums[:, i] += torch.stack([values.square().sum().double(), sums.new_tensor(values.numel())])
        if context.accelerator.num_processes > 1:
            sums = context.accelerator.reduce(sums)
        return dict(zip(names, (sums[0] / sums[1]).float(), strict=True))

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        import torch

        from sparse_xp.functional.hidden_states import is_per_token, layer_loss
        from sparse_xp.functional.model_calls import attention_mask

        if not self.active:
            return loss
        assert context.teacher is not None
        context.teacher(rows, batch)  # fills ``teacher_outputs``; the student's forward pass has filled the other
        mask = attention_mask(batch)
        by_token, by_row = self.weights.pop(0)
        terms = []
        for student_name, teacher_name in self.pairs:
            hidden = self.student_outputs[student_name]
            if student_name in self.projections:
                hidden = self.projections[student_name](hidden.float())
            target = self.teacher_outputs[teacher_name]
            mean_square = self.mean_squares.get(teacher_name)
            term = layer_loss(hidden, target, mask, self.normalize, self.epsilon, mean_square)
            terms.append(term * (by_token if is_per_token(target, mask) else by_row))
        # Clearing frees memory, and a missing output of the next batch becomes a KeyError instead of a stale tensor.
        self.student_outputs.clear()
        self.teacher_outputs.clear()
        layers = torch.stack(terms).sum()
        self.last_losses = {"loss_layers": self.last_losses.get("loss_layers", 0) + layers.detach()}
        return loss + self.gain * layers

    def before_update(self, context: HookContext) -> None:
        # DDP averages the gradients of the model over processes; the projections are outside it and are averaged here.
        if context.accelerator.num_processes > 1:
            for weight in self.parameters(context):
                if weight.grad is not None:
                    weight.grad = context.accelerator.reduce(weight.grad, "mean")

    def allows_cuts(self, context: HookContext, cuts: Cuts) -> bool:
        from sparse_xp.functional.structured.blocks import encoder_blocks

        blocks = encoder_blocks(context.model)
        # These keep their width, and so does what is in no layer at all.
        as_wide = {name for block in blocks for name in (block.name, block.output, block.down)}
        inside = tuple(f"{block.name}." for block in blocks)
        removed = [name for name, cut in cuts.items() if cut is None]
        return all(
            (name in as_wide or not name.startswith(inside))
            and not any(parameter.startswith(f"{name}.") for parameter in removed)
            for name, _ in self.pairs
        )

    def detach(self, context: HookContext) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def logs(self, context: HookContext) -> dict[str, float]:
        return {name: context.mean_over_processes(value) for name, value in self.last_losses.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"projections": {name: layer.weight.detach() for name, layer in self.projections.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, layer in self.projections.items():  # in place: the optimizer already refers to them
            layer.weight.data.copy_(state["projections"][name])


def choose_modules(model: nn.Module, names: list[str] | None, whose: str) -> dict[str, nn.Module]:
    """Return modules of ``model`` by name; if ``names`` is None, all Linear ones.

    ``whose``: the student or the teacher, for messages. All Linear ones excludes the projection of factored embeddings,
    which the other model may lack. Raises UserError for a name that matches nothing.
    """
    from torch import nn

    from sparse_xp.functional.factored_embeddings import FactoredEmbedding
    from sparse_xp.functional.selection import select_modules

    if names is None:
        excluded = {id(module.projection) for module in model.modules() if isinstance(module, FactoredEmbedding)}
        # PyTorch's attention reads the weights of its Linear, and never calls it.
        excluded |= {id(module.out_proj) for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
        return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and id(m) not in excluded}
    return select_modules({n: m for n, m in model.named_modules() if n}, names, f"module of {whose}")


def output_shapes(context: HookContext, model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each module's output for the first training row, by name.

    Raises UserError for an output that is not a floating-point tensor of two or more dimensions.
    """
    import torch

    from sparse_xp.functional.hidden_states import record_outputs
    from sparse_xp.functional.model_calls import call_model, moved

    # Shapes are measured, because a module's attributes do not say them for every kind of module.
    outputs: dict[str, Any] = {}
    hooks, training = record_outputs(modules, outputs, lambda module: True), model.training
    inputs = moved(context.example_inputs(), next(model.parameters()).device)
    try:
        with torch.no_grad():
            call_model(model.eval(), inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for name in modules:
        value = outputs.get(name)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() < 2:
            raise UserError(f"PerLayerDistillation: {name} gives no hidden states that could be compared.")
    return {name: tuple(outputs[name].shape) for name in modules}
