"""Frozen parameters and values set by hand, in simulated runs with AdamW's momentum and weight decay."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.modifiers import Modifier, SetParam, TrainableParams
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.training.optimizer import parameter_groups
from tests.tiny import make_bert, make_run

HEAD = ["classifier.weight", "classifier.bias"]


def bert_run(modifiers: dict[str, Modifier], total_steps: int = 6, processes: int = 1) -> Any:
    model = make_bert()
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.01, weight_decay=0.1, fused=True)
    accelerator = SimpleNamespace(num_processes=processes)
    run = make_run(2, total_steps, model=model, optimizer=optimizer, accelerator=accelerator)
    run.modifier_list = ModifierList(modifiers, run.clock)
    run.modifier_list.attach(run)
    return run


def step(run: Any) -> dict[str, torch.Tensor]:
    """Make one step as the loop does. Returns the weights."""
    number = run.progress.step
    run.modifier_list.before_step(run)
    rows = torch.randint(5, 20, (4, 6), generator=torch.Generator().manual_seed(number))
    outputs = run.model(input_ids=rows, labels=rows[:, 0] % 2)
    run.modifier_list.loss(run, [], {}, outputs, outputs.loss).backward()
    run.modifier_list.before_update(run)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.modifier_list.after_update(run)
    run.progress.step = number + 1
    return {name: weight.detach().clone() for name, weight in run.model.named_parameters()}


def moved(run: Any, steps: int) -> list[set[str]]:
    """The parameters that each step changes."""
    found, before = [], {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    for _ in range(steps):
        after = step(run)
        found.append({name for name in after if not torch.equal(before[name], after[name])})
        before = after
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_frozen_from_start_to_end_and_then_free(processes):
    # 0.7 epochs are 1.4 steps: from the first step at or after it, 2, to the first at or after 1.6 epochs, 4
    run = bert_run({"freeze": TrainableParams(params=HEAD, trainable=False, start=0.7, end=1.6)}, processes=processes)
    everything = {name for name, _ in run.model.named_parameters()}
    found = moved(run, 6)
    assert [names & set(HEAD) for names in found] == [set(HEAD)] * 2 + [set()] * 2 + [set(HEAD)] * 2
    assert [names - set(HEAD) for names in found] == [everything - set(HEAD)] * 6
    assert all(weight.requires_grad for weight in run.model.parameters())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_frozen_parameter_loses_its_gradient(processes):
    run = bert_run({"freeze": TrainableParams(params=HEAD, trainable=False)}, processes=processes)
    for name in HEAD:
        run.model.get_parameter(name).grad = torch.ones_like(run.model.get_parameter(name))
    run.modifier_list.before_step(run)
    # DDP needs the flag and the gradient: there the gradient is dropped before it is clipped and used.
    assert {run.model.get_parameter(name).requires_grad for name in HEAD} == {processes == 2}
    run.modifier_list.before_update(run)
    assert [run.model.get_parameter(name).grad for name in HEAD] == [None, None]


def test_two_processes_see_the_same_numbers_as_one():
    window = {"start": "1 step", "end": "4 steps"}
    runs = [bert_run({"freeze": TrainableParams(params=HEAD, trainable=False, **window)}, processes=n) for n in (1, 2)]
    for _ in range(6):
        one, two = (step(run) for run in runs)
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_window_inside_another():
    """All is frozen, but for the head from step 1 to 3: the later start decides, and the earlier has it back."""
    run = bert_run(
        {
            "thaw": TrainableParams(params=HEAD, trainable=True, start="1 step", end="3 steps"),
            "freeze": TrainableParams(params=["re:(?!bert.pooler)"], trainable=False, end="5 steps"),
        }
    )
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    everything = {name for name, _ in run.model.named_parameters()}
    expected = [pooler, pooler | set(HEAD), pooler | set(HEAD), pooler, pooler, everything]
    assert moved(run, 6) == expected


def test_original_flags_are_restored():
    run = bert_run({})
    run.model.classifier.bias.requires_grad_(False)
    run.modifier_list = ModifierList({"freeze": TrainableParams(params=HEAD, trainable=False)}, run.clock)
    run.modifier_list.attach(run)
    for _ in range(6):
        step(run)
    assert (run.model.classifier.weight.requires_grad, run.model.classifier.bias.requires_grad) == (True, False)


@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_frozen_runs_resume_exactly(at):
    def modifiers() -> dict[str, Modifier]:
        return {
            "freeze": TrainableParams(params=HEAD, trainable=False, start=0, end="4 steps"),
            "fill": SetParam(params=["classifier.bias"], val=0.25, start="3 steps"),
        }

    straight, broken = bert_run(modifiers()), bert_run(modifiers())
    for _ in range(6):
        expected = step(straight)
    for _ in range(at):
        step(broken)
    resumed = bert_run(modifiers())
    resumed.model.load_state_dict(copy.deepcopy(broken.model.state_dict()))
    resumed.optimizer.load_state_dict(copy.deepcopy(broken.optimizer.state_dict()))
    resumed.modifier_list.load_state_dict(broken.modifier_list.state_dict())
    resumed.progress.step = at
    for _ in range(6 - at):
        found = step(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_nothing_left_to_train():
    run = bert_run({"freeze": TrainableParams(params=["__ALL__"], trainable=False, start="1 step")})
    step(run)
    with pytest.raises(
        UserError, match=r"freezes every trainable parameter at step 1\. Name fewer parameters than __ALL__"
    ):
        step(run)


def test_set_param_fills_once():
    run = bert_run({"fill": SetParam(params=HEAD, val=0.5, start=0.7)})  # 1.4 steps
    seen = []
    for number in range(5):
        run.modifier_list.before_step(run)
        seen.append({run.model.classifier.weight.unique().numel() == 1, run.model.classifier.bias[0].item() == 0.5})
        if number == 2:
            assert run.model.classifier.weight.eq(0.5).all()
        step_without_before(run)
    assert seen == [{False}, {False}, {True}, {False}, {False}]


def step_without_before(run: Any) -> None:
    for name in HEAD:
        weight = run.model.get_parameter(name)
        weight.data.add_(torch.linspace(0.1, 0.2, weight.numel()).view_as(weight))
    run.progress.step += 1


@pytest.mark.parametrize(
    "kind", [lambda **more: TrainableParams(trainable=False, **more), lambda **m: SetParam(val=0.0, **m)]
)
def test_patterns_must_match_if_strict(kind):
    params = ["re:classifier.*", "classifer.bias"]
    with pytest.raises(UserError, match=r"No parameter matches 'classifer\.bias'.* Did you mean 'classifier\.bias'"):
        bert_run({"it": kind(params=params)})
    loose = kind(params=params, params_strict=False)
    bert_run({"it": loose})
    assert list(loose.targets) == HEAD
    with pytest.raises(UserError, match="not a valid regular expression"):
        bert_run({"it": kind(params=["re:(("], params_strict=False)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainableParams(trainable=True), r"TrainableParams\.params is empty: name parameters"),
        (lambda: SetParam(val=1.0), r"SetParam\.params is empty"),
        (lambda: SetParam(params=["x"], val=float("nan")), r"SetParam\.val=nan: expected a finite number"),
        (lambda: SetParam(params=["x"], val=0.0, end=2), r"SetParam\.end=2: SetParam acts once, at start=0\.0"),
        (lambda: TrainableParams(params=["x"], trainable=True, start="soon"), r"TrainableParams\.start='soon'"),
    ],
)
def test_refusals_name_the_key(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_moment_behind_the_last_step_is_refused():
    with pytest.raises(UserError, match=r"SetParam: start=2\.9 is after the beginning of the last step \(epoch 2\.5"):
        bert_run({"fill": SetParam(params=HEAD, val=0.0, start=2.9)})


def test_the_same_parameters_at_the_same_time_are_refused():
    two = {name: TrainableParams(params=HEAD, trainable=False) for name in ("one", "other")}
    with pytest.raises(UserError, match=r"both drive the training of classifier\.bias classifier\.weight"):
        bert_run(two)
