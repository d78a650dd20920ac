"""Does the recipe fit the loop: its length, its teacher, its data? Is the model free? Has it done what it promised?"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from torch import nn
from torch.amp.grad_scaler import GradScaler

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import Modifier
from sparse_xp.modifiers.context import DistillationFunction
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.modifiers.pruning import SPARSITY_TOLERANCE, Pruning
from sparse_xp.modifiers.scheduled_learning_rate import is_number
from sparse_xp.sparsifier.context import LoopContext, TeacherFunction
from sparse_xp.sparsifier.models import unwrapped
from sparse_xp.sparsifier.recipes import LoopRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: the keys of the state of a Sparsifier
STATE = {"steps", "steps_per_epoch", "total_steps", "rates", "recipe", "modifiers"}
#: models that a Sparsifier or a Lock holds now
HELD: WeakSet[nn.Module] = WeakSet()


def check_not_held(model: nn.Module) -> None:
    """Raise UserError if another Sparsifier or Lock holds the model, a part of it, or what it is a part of."""
    inside = set(model.modules())
    if any(held in inside or model in set(held.modules()) for held in HELD):
        raise UserError(
            "The model has a Sparsifier or a lock already. End that one first: finalize(), finalize(unfinished=True) "
            "if its training was stopped, remove_pruning() of a lock. Or load the model anew."
        )


def check_model_fits(recipe: LoopRecipe, model: PreTrainedModel) -> None:
    """Raise UserError, naming the modifier, for a model that one cannot act on."""
    for modifier in recipe.modifiers.values():
        kind = type(modifier).__name__
        try:
            modifier.check_model(model)
        except UserError as error:
            message = str(error)
            raise UserError(message if message.startswith(kind) else f"{kind}: {message}") from error


def loop_clock(recipe: LoopRecipe, steps_per_epoch: int, epochs: float | None) -> Clock:
    """Return the clock of the loop. Raises UserError if the recipe is longer, or neither has a length."""
    if isinstance(steps_per_epoch, bool) or not isinstance(steps_per_epoch, Integral) or steps_per_epoch < 1:
        raise UserError(
            f"steps_per_epoch={steps_per_epoch!r}: expected the optimizer steps of an epoch (len(loader)), an integer."
        )
    if epochs is not None and (not is_number(epochs) or not 0 < epochs < math.inf):
        raise UserError(f"epochs={epochs!r}: expected a number above 0.")
    if epochs is None and recipe.epochs is None:
        raise UserError(f"{recipe.name} has no length of its own: give epochs=NUMBER, the length of the loop.")
    if epochs is not None and recipe.has_fixed_length and recipe.epochs is not None and recipe.epochs > epochs:
        raise UserError(
            f"{recipe.name} has {recipe.epochs:g} epochs, and the loop {epochs:g}: the recipe would not be finished. "
            f"Train for {recipe.epochs:g} epochs, or change the times in the recipe."
        )
    length = epochs if epochs is not None else recipe.epochs
    assert length is not None
    return Clock.of(length, int(steps_per_epoch))


def settings_of(modifiers: Mapping[str, Modifier]) -> dict[str, dict[str, str]]:
    """Return class and fields of modifiers as text by name, which a state keeps to know its recipe again."""
    return {
        name: {"class": type(each).__name__, **{item.name: repr(getattr(each, item.name)) for item in fields(each)}}
        for name, each in modifiers.items()
    }


def check_state(state: object, modifiers: Mapping[str, Modifier], clock: Clock) -> None:
    """Raise UserError for what is no state of a Sparsifier, and for that of another recipe, length or model."""
    again = "Make the Sparsifier as it was made when the state was saved."
    if not isinstance(state, Mapping) or not set(state) >= STATE:
        raise UserError("This is no state of a Sparsifier: expected what its state_dict() returned.")
    ours, theirs = (clock.total_steps, sorted(modifiers)), (state["total_steps"], sorted(state["recipe"]))
    if ours != theirs:
        raise UserError(
            f"The state is of a recipe of {theirs[0]} steps with {', '.join(theirs[1])}; this one has {ours[0]} "
            f"steps with {', '.join(ours[1])}. {again}"
        )
    if state["steps_per_epoch"] != clock.steps_per_epoch:
        raise UserError(
            f"The state is of a loop with {state['steps_per_epoch']} steps an epoch; this one has "
            f"{clock.steps_per_epoch}. {again}"
        )
    for name, settings in settings_of(modifiers).items():
        before = state["recipe"][name]
        if changed := [f"{key} was {before.get(key)} and is {value}" for key, value in settings.items()
                       if before.get(key) != value]:  # fmt: skip
            raise UserError(f"The state is of another recipe: of {name} {', '.join(changed)}. {again}")
    for name, modifier in modifiers.items():
        if isinstance(modifier, Pruning):
            targets = {key: tuple(weight.shape) for key, weight in modifier.targets.items()}
            masks = {key: tuple(mask.shape) for key, mask in state["modifiers"][name]["masks"].items()}
            if differing := next((key for key in masks if masks[key] != targets.get(key)), None):
                here = f"is {list(targets[differing])}" if differing in targets else "is not pruned"
                raise UserError(
                    f"The state is of another model: {name} has a mask of {differing} {list(masks[differing])}, which "
                    f"{here} here."
                )


def check_pruned(modifiers: ModifierList, context: LoopContext, advice: str) -> None:
    """Raise UserError, with ``advice``, if a weight that was pruned is not zero, or is not in the model any more."""
    now = {id(parameter) for parameter in context.model.parameters()}
    for modifier in modifiers.modifiers.values():
        for name, weight in modifier.targets.items() if isinstance(modifier, Pruning) else ():
            if id(weight) not in now:
                raise UserError(
                    f"{name} is another parameter now than the one that was pruned: it was replaced in the model, by "
                    "load_state_dict(assign=True) for instance. Replace parameters first, and make the Sparsifier then."
                )
    try:
        modifiers.check(context)
    except RuntimeError as error:
        raise UserError(f"{error} {advice}") from error


def check_batches(recipe: LoopRecipe, batches: Iterable[Any] | None) -> None:
    """Raise UserError if a modifier needs training data of its own and there are none to iterate over again."""
    needing = [name for name, modifier in recipe.modifiers.items() if modifier.needs_batches]
    if needing and batches is None:
        raise UserError(
            f"{', '.join(needing)} needs training data of its own beside the loop: give batches=LOADER, the DataLoader."
        )
    if batches is not None and not isinstance(batches, Iterable):
        raise UserError(f"batches={batches!r}: expected a DataLoader, or a list of batches.")
    if batches is not None and iter(batches) is batches:
        raise UserError("batches= can be read only once: give a DataLoader or a list, which begins anew.")


def match_loop_teacher(
    recipe: LoopRecipe,
    model: nn.Module,
    teacher: TeacherFunction | str | None,
    distillation: DistillationFunction | None,
) -> tuple[LoopRecipe, TeacherFunction | None]:
    """Return the recipe and the teacher that fit each other. Raises UserError if they do not.

    ``teacher``, ``distillation``: those of ``Sparsifier``.
    """
    distils = ", ".join(recipe.distilling)
    if isinstance(teacher, str) and teacher not in ("self", "disable"):
        raise UserError(f"teacher={teacher!r}: expected a model, a function of a batch, 'self' or 'disable'.")
    if teacher is not None and not callable(teacher) and not isinstance(teacher, str):
        raise UserError(f"teacher={teacher!r}: expected a model, a function of a batch, 'self' or 'disable'.")
    if isinstance(teacher, nn.Module):
        check_apart(model, teacher)
    if teacher == "disable":
        return recipe.without_distillation(), None
    if distils and teacher is None:
        raise UserError(
            f"{recipe.name} distils ({distils}), and no teacher is given: teacher=MODEL, teacher='self', or "
            "teacher='disable' to train without it."
        )
    if not distils and (teacher is not None or distillation is not None):
        given = "teacher" if teacher is not None else "distillation"
        raise UserError(f"{given}= is given, and {recipe.name} does not distil: leave it out, or add Distillation().")
    if teacher == "self":
        return recipe, copy.deepcopy(model)
    assert not isinstance(teacher, str)
    return recipe, teacher


def check_apart(model: nn.Module, teacher: nn.Module) -> None:
    """Raise UserError if the teacher is the model, or shares weights with it: a teacher does not train."""
    if unwrapped(teacher) is model:
        raise UserError("teacher= is the model that trains: give another one, or teacher='self', a copy of it.")
    trained = {id(parameter) for parameter in model.parameters()}
    shared = next((name for name, parameter in teacher.named_parameters() if id(parameter) in trained), None)
    if shared:
        raise UserError(
            f"The teacher shares {shared} with the model that trains, and a teacher does not train. Give it weights of "
            "its own: copy.deepcopy(teacher)."
        )


def check_arguments(
    loss_function: object, distillation: object, max_grad_norm: object, scaler: object, devices: object
) -> None:
    """Raise UserError for arguments of ``Sparsifier`` that are not of their kind."""
    for name, function in (("loss_function", loss_function), ("distillation", distillation)):
        if function is not None and not callable(function):
            raise UserError(f"{name}={function!r}: expected a function.")
    if max_grad_norm is not None and (not is_number(max_grad_norm) or not 0 < max_grad_norm < math.inf):
        raise UserError(f"max_grad_norm={max_grad_norm!r}: expected a number above 0, or None for no clipping.")
    if scaler is not None and not isinstance(scaler, GradScaler):
        raise UserError(f"scaler={scaler!r}: expected a torch.amp.GradScaler.")
    if devices is not None and not hasattr(devices, "num_processes"):
        raise UserError(f"devices={devices!r}: expected an Accelerator, or what has its device and num_processes.")


def check_directory(directory: object) -> None:
    """Raise UserError for what is no name of a directory."""
    if not isinstance(directory, str | Path):
        raise UserError(f"directory={directory!r}: expected the name of a directory.")


def check_promises(modifier_list: ModifierList, context: LoopContext, steps: int) -> None:
    """Raise UserError for a modifier that has not done yet what it is to do until the end of the recipe.

    ``steps``: that the loop has made.
    """
    for name, modifier in modifier_list.modifiers.items():
        promised = modifier.zeros_at_end if isinstance(modifier, Pruning) else None
        zeros = modifier.measured_sparsity() if isinstance(modifier, Pruning) and promised is not None else 0.0
        if not modifier.target_reached(context):
            so_far = "" if promised is None else f": {zeros:.1%} of {promised:.1%} zeros"
            if not steps:
                raise UserError(
                    f"{name} has not reached its target{so_far}: step() was never called. It takes the place of "
                    "optimizer.step()."
                )
            raise UserError(
                f"{name} has not reached its target after step {steps} of {context.clock.total_steps}{so_far}. Train "
                "to the end of the recipe, or accept the model as it is with finalize(unfinished=True)."
            )
        if promised is not None and zeros < promised - SPARSITY_TOLERANCE:
            raise UserError(
                f"{name} was to end with {promised:.1%} zeros, and its weights have {zeros:.1%}: something else has "
                "written into them after the last step."
            )
