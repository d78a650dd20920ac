"""``Sparsifier``: the recipe in a plain PyTorch loop.

A step has the order of the command's loop (``training/loop.train_step``)::

    model(**batch)              the first forward pass of a step with gradients begins it: rates, masks (``begin_step``)
    loss                        distillation
    loss.backward()             of the loop, once for each micro-batch
    step                        zeros in gradients, clipping, optimizer, zeros in weights
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparse_xp.config import drives_rate
from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.functional.model_calls import Batch, full_precision, moved
from sparse_xp.modifiers import Modifier
from sparse_xp.modifiers.context import Devices, DistillationFunction
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.sparsifier.checks import (
    HELD,
    check_arguments,
    check_batches,
    check_directory,
    check_model_fits,
    check_not_held,
    check_promises,
    check_pruned,
    check_state,
    loop_clock,
    match_loop_teacher,
    settings_of,
)
from sparse_xp.sparsifier.context import LoopContext, LoopTeacher, LossFunction, TeacherFunction, adopt_parameters
from sparse_xp.sparsifier.devices import LoopDevices, is_unscaled
from sparse_xp.sparsifier.forward_hook import ForwardHook
from sparse_xp.sparsifier.models import (
    at_end_of_batch,
    check_structure,
    check_trainable,
    check_weights,
    innermost,
    model_source,
    unwrapped,
)
from sparse_xp.sparsifier.outputs import LoopOutputs, rows_of
from sparse_xp.sparsifier.recipes import RecipeSource, read_loop_recipe
from sparse_xp.sparsifier.saving import save_model_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Sparsifier:
    """A recipe in a training loop of your own.

    Args:
        recipe: The name of a recipe (``"gradual80"``), a recipe of SparseML (a file, a stub or its text), or modifiers
            as objects (``[MagnitudePruning(final_sparsity=0.9)]``).
        model: Any module; it may be compiled, or wrapped in ``DistributedDataParallel``.
        optimizer: The optimizer of the model's parameters. None: ``use_optimizer`` gives it later.
        steps_per_epoch: Optimizer steps in an epoch of the loop.
        epochs: The length of the loop. By default that of the recipe.
        teacher: The model to distil from, or a function from a batch to its outputs. ``"self"``: the model as it is
            now. ``"disable"``: leave out what distils.
        batches: Training batches, a DataLoader preferably: for second-order pruning and calibration after training.
        loss_function: The loss of the task, from model and batch, for second-order pruning. By default the model's own.
        distillation: A distillation loss in place of the usual one, from the outputs of the model, those of the teacher
            and the batch.
        max_grad_norm: Clip the norm of the gradient, as it is without that of pruned weights. None: do not clip.
        scaler: The gradient scaler of a loop in fp16.
        seed: Chooses the rows of second-order pruning and the tokens of distillation.
        devices: Device, processes and scaler, such as an ``Accelerator``. By default those of ``torch.distributed``.
        numbers: Numbers of the recipe to change: ``sparsity=0.9``, ``learning_rate=3e-5`` for one of ours, the
            variables of a recipe of SparseML (``num_epochs=8``).

    Raises UserError for a recipe that does not fit the model, the loop or the optimizer.
    """

    def __init__(
        self,
        recipe: RecipeSource,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        steps_per_epoch: int,
        epochs: float | None = None,
        teacher: TeacherFunction | str | None = None,
        batches: Iterable[Any] | None = None,
        loss_function: LossFunction | None = None,
        distillation: DistillationFunction | None = None,
        max_grad_norm: float | None = None,
        scaler: GradScaler | None = None,
        seed: int = 42,
        devices: Devices | None = None,
        **numbers: object,
    ):
        inner: Any = unwrapped(model)
        check_arguments(loss_function, distillation, max_grad_norm, scaler, devices)
        check_weights(inner)
        check_not_held(inner)
        self.recipe, source = match_loop_teacher(read_loop_recipe(recipe, numbers), inner, teacher, distillation)
        clock = loop_clock(self.recipe, steps_per_epoch, epochs)
        check_model_fits(self.recipe, inner)
        check_structure(model, [name for name, each in self.recipe.modifiers.items() if each.changes_structure])
        self.max_grad_norm, self.scaler = max_grad_norm, scaler
        self.reads_logits = self.recipe.compares_logits and distillation is None
        self.steps = 0  # optimizer steps made, also past the end of the recipe
        self.resumed = False  # whether a state was loaded and no step has been made since
        self.began = False  # whether rates and masks are those of the coming step
        self.trained = False  # whether a forward pass in training mode was made
        self.updating = False  # whether the optimizer may step now
        self.loss_called = False  # whether ``loss`` was called in this step
        self.finalized = False
        self.rates: list[float] = []  # that the recipe has set last, by group of the optimizer
        self.context = LoopContext(
            model=inner,
            clock=clock,
            modifier_list=ModifierList(self.recipe.modifiers, clock),
            accelerator=devices or LoopDevices(inner, scaler),
            task=LoopOutputs(inner, self.recipe.compared_outputs),
            teacher=None if source is None else LoopTeacher(source, self.reads_logits),
            distillation_function=distillation,
            batches=batches,
            loss_function=loss_function,
            seed=seed,
            source=model_source(inner),
        )
        check_batches(self.recipe, batches)
        if any(modifier.post_training for modifier in self.modifiers.values()):
            self.context.example_inputs()  # raises for batches that calibration could not use at the end
        if optimizer is not None:
            check_trainable(inner, optimizer)
        before = list(inner.parameters())
        self.modifier_list.attach(self.context)
        self.replaced = before
        HELD.add(inner)
        for remark in self.recipe.remarks:
            say(remark)
        self.hooks: list[RemovableHandle] = [model.register_forward_pre_hook(ForwardHook(self.begin_forward))]
        if optimizer is not None:
            self.use_optimizer(optimizer)

    def use_optimizer(self, optimizer: Optimizer) -> None:
        """Give the optimizer of the model. Parameters that modifiers train or have replaced are added to it.

        Raises UserError if it does not hold the model's parameters.
        """
        check_trainable(self.context.model, optimizer, self.replaced)
        adopt_parameters(optimizer, self.replaced, self.context.model)
        if others := self.modifier_list.parameters(self.context):
            optimizer.add_param_group({"params": others})
        self.context.optimizer = optimizer
        inner = innermost(optimizer)
        if isinstance(inner, Optimizer):
            self.hooks.append(inner.register_step_pre_hook(self.check_updating))

    @property
    def modifier_list(self) -> ModifierList:
        """The modifiers in the order in which they act."""
        return self.context.modifier_list

    @property
    def modifiers(self) -> dict[str, Modifier]:
        """The modifiers by name, with their state: masks, for instance."""
        return self.modifier_list.modifiers

    @property
    def epochs(self) -> int:
        """The epochs of the loop."""
        return math.ceil(self.context.clock.end - 1e-9)

    @property
    def total_steps(self) -> int:
        """The optimizer steps of the recipe."""
        return self.context.clock.total_steps

    @property
    def sets_learning_rate(self) -> bool:
        """Whether the recipe sets the learning rate at some time."""
        return any(map(drives_rate, self.modifiers.values()))

    # A step

    def begin_forward(self, training: bool) -> None:
        """Begin the step with its first forward pass. ``training``: whether the model is in training mode.

        One in evaluation mode is an evaluation in a loop that has trained in training mode, and where a modifier would
        see nothing of it. Other loops may train in evaluation mode, and are told that they do.
        """
        self.trained |= training
        evaluates = self.trained or any(each.needs_training_mode for each in self.modifiers.values())
        if self.began or self.finalized or (evaluates and not training):
            return
        if not training:
            warnings.warn(
                "The loop trains a model in evaluation mode, without dropout: is model.train() missing? Evaluate under "
                "torch.no_grad().",
                stacklevel=2,
            )
        self.begin_step()

    def begin_step(self) -> None:
        """Set rates and masks for the coming step. Its first forward pass with gradients does it.

        Past the end of the recipe they stay as they are. A loop calls it itself where no such forward pass is made.
        """
        if self.began or self.finalized:
            return
        self.check_optimizer()
        if self.resumed:
            advice = "Load the model's state too, which was saved with this one."
            check_pruned(self.modifier_list, self.context, advice)
        self.began, self.resumed, self.loss_called = True, False, False
        if self.steps >= self.total_steps:
            if self.steps == self.total_steps:
                warnings.warn(
                    f"The recipe has {self.total_steps} steps, and the loop makes more: masks and rates stay as they "
                    "are.",
                    stacklevel=2,
                )
            self.hold_rates()
            return
        self.context.step = self.steps
        self.hold_rates()
        # The forward pass that begins the step may be one in half precision.
        with full_precision(self.context.accelerator.device):
            self.modifier_list.before_step(self.context)
        if self.sets_learning_rate and (self.rates or self.rate_is_set()):
            self.rates = [float(group["lr"]) for group in self.context.optimizer.param_groups]

    def loss(self, loss: Tensor, outputs: Batch, batch: Batch, *, share: float = 1.0) -> Tensor:
        """Return the loss to minimize for a micro-batch, given the task's ``loss``; with the teacher's, if it distils.

        ``outputs``: of the model for ``batch``. ``share``: the part of the step's loss that ``loss`` is a mean over, if
        the loop does not divide what this returns: 1 / number of micro-batches.
        """
        self.check_began()
        self.loss_called = True
        if self.reads_logits:
            outputs = self.context.task.read(outputs)
        self.context.share = share
        rows = list(range(rows_of(batch)))
        self.modifier_list.before_batches(self.context, [rows], [batch])
        total = self.modifier_list.loss(self.context, rows, batch, outputs, loss)
        if self.context.teacher:
            self.context.teacher.forget()
        self.context.task.current = {}
        return total

    def step(self) -> None:
        """Make the optimizer step: mask gradients, clip, update, mask weights.

        It takes the place of ``optimizer.step()``, after ``backward`` of the last micro-batch. Raises UserError once
        the recipe is finalized.
        """
        optimizer = self.context.optimizer
        if not at_end_of_batch(optimizer):
            return
        self.before_update()
        if self.max_grad_norm is not None:
            if self.scaler:
                self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.context.model.parameters(), self.max_grad_norm)
        try:
            if self.scaler:
                self.scaler.step(optimizer)
                self.scaler.update()
            else:
                optimizer.step()
        except BaseException:
            self.modifier_list.after_update(self.context)  # an interrupted update leaves no pruned weight alive
            raise
        optimizer.zero_grad()
        self.after_update()

    def before_update(self) -> None:
        """Mask gradients, before clipping: for a loop that calls its optimizer itself."""
        self.check_began()
        self.check_loss_called()
        self.hold_rates()
        self.updating = True
        if self.scaler and is_unscaled(self.scaler, self.context.optimizer):
            raise UserError(
                "scaler.unscale_() before step(): scores are made of gradients with the scaler's factor. Leave it out; "
                "step() calls it before it clips (max_grad_norm=)."
            )
        self.modifier_list.before_update(self.context)

    def after_update(self) -> None:
        """Mask weights, after the update: for a loop that calls its optimizer itself."""
        self.modifier_list.after_update(self.context)
        self.steps += 1
        self.began = self.updating = False

    def hold_rates(self) -> None:
        """Restore the rates that the recipe has set last, whatever a scheduler of the loop has made of them."""
        for group, rate in zip(self.context.optimizer.param_groups, self.rates, strict=False):
            group["lr"] = rate

    def rate_is_set(self) -> bool:
        """Return whether a modifier has set the learning rate by now."""
        clock = self.context.clock
        rates = [each for each in self.modifiers.values() if drives_rate(each)]
        return any(clock.first_step(each.window(clock)[0]) <= self.context.step for each in rates)

    def check_began(self) -> None:
        """Raise UserError if no forward pass has begun the step."""
        if self.finalized:
            raise UserError("step() after finalize(): the recipe is finished. Make a new Sparsifier to train on.")
        if not self.began:
            raise UserError(
                "No forward pass in training mode has begun this step: call model.train(), and the model that the "
                "Sparsifier was given (not model.forward, nor a part of it). A loop that trains otherwise calls "
                "sparsifier.begin_step() before its forward pass."
            )

    def check_updating(self, *unused: object) -> None:
        """Raise UserError if the loop calls its optimizer itself: gradients would not be masked."""
        if not self.updating:
            raise UserError(
                "optimizer.step() was called by the loop: sparsifier.step() takes its place. A loop that has to call "
                "it calls sparsifier.before_update() before it and sparsifier.after_update() after it."
            )

    def check_loss_called(self) -> None:
        """Raise UserError if the recipe distils in this step, and the loop has left ``loss`` out."""
        clock, step = self.context.clock, self.context.step
        distils = any(self.modifiers[name].is_active(clock, step) for name in self.recipe.distilling)
        if distils and not self.loss_called:
            raise UserError(
                "The recipe distils in this step, and loss() was not called: minimize "
                "sparsifier.loss(loss, outputs, batch)."
            )

    def check_optimizer(self) -> None:
        """Raise UserError if there is no optimizer yet."""
        if self.context.optimizer is None:
            raise UserError("The Sparsifier has no optimizer: give one to it, or call use_optimizer before training.")

    def __repr__(self) -> str:
        return f"Sparsifier({self.recipe.name}, step {self.steps} of {self.total_steps}: {', '.join(self.modifiers)})"

    def logs(self) -> dict[str, float]:
        """Return numbers to log: sparsity, learning rate, the parts of the loss of the latest micro-batch."""
        self.check_optimizer()
        return self.modifier_list.logs(self.context)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed beside the states of model and optimizer to continue exactly.

        Tensors and plain values, which ``torch.load`` reads with ``weights_only=True``.
        """
        return {
            "steps": self.steps,
            "steps_per_epoch": self.context.clock.steps_per_epoch,
            "total_steps": self.total_steps,
            "rates": list(self.rates),
            "recipe": settings_of(self.modifiers),
            "modifiers": self.modifier_list.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was called; the states of model and optimizer may be loaded before or after.

        Raises UserError for the state of another recipe or model. The next step raises it if the weights are not those
        that belong to the state.
        """
        check_state(state, self.modifiers, self.context.clock)
        self.modifier_list.load_state_dict(moved(state["modifiers"], self.context.accelerator.device))
        self.steps, self.rates, self.began, self.resumed = state["steps"], list(state["rates"]), False, True
        self.context.step = min(self.steps, self.total_steps - 1)

    # The end

    def finalize(self, *, unfinished: bool = False) -> None:
        """End the recipe: cut what was removed, freeze scales, calibrate. The model is plain after it.

        ``unfinished``: accept a model that has not reached what the recipe asks for. Otherwise it raises UserError.
        """
        if self.finalized:
            return
        check_pruned(self.modifier_list, self.context, "Something beside the recipe has written into them.")
        if not unfinished:
            check_promises(self.modifier_list, self.context, self.steps)
        if self.steps < self.total_steps and not unfinished:
            warnings.warn(
                f"The recipe has {self.total_steps} steps, and {self.steps} were made before finalize().", stacklevel=2
            )
        training = self.context.model.training
        self.modifier_list.detach(self.context)
        self.context.model.train(training)
        self.finalized = True
        for hook in self.hooks:
            hook.remove()
        HELD.discard(self.context.model)

    def save(self, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the finished model into a directory: weights, quantization, recipe and ``tokenizer``.

        ``from_pretrained`` loads a model of transformers from it, ``sparse_xp.structured.load`` one with removed heads
        or neurons. Raises UserError before ``finalize``.
        """
        check_directory(directory)
        if not self.finalized:
            raise UserError("save() before finalize(): call that first. For a pause in training there is state_dict().")
        save_model_directory(self.context, directory, tokenizer)
