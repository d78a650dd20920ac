"""The modifiers of a run together: their order, their windows, their hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    ConstantPruning,
    Distillation,
    LearningRate,
    MagnitudePruning,
    Modifier,
    WeightDecay,
)
from sparse_xp.modifiers.modifier_list import ModifierList

CLOCK = Clock(steps_per_epoch=10, total_steps=30)


def flat(**window: Any) -> LearningRate:
    return LearningRate(shape="constant", init_lr=0.1, **window)


def test_modifiers_are_sorted_by_their_start_then_by_their_end_then_as_written():
    recipe = ModifierList(
        {
            "late": Modifier(start=2),
            "steps": Modifier(start="5 steps"),
            "b": Modifier(),
            "half": Modifier(start="50%"),
            "a": Modifier(),
            "short": Modifier(end=1),
        },
        CLOCK,
    )
    assert list(recipe.modifiers) == ["short", "b", "a", "steps", "half", "late"]


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (flat(end=2), flat(start=1), "learning rate"),
        (flat(start=1), flat(end=2), "learning rate"),
        (flat(), flat(start="10 steps", end="20 steps"), "learning rate"),
        (flat(), flat(), "learning rate"),
        (WeightDecay(), WeightDecay(weight_decay=0.1, start="90%"), "weight decay"),
        (Distillation(end=2), Distillation(start="19 steps"), "distillation"),
        (MagnitudePruning(final_sparsity=0.5), ConstantPruning(), "masks of __ENCODER__"),
        (ConstantPruning(params=["x", "y"]), ConstantPruning(params=["y", "x"]), "masks of x y"),
    ],
)
def test_two_of_one_kind_at_the_same_time_are_an_error_that_names_both(first, second, kind):
    message = rf"^recipe\.one \(epochs .*\) and recipe\.other \(epochs .*\) both drive the {kind}, and overlap"
    with pytest.raises(UserError, match=message):
        ModifierList({"recipe.one": first, "recipe.other": second}, CLOCK)


def test_the_error_states_both_windows_in_epochs():
    with pytest.raises(UserError, match=r"a \(epochs 0 to 1\.5\) and b \(epochs 1\.4 to 3\)"):
        ModifierList({"a": flat(end="50%"), "b": flat(start="14 steps")}, CLOCK)


@pytest.mark.parametrize(
    "modifiers",
    [
        {"a": flat(end=1), "b": flat(start=1, end="20 steps"), "c": flat(start=2)},  # they touch
        {"a": flat(end=1), "b": flat(start=2)},  # a gap
        {"a": flat(), "b": WeightDecay(), "c": Distillation(), "d": ConstantPruning()},  # different kinds
        {"a": ConstantPruning(params=["x"]), "b": ConstantPruning(params=["y"])},  # different weights
        {"a": Modifier(), "b": Modifier()},  # what occupies nothing may share
    ],
)
def test_windows_that_may_stand_together(modifiers):
    assert list(ModifierList(modifiers, CLOCK).modifiers) == list(modifiers)


@pytest.mark.parametrize(
    ("modifier", "message"),
    [
        (MagnitudePruning(final_sparsity=0.8, end=5), r"MagnitudePruning: end=5 is after the end of the run \(3 ep"),
        (flat(end="31 steps"), r"LearningRate: end=31 steps is after .*train\.epochs=3\.1"),
        (flat(start=2, end=1), r"LearningRate: start=2 is not before end=1 in a run of 3 epochs"),
        (Distillation(start=1, end="10 steps"), r"Distillation: start=1 is not before end=10 steps"),
        (WeightDecay(start=3), r"WeightDecay: start=3 is not before end=100%"),
        (WeightDecay(start="100%"), r"WeightDecay: start=100% is not before end=100%"),
        (ConstantPruning(start=7), r"ConstantPruning: start=7 is not before end=100%"),
    ],
)
def test_a_window_outside_the_run_or_inside_out_is_an_error_that_names_the_key(modifier, message):
    with pytest.raises(UserError, match=rf"^recipe\.modifiers\.mine: {message}"):
        ModifierList({"recipe.modifiers.mine": modifier}, CLOCK)


@pytest.mark.parametrize("total_steps", [1, 4, 9])
def test_a_fraction_that_a_short_run_rounds_to_nothing_is_no_error(total_steps):
    clock = Clock(steps_per_epoch=10, total_steps=total_steps)  # 5 % is less than half a step
    assert list(ModifierList({"a": flat(end="5%"), "b": flat(start="5%")}, clock).modifiers) == ["a", "b"]


def test_a_run_is_as_long_as_its_last_step_is():
    clock = Clock.of(1.1, 3)  # 3.3 steps, so 4: it ends at 1.33 epochs
    assert list(ModifierList({"a": flat(end=1.3)}, clock).modifiers) == ["a"]
    with pytest.raises(UserError, match=r"end=1\.4 is after the end of the run \(1\.33333 epochs\)"):
        ModifierList({"a": flat(end=1.4)}, clock)


@dataclass(kw_only=True)
class Recorder(Modifier):
    """Writes down what it is called for (the run is a list here), and changes the loss."""

    name: str
    factor: float = 1.0
    added: float = 0.0
    goal: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.number = 0

    def attach(self, run):
        run.append(f"{self.name}.attach")

    def before_step(self, run):
        run.append(f"{self.name}.before_step")

    def loss(self, run, rows, batch, outputs, loss):
        return loss * self.factor + self.added

    def before_update(self, run):
        run.append(f"{self.name}.before_update")

    def after_update(self, run):
        run.append(f"{self.name}.after_update")

    def detach(self, run):
        run.append(f"{self.name}.detach")

    def check(self, run):
        run.append(f"{self.name}.check")

    def target_reached(self, context):
        return self.goal

    def logs(self, run):
        return {self.name: self.factor}

    def state_dict(self):
        return {"number": self.number}


@pytest.mark.parametrize("hook", ["attach", "before_step", "before_update", "after_update", "detach", "check"])
def test_every_hook_reaches_every_modifier_in_order(hook):
    recipe = ModifierList({"z": Recorder(name="z", start=1), "y": Recorder(name="y")}, CLOCK)
    run: list[str] = []
    getattr(recipe, hook)(run)
    assert run == [f"y.{hook}", f"z.{hook}"]


def test_the_loss_goes_through_all_modifiers():
    recipe = ModifierList(
        {"add": Recorder(name="add", added=1.0), "double": Recorder(name="double", factor=2.0)}, CLOCK
    )
    assert recipe.loss([], [0], {}, None, 3.0) == 8.0
    assert ModifierList({}, CLOCK).loss([], [0], {}, None, 3.0) == 3.0


def test_what_adds_to_the_loss_comes_after_what_weighs_it():
    """Otherwise distillation with a hardness of 1 would weigh the added term with 0."""

    class Adder(Recorder):
        additive_loss = True

    recipe = ModifierList({"add": Adder(name="add", added=1.0), "double": Recorder(name="double", factor=2.0)}, CLOCK)
    assert recipe.loss([], [0], {}, None, 3.0) == 7.0


def test_what_changes_the_structure_attaches_first_and_detaches_last():
    class Structural(Recorder):
        changes_structure = True

    recipe = ModifierList({"early": Recorder(name="early"), "late": Structural(name="late", start=1)}, CLOCK)
    run: list[str] = []
    for hook in (recipe.attach, recipe.before_step, recipe.detach):
        hook(run)
    expected = ["late.attach", "early.attach", "early.before_step", "late.before_step", "early.detach", "late.detach"]
    assert run == expected


def test_the_parameters_of_all_modifiers():
    class Owner(Modifier):
        def parameters(self, run):
            return [*run, self.start]

    assert ModifierList({"b": Owner(start=1), "none": Modifier(), "a": Owner()}, CLOCK).parameters([7]) == [
        7,
        0.0,
        7,
        1,
    ]


@pytest.mark.parametrize(
    ("goals", "expected"), [([True, True], True), ([True, False], False), ([False, True], False), ([], True)]
)
def test_a_recipe_is_reached_when_every_modifier_is(goals, expected):
    recipe = ModifierList({str(i): Recorder(name=str(i), goal=goal) for i, goal in enumerate(goals)}, CLOCK)
    assert recipe.target_reached([]) is expected


def test_the_logs_of_all_modifiers_make_one_line():
    recipe = ModifierList({"a": Recorder(name="loss_a", factor=2.0), "b": Recorder(name="loss_b", factor=3.0)}, CLOCK)
    assert recipe.logs([]) == {"loss_a": 2.0, "loss_b": 3.0}


def test_the_state_of_each_modifier_is_kept_under_its_name():
    saved = {"a": Recorder(name="a"), "b": Recorder(name="b", start=1), "quiet": flat()}
    saved["a"].number, saved["b"].number = 5, 7
    state = ModifierList(saved, CLOCK).state_dict()
    assert state == {"a": {"number": 5}, "b": {"number": 7}, "quiet": {}}

    loaded = {"b": Recorder(name="b", start=1), "quiet": flat(), "a": Recorder(name="a")}
    ModifierList(loaded, CLOCK).load_state_dict(state)
    assert (loaded["a"].number, loaded["b"].number) == (5, 7)
