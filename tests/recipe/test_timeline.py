"""What ``show`` says holds in a step is what the hooks of training do in it, step for step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sparse_xp.clock import Clock
from sparse_xp.modifiers import (
    ACDCPruning,
    ConstantPruning,
    Distillation,
    LearningRate,
    MagnitudePruning,
    Quantization,
    ScheduledLearningRate,
    SetLearningRate,
    WeightDecay,
)
from sparse_xp.modifiers.display import changed_fields
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.recipe.view.timeline import Timeline
from tests.tiny import make_bert, make_run

CLOCK = Clock(steps_per_epoch=10, total_steps=60)


def line_of(clock: Clock = CLOCK, rate: float | None = None, **modifiers) -> Timeline:
    return Timeline("mine", clock, ModifierList(modifiers, clock), rate)


RATES = {
    "two segments": {
        "a": LearningRate(init_lr=0.1, final_lr=0.0, end=2.5),
        "b": LearningRate(shape="cosine", init_lr=0.2, final_lr=0.1, start=2.5),
    },
    "a gap and settings": {
        "a": LearningRate(shape="cyclic_linear", init_lr=0.1, final_lr=0.0, start=0.55, end=2, cycle=0.5),
        "set": SetLearningRate(learning_rate=0.3, start=2),
        "again": SetLearningRate(learning_rate=0.4, start="35 steps"),
        "b": LearningRate(init_lr=0.2, final_lr=0.1, start=4, end=4),
    },
    "schedulers": {
        "a": ScheduledLearningRate(lr_class="StepLR", lr_kwargs={"step_size": 0.5, "gamma": 0.5}, init_lr=0.5, end=2),
        "b": ScheduledLearningRate(
            lr_class="MultiStepLR", lr_kwargs={"milestones": [3, 3.5], "gamma": 0.1}, init_lr=0.5, start=2.5, end=4
        ),
        "c": ScheduledLearningRate(
            lr_class="CosineAnnealingWarmRestarts",
            lr_kwargs={"lr_min": 0.01, "cycle_epochs": 0.7},
            init_lr=0.5,
            start=4.15,
        ),
    },
}


@pytest.mark.parametrize("modifiers", RATES.values(), ids=RATES)
def test_the_rate_of_every_step(modifiers):
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.7}])
    run = make_run(CLOCK.steps_per_epoch, CLOCK.total_steps, optimizer=optimizer)
    line, seen = line_of(rate=0.7, **modifiers), []
    for run.progress.step in range(CLOCK.total_steps):
        line.modifier_list.before_step(run)
        seen.append(optimizer.param_groups[0]["lr"])
    assert [line.rate_at(step) for step in range(CLOCK.total_steps)] == seen


def test_before_any_modifier_has_written_the_rate_is_unknown():
    line = line_of(a=SetLearningRate(learning_rate=0.3, start=2))
    assert [line.rate_at(step) for step in (0, 19, 20, 59)] == [None, None, 0.3, 0.3]


PRUNED = {
    "cubic": MagnitudePruning(final_sparsity=0.75, init_sparsity=0.125, start=1, end=4, update_frequency=0.5),
    "between steps": MagnitudePruning(final_sparsity=0.75, start=0.55, end=3.33, update_frequency=0.37),
    "to the end": MagnitudePruning(final_sparsity=0.75, inter_func="linear", update_frequency=0.9),
    "dropped": MagnitudePruning(final_sparsity=0.75, end=3, update_frequency=1, leave_enabled=False),
    "2:4": MagnitudePruning(final_sparsity=0.5, start=1, end=2, mask_type="2:4", init_sparsity=0.5),
    "acdc": ACDCPruning(compression_sparsity=0.75, start=0.5, end=5, update_frequency=0.7, global_sparsity=False),
    "acdc dropped": ACDCPruning(
        compression_sparsity=0.75, end=4, update_frequency=0.5, leave_enabled=False, global_sparsity=False
    ),
}


@pytest.mark.parametrize("modifier", PRUNED.values(), ids=PRUNED)
def test_the_sparsity_of_every_step(modifier):
    model = make_bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    run = make_run(CLOCK.steps_per_epoch, CLOCK.total_steps, model=model, optimizer=optimizer)
    modifier.attach(run)
    line = line_of(p=modifier)
    assert set(line.levels["p"]) <= set(range(CLOCK.total_steps))
    for run.progress.step in range(CLOCK.total_steps):
        modifier.before_step(run)
        modifier.after_update(run)
        scheduled = line.level("p", run.progress.step)
        assert bool(modifier.masks) <= (scheduled is not None)
        for name, weight in modifier.targets.items():
            mask = modifier.masks.get(name)
            pruned = 0 if mask is None else int((~mask).sum())
            assert pruned == round(weight.numel() * scheduled), (run.progress.step, name)
        assert modifier.target_reached(run) or run.progress.step < CLOCK.total_steps - 1


def test_where_the_weights_decide_nothing_is_said_but_the_end():
    line = line_of(
        p=MagnitudePruning(final_sparsity=0.8, init_sparsity="__FROM_PARAM__", start=1, end=3),
        kept=ConstantPruning(params=["x"], start=2),
    )
    assert [line.level("p", step) for step in (0, 9, 10, 29, 30, 59)] == [0.0, 0.0, None, None, 0.8, 0.8]
    assert [line.level("kept", step) for step in (19, 20, 59)] == [0.0, None, None]


def test_quantization_and_distillation():
    line = line_of(q=Quantization(start=2, observers_end=4), d=Distillation(hardness=0.7, start=1, end=3))
    moments = line.moments()
    assert [moment.epoch for moment in moments] == [0, 1, 2, 3, 4, 5, 5.9]
    assert [moment.quantization for moment in moments] == ["off", "off", "training", "training", *["frozen"] * 3]
    assert [moment.hardness for moment in moments] == [0.0, 0.7, 0.7, 0.7, 0.0, 0.0, 0.0]
    assert line_of(w=WeightDecay()).moments()[0].quantization is None
    two = line_of(a=Distillation(hardness=0.5, end=2), b=Distillation(hardness=0.8, start=2))
    assert [two.moment(step).hardness for step in (19, 20, 21)] == [0.5, 0.9, 0.8]
    after = line_of(q=Quantization(calibration_rows=8))
    assert ({moment.quantization for moment in after.moments()}, after.modifiers["q"].spans(CLOCK)) == ({"off"}, [])


@pytest.mark.parametrize(("epochs", "every", "rows"), [(0.1, 1, 1), (1, 1, 2), (40, 1, 41), (41, 2, 22), (999, 50, 21)])
def test_a_long_run_is_told_in_some_forty_lines(epochs, every, rows):
    moments = line_of(Clock.of(epochs, 10)).moments()
    assert len(moments) == rows
    assert rows < 3 or moments[1].epoch == every


def test_spans():
    line = line_of(
        p=MagnitudePruning(final_sparsity=0.8, start=1, end=3),
        to_the_end=MagnitudePruning(final_sparsity=0.8, params=["x"]),
        gone=MagnitudePruning(final_sparsity=0.8, params=["y"], end=3, leave_enabled=False),
        kept=ConstantPruning(params=["z"], start=2),
        q=Quantization(start=2, observers_end=4),
        d=Distillation(end=3),
    )
    assert {name: modifier.spans(line.clock) for name, modifier in line.modifiers.items()} == {
        "p": [(1, 3, "="), (3, 6, "-")],
        "to_the_end": [(0, 6, "=")],
        "gone": [(0, 3, "=")],
        "kept": [(2, 6, "-")],
        "q": [(2, 4, "="), (4, 6, "-")],
        "d": [(0, 3, "=")],
    }


def test_changed_fields():
    assert changed_fields(WeightDecay()) == {}
    assert changed_fields(MagnitudePruning(final_sparsity=0.8, start=1)) == {"start": 1, "final_sparsity": 0.8}
