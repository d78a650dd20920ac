"""Pruning through simulated runs: a real BERT, real gradients, and AdamW with momentum and weight decay."""

from __future__ import annotations

import copy
import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning, MagnitudePruning
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.modifiers.pruning import Pruning
from tests.simulation import bert_run, matrix_run, num_zeros, simulate, through_a_file, updates
from tests.tiny import make_run

# The schedule


@pytest.mark.parametrize(
    ("inter_func", "expected"),  # zeros of 64 and of 128 weights at the five updates
    [
        # levels 0, 0.2, 0.4, 0.6, 0.8
        ("linear", [(0, 0), (13, 26), (26, 51), (38, 77), (51, 102)]),
        # 0.8 * (1 - (1 - x) ** 3): 0, 0.4625, 0.7, 0.7875, 0.8
        ("cubic", [(0, 0), (30, 59), (45, 90), (50, 101), (51, 102)]),
        # 0.8 * (1 - (1 - x) ** (1/3)): 0, 0.0731515, 0.1650396, 0.2960316, 0.8
        ("inverse_cubic", [(0, 0), (5, 9), (11, 21), (19, 38), (51, 102)]),
    ],
)
def test_sparsity_follows_the_schedule_and_masks_hold_in_between(inter_func, expected):
    run = bert_run(4, 11)
    modifier = MagnitudePruning(final_sparsity=0.8, inter_func=inter_func, end=2.0, update_frequency=0.5)
    modifier.attach(run)
    seen = []
    for step in simulate(run, modifier):
        seen.append(num_zeros(modifier))
        for name, mask in modifier.masks.items():
            assert modifier.targets[name][~mask].eq(0).all(), f"{name} at step {step}"
        modifier.check(run)
    by_update = [{64: {small}, 128: {large}} for small, large in expected]
    # Updates at steps 0, 2, 4, 6, 8; the masks stay as they are to the end of the run.
    assert seen == [by_update[min(step // 2, 4)] for step in range(11)]


def test_the_smallest_weights_go():
    weight = torch.tensor([[0.5, -0.1, 0.3, -0.9], [0.2, 0.8, -0.7, 0.4]])
    run = matrix_run(weight)
    modifier = MagnitudePruning(final_sparsity=0.5, params=["weight"])
    modifier.attach(run)
    modifier.before_step(run)
    assert run.model.weight.equal(weight * torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]]))


def test_init_sparsity_is_reached_at_once():
    run = bert_run(4, 5)
    modifier = MagnitudePruning(
        final_sparsity=0.75, init_sparsity=0.5, inter_func="linear", end="4 steps", update_frequency="2 steps"
    )
    modifier.attach(run)
    seen = [num_zeros(modifier)[64] for _ in simulate(run, modifier)]
    assert seen == [{32}, {32}, {40}, {40}, {48}]  # 0.5, 0.625, 0.75


def test_pruning_up_to_the_end_of_the_run_lands_on_final_at_the_last_step():
    run = bert_run(4, 8)
    modifier = MagnitudePruning(final_sparsity=0.8, inter_func="linear", end="100%", update_frequency="1 step")
    modifier.attach(run)
    seen, reached = [], []
    for _ in simulate(run, modifier):
        seen.append(num_zeros(modifier)[64])
        reached.append(modifier.target_reached(run))
    # 64 * 0.8 * step / 8, as in a longer run and as in SparseML, but for the last step
    assert seen == [{0}, {6}, {13}, {19}, {26}, {32}, {38}, {51}]
    assert reached == [False] * 7 + [True]
    assert modifier.logs(run) == {"sparsity": pytest.approx((4 * 51 + 2 * 102) / 512)}


def test_a_ramp_that_ends_with_the_run_has_the_levels_of_sparseml():
    modifier = MagnitudePruning(final_sparsity=0.8, start=0.5, end=2.0, update_frequency=0.125)
    levels = modifier.levels_by_step(Clock(8, 16))
    zeros = [round(500 * (levels[step] or 0.0)) for step in range(4, 16)]
    # recorded from the GMPruningModifier of SparseML 1.7 on a matrix of 500 weights
    assert zeros == [0, 92, 169, 231, 281, 321, 350, 371, 385, 394, 398, 400]


def test_a_frequency_that_does_not_divide_the_window_still_lands_on_final():
    run = bert_run(10, 12)
    modifier = MagnitudePruning(final_sparsity=0.8, inter_func="linear", end="9 steps", update_frequency="4 steps")
    modifier.attach(run)
    seen = [num_zeros(modifier)[64] for _ in simulate(run, modifier)]
    # 64 * 0.8 * 4/9 = 22.8 and * 8/9 = 45.5, then the last update at the end itself
    assert seen == [{0}] * 4 + [{23}] * 4 + [{46}] + [{51}] * 3


def test_an_end_between_two_steps_lands_on_final_at_the_next():
    run = bert_run(4, 12)
    modifier = MagnitudePruning(final_sparsity=0.8, inter_func="linear", end=1.9, update_frequency=1.0)
    modifier.attach(run)
    seen = [num_zeros(modifier)[64] for _ in simulate(run, modifier)]
    assert seen == [{0}] * 4 + [{27}] * 4 + [{51}] * 4  # 64 * 0.8 / 1.9 = 26.9


def test_a_window_within_one_step_prunes_to_final_at_once():
    run = bert_run(4, 4)
    modifier = MagnitudePruning(final_sparsity=0.5, start="3 steps", end="100%")
    modifier.attach(run)
    assert [num_zeros(modifier)[64] for _ in simulate(run, modifier)] == [{0}, {0}, {0}, {32}]


def test_a_window_behind_the_beginning_of_the_last_step_is_refused():
    run = bert_run(4, 4)  # the last step begins at 0.75: nothing would ever be pruned
    modifier = MagnitudePruning(final_sparsity=0.5, start=0.9, end=1.0)
    with pytest.raises(UserError, match=r"sparsity: MagnitudePruning.*start=0\.9"):
        ModifierList({"sparsity": modifier}, run.clock)


def test_nothing_is_masked_before_the_start():
    run, untouched = bert_run(4, 6), bert_run(4, 6)
    modifier = MagnitudePruning(final_sparsity=0.8, start="3 steps", update_frequency="1 step")
    modifier.attach(run)
    for _, step in zip(simulate(untouched, Pruning()), simulate(run, modifier), strict=True):
        if step < 3:
            assert modifier.masks == {}
            assert not modifier.target_reached(run)
            torch.testing.assert_close(run.model.state_dict(), untouched.model.state_dict(), rtol=0, atol=0)
    assert modifier.target_reached(run)


@pytest.mark.parametrize(
    ("steps_per_epoch", "total_steps", "fields", "expected"),
    [
        (4, 16, {"start": 1, "end": 3, "update_frequency": 0.3}, [4, 6, 8, 10, 12]),
        (10, 12, {"end": "9 steps", "update_frequency": "4 steps"}, [0, 4, 8, 9]),
        (10, 12, {"end": "100%", "update_frequency": "50%"}, [0, 6, 11]),
        (10, 12, {"end": "5 steps", "update_frequency": 3}, [0, 5]),
        # Twice 0.1 and once more is not 0.3 in floats: no step may be lost to that.
        (10, 12, {"end": "9 steps", "update_frequency": "1 step"}, list(range(10))),
        (10, 12, {"end": "9 steps", "update_frequency": 0.1}, list(range(10))),
        (60, 70, {"end": 1, "update_frequency": 0.05}, list(range(0, 61, 3))),
        (49, 100, {"end": "98 steps", "update_frequency": "7 steps"}, list(range(0, 99, 7))),
    ],
)
def test_updates_keep_their_distance(steps_per_epoch, total_steps, fields, expected):
    run = matrix_run(torch.rand(4, 4), steps_per_epoch, total_steps)
    assert updates(run, MagnitudePruning(final_sparsity=0.5, params=["weight"], **fields)) == expected


def test_updates_of_the_squad_recipe():  # 0.01 * 5533 = 55.33
    run = matrix_run(torch.rand(4, 4), 5533, 1700)
    modifier = MagnitudePruning(final_sparsity=0.5, params=["weight"], end="100%", update_frequency=0.01)
    assert updates(run, modifier) == [*range(0, 1681, 56), 1699]


# Enforcement


def test_the_gradient_of_pruned_weights_is_zero_before_the_update():
    run = bert_run(1, 1)
    modifier = MagnitudePruning(final_sparsity=0.5)
    modifier.attach(run)
    modifier.before_step(run)
    rows = torch.tensor([[2, 5, 6, 3]])
    run.model(input_ids=rows, labels=torch.tensor([1])).loss.backward()
    before = {name: weight.grad.clone() for name, weight in modifier.targets.items()}
    modifier.before_update(run)
    for name, mask in modifier.masks.items():
        gradient = modifier.targets[name].grad
        assert gradient[~mask].eq(0).all()
        assert gradient[mask].equal(before[name][mask])
    assert any(gradient[~modifier.masks[name]].ne(0).any() for name, gradient in before.items())


def test_momentum_moves_a_pruned_weight_and_is_undone():
    run = bert_run(1, 4)
    modifier = MagnitudePruning(final_sparsity=0.5, start="2 steps", end="3 steps")
    modifier.attach(run)
    steps = simulate(run, modifier)
    assert [next(steps), next(steps)] == [0, 1]
    run.progress.step = 3
    modifier.before_step(run)
    weight = modifier.targets["bert.encoder.layer.0.output.dense.weight"]
    mask = modifier.masks["bert.encoder.layer.0.output.dense.weight"]
    weight.grad = torch.zeros_like(weight)
    run.optimizer.step()
    assert weight[~mask].ne(0).any()  # Adam goes on in the old direction without any gradient
    with pytest.raises(RuntimeError, match="no longer zero"):
        modifier.check(run)
    modifier.after_update(run)
    assert weight[~mask].eq(0).all()
    modifier.check(run)


def test_check_names_the_tensor_the_number_and_the_step():
    run = bert_run(4, 8)
    modifier = MagnitudePruning(final_sparsity=0.5, end=1)
    modifier.attach(run)
    list(simulate(run, modifier))
    modifier.check(run)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    pruned = (~modifier.masks[name]).nonzero()
    for row, column in pruned[:2].tolist():
        modifier.targets[name].data[row, column] = 1e-30
    with pytest.raises(RuntimeError, match=rf"^2 pruned weights of {name} are no longer zero at step 7"):
        modifier.check(run)


@pytest.mark.parametrize("other", ["bert.pooler.dense.weight", "classifier.weight"])
def test_only_the_targets_are_pruned(other):
    run = bert_run(1, 2)
    modifier = MagnitudePruning(final_sparsity=0.8, params=["re:.*attention.*query.weight"])
    modifier.attach(run)
    list(simulate(run, modifier))
    assert list(modifier.targets) == ["bert.encoder.layer.0.attention.self.query.weight"]
    zeros = {name: int((parameter == 0).sum()) for name, parameter in run.model.named_parameters()}
    assert zeros.pop("bert.encoder.layer.0.attention.self.query.weight") == 51
    assert zeros[other] == 0


# Global and per tensor


@pytest.mark.parametrize(
    ("global_sparsity", "expected"),
    [
        (True, [[[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 2], [3, 4], [5, 6], [7, 8]]]),
        (False, [[[0, 0, 0, 0], [5, 6, 7, 8]], [[0, 0], [0, 0], [5, 6], [7, 8]]]),
    ],
)
def test_global_and_per_tensor(global_sparsity, expected):
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    model[0].weight.data = torch.arange(1.0, 9).view(2, 4) / 100  # all smaller than any of the second
    model[1].weight.data = torch.arange(1.0, 9).view(4, 2)
    run = make_run(1, 1, model=model)
    modifier = MagnitudePruning(final_sparsity=0.5, params=["re:.*weight"], global_sparsity=global_sparsity)
    modifier.attach(run)
    modifier.before_step(run)
    assert [(model[0].weight * 100).round().tolist(), model[1].weight.tolist()] == expected


def test_global_sparsity_follows_the_schedule_over_all_targets():
    run = bert_run(4, 8)
    modifier = MagnitudePruning(
        final_sparsity=0.8, inter_func="linear", end="4 steps", update_frequency="1 step", global_sparsity=True
    )
    modifier.attach(run)
    seen = [sum(int((w == 0).sum()) for w in modifier.targets.values()) for _ in simulate(run, modifier)]
    assert seen == [0, 102, 205, 307, 410, 410, 410, 410]  # of 512: 102.4, 204.8, 307.2, 409.6


# Patterns

MATRIX = torch.tensor(
    [
        [0.9, -0.1, 0.2, 0.3, 0.05, 0.05, 0.05, 0.05],
        [0.4, 0.4, 0.4, 0.4, -1, 0, 0, 0],
        [0.01, 0.02, 0.03, 0.04, 0.5, 0.5, 0.5, 0.6],
        [0.3, -0.3, 0.3, -0.3, 0.2, 0.2, 0.2, 0.2],
    ]
)


@pytest.mark.parametrize(
    ("mask_type", "sparsity", "expected"),  # recorded from SparseML 1.x
    [
        ("unstructured", 0.5, "10110000 11111000 00001111 11110000"),
        ("block4", 0.5, "11110000 11110000 00001111 11110000"),
        ([1, 4], 0.5, "11110000 11110000 00001111 11110000"),
        ("[1, 4]", 0.25, "11110000 11111111 00001111 11111111"),  # block means 0.025 and 0.05 go
        ("2:4", 0.5, "10010011 00111001 00110011 00110011"),
        ("1:4", 0.75, "10000001 00011000 00010001 00010001"),
    ],
)
def test_patterns(mask_type, sparsity, expected):
    run = matrix_run(MATRIX)
    modifier = MagnitudePruning(final_sparsity=sparsity, mask_type=mask_type, params=["weight"])
    modifier.attach(run)
    modifier.before_step(run)
    mask = modifier.masks["weight"]
    assert " ".join("".join(str(int(keep)) for keep in row) for row in mask) == expected
    assert run.model.weight.equal(MATRIX * mask)


@pytest.mark.parametrize(
    ("mask_type", "expected"),  # blocks of 4 that are zero, of the 16 in 64 weights: 16 * 0.75 * (0, 1/3, 2/3, 1)
    [("block4", [0, 4, 8, 12]), ([1, 4], [0, 4, 8, 12])],
)
def test_blocks_go_as_wholes_all_along_the_schedule(mask_type, expected):
    run = bert_run(3, 4)
    modifier = MagnitudePruning(
        final_sparsity=0.75, inter_func="linear", mask_type=mask_type, end=1, update_frequency="1 step"
    )
    modifier.attach(run)
    weight, seen = run.model.bert.encoder.layer[0].attention.self.query.weight, []
    for _ in simulate(run, modifier):
        zeros_of_block = (weight.view(-1, 4) == 0).sum(1)
        assert set(zeros_of_block.tolist()) <= {0, 4}
        seen.append(int((zeros_of_block == 4).sum()))
    assert seen == expected


def test_n_m_holds_in_every_run_of_m_once_it_is_on():
    run = bert_run(3, 6)
    modifier = MagnitudePruning(final_sparsity=0.5, mask_type="2:4", end=1, update_frequency="1 step")
    modifier.attach(run)
    seen = []
    for _ in simulate(run, modifier):
        seen.append({int(n) for w in modifier.targets.values() for n in (w.reshape(-1, 4) == 0).sum(1)})
    assert seen == [{0}, {2}, {2}, {2}, {2}, {2}]  # at level 0 there is nothing to prune


def test_a_pattern_that_the_weights_do_not_divide_into_is_a_user_error_before_training_starts():
    run = bert_run(4, 8)
    with pytest.raises(UserError, match=r"mask_type=\[1, 5\]: .*query\.weight' .*does not divide into blocks \[1, 5\]"):
        MagnitudePruning(final_sparsity=0.5, mask_type=[1, 5]).attach(run)


# Resuming


def test_an_interrupted_run_continues_identically():
    def make() -> tuple[Any, MagnitudePruning]:
        run = bert_run(4, 12)
        modifier = MagnitudePruning(final_sparsity=0.8, start="1 step", end="10 steps", update_frequency="3 steps")
        modifier.attach(run)
        return run, modifier

    straight_run, straight = make()
    straight_zeros = [num_zeros(straight) for _ in simulate(straight_run, straight)]

    run, modifier = make()
    for step in simulate(run, modifier):
        if step == 5:  # between the updates at steps 4 and 7
            break
    file = io.BytesIO()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "recipe": modifier.state_dict()}
    torch.save(state, file)

    file.seek(0)
    state = torch.load(file, weights_only=True)
    run, modifier = make()
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    modifier.load_state_dict(state["recipe"])
    assert [num_zeros(modifier) for _ in simulate(run, modifier, first=6)] == straight_zeros[6:]
    torch.testing.assert_close(run.model.state_dict(), straight_run.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(modifier.masks, straight.masks, rtol=0, atol=0)
    assert modifier.state_dict()["last_update"] == straight.state_dict()["last_update"]
    assert modifier.target_reached(run)


# Keeping the zeros of a sparse checkpoint


def make_sparse(run: Any, modulus: int = 2) -> dict[str, Tensor]:
    """Set every ``modulus``-th encoder weight to zero; returns where."""
    zeros = {}
    for name, weight in run.model.named_parameters():
        if ".layer." in name and weight.ndim == 2:
            zeros[name] = (torch.arange(weight.numel()) % modulus == 0).view_as(weight)
            weight.data[zeros[name]] = 0.0
    return zeros


def test_constant_pruning_keeps_exactly_the_zeros():
    run = bert_run(4, 8)
    zeros = make_sparse(run)
    assert len(zeros) == 6
    dense = copy.deepcopy(run.model.classifier.weight)
    modifier = ConstantPruning(min_sparsity=0.5)
    modifier.attach(run)
    for _ in simulate(run, modifier):
        for name, where in zeros.items():
            assert (modifier.targets[name] == 0).equal(where)  # no zero lost, none gained
        modifier.check(run)
    assert modifier.target_reached(run)
    assert modifier.logs(run) == {"sparsity": 0.5}
    assert not run.model.classifier.weight.equal(dense)


def test_constant_pruning_does_not_freeze_a_weight_that_passes_through_zero():
    run = bert_run(4, 4)
    zeros = make_sparse(run)
    modifier = ConstantPruning()
    modifier.attach(run)
    name = "bert.encoder.layer.0.output.dense.weight"
    for step in simulate(run, modifier):
        if step == 1:
            modifier.targets[name].data[0, 1] = 0.0  # not a zero of the checkpoint
    assert (modifier.targets[name] == 0).equal(zeros[name])


def test_constant_pruning_resumes_with_its_masks_and_not_with_the_zeros_of_the_moment():
    run = bert_run(4, 4)
    zeros = make_sparse(run)
    modifier = ConstantPruning()
    modifier.attach(run)
    list(simulate(run, modifier))
    file = io.BytesIO()
    torch.save(modifier.state_dict(), file)
    file.seek(0)

    resumed = ConstantPruning()
    resumed.attach(run)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.targets["bert.encoder.layer.0.output.dense.weight"].data[0, 1] = 0.0
    resumed.before_step(run)
    assert {name: (~mask).tolist() for name, mask in resumed.masks.items()} == {
        name: where.tolist() for name, where in zeros.items()
    }


def test_constant_pruning_refuses_a_dense_checkpoint_by_its_name():
    run = bert_run(4, 8)
    with pytest.raises(UserError, match=r"some/checkpoint has 0\.0% zeros in __ENCODER__, expected at least 5%"):
        ConstantPruning().attach(run)


@pytest.mark.parametrize(("min_sparsity", "fits"), [(0.5, True), (0.504, True), (0.51, False), (0.8, False)])
def test_constant_pruning_wants_the_sparsity_it_was_promised(min_sparsity, fits):
    run = bert_run(4, 8)
    make_sparse(run)
    modifier = ConstantPruning(min_sparsity=min_sparsity)
    if fits:
        modifier.attach(run)
        assert len(modifier.targets) == 6
    else:
        with pytest.raises(UserError, match=r"some/checkpoint has 50\.0% zeros"):
            modifier.attach(run)


# Refusals


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (
            MagnitudePruning,
            {"final_sparsity": 0.0},
            r"MagnitudePruning\.final_sparsity=0\.0: expected a fraction strictly",
        ),
        (MagnitudePruning, {"final_sparsity": 80}, r"MagnitudePruning\.final_sparsity=80: .*such as 0\.8 for 80 %"),
        (MagnitudePruning, {"final_sparsity": float("nan")}, r"MagnitudePruning\.final_sparsity=nan"),
        (MagnitudePruning, {"init_sparsity": 0.9}, r"MagnitudePruning\.init_sparsity=0\.9: .*final_sparsity=0\.8"),
        (MagnitudePruning, {"init_sparsity": -0.1}, r"MagnitudePruning\.init_sparsity=-0\.1"),
        (MagnitudePruning, {"init_sparsity": "FROM_PARAM"}, r"init_sparsity=FROM_PARAM: .* or __FROM_PARAM__ for"),
        (MagnitudePruning, {"init_sparsity": True}, r"MagnitudePruning\.init_sparsity=True: expected a fraction"),
        (MagnitudePruning, {"inter_func": "cubik"}, r"MagnitudePruning\.inter_func='cubik'.* Did you mean 'cubic'\?"),
        (MagnitudePruning, {"update_frequency": "often"}, r"MagnitudePruning\.update_frequency='often' is not a time"),
        (MagnitudePruning, {"mask_type": "4:2"}, r"mask_type='4:2'; expected 'unstructured'"),
        (MagnitudePruning, {"mask_type": "channel"}, r"mask_type='channel'; expected 'unstructured'"),
        (MagnitudePruning, {"mask_type": "2:4"}, r"mask_type '2:4' .*the sparsity must be 0\.5, not 0\.8"),
        (MagnitudePruning, {"params": []}, r"MagnitudePruning\.params is empty"),
        (MagnitudePruning, {"end": -1}, r"MagnitudePruning\.end=-1 is not a time"),
        (
            ConstantPruning,
            {"min_sparsity": 1.5},
            r"ConstantPruning\.min_sparsity=1\.5: expected a fraction in \[0, 1\]",
        ),
        (ConstantPruning, {"params": []}, r"ConstantPruning\.params is empty"),
        (ConstantPruning, {"start": "x"}, r"ConstantPruning\.start='x' is not a time"),
    ],
)
def test_refusals_name_the_key(kind, fields, message):
    needed = {"final_sparsity": 0.8} if kind is MagnitudePruning else {}
    with pytest.raises(ValueError, match=message):
        kind(**needed | fields)


def test_a_parameter_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"No parameter matches 'bert\.encoder\.weights'"):
        MagnitudePruning(final_sparsity=0.8, params=["bert.encoder.weights"]).attach(bert_run(1, 1))


# Letting go at the end


def test_masks_that_are_not_left_enabled_are_dropped_by_the_first_step_after_the_end():
    run = bert_run(4, 6)
    modifier = MagnitudePruning(final_sparsity=0.5, end="3 steps", update_frequency="3 steps", leave_enabled=False)
    modifier.attach(run)
    seen, masked = [], []
    for _ in simulate(run, modifier):
        seen.append(num_zeros(modifier)[64])
        masked.append(bool(modifier.masks))
    # The step at the end prunes for the last time; what was zero moves with the next one.
    assert masked == [True, True, True, True, False, False]
    assert seen == [{0}, {0}, {0}, {32}, {0}, {0}]
    assert modifier.target_reached(run)


def test_an_end_between_two_steps_lets_go_after_the_step_that_pruned():
    run = bert_run(4, 10)
    modifier = MagnitudePruning(final_sparsity=0.5, end=1.9, update_frequency=1.0, leave_enabled=False)
    modifier.attach(run)
    assert [bool(modifier.masks) for _ in simulate(run, modifier)] == [True] * 9 + [False]


def test_masks_that_are_not_left_enabled_hold_in_a_run_that_ends_with_them():
    run = bert_run(4, 4)
    modifier = MagnitudePruning(final_sparsity=0.5, update_frequency="1 step", leave_enabled=False)
    modifier.attach(run)
    assert [num_zeros(modifier)[64] for _ in simulate(run, modifier)][-1] == {32}
    modifier.check(run)


# Starting from what is zero already


def two_matrices(*zeros: int) -> Any:
    """A run of three steps over matrices of eight weights, as many of each zero as is said."""
    model = nn.Sequential(*(nn.Linear(4, 2, bias=False) for _ in zeros))
    for layer, count in zip(model, zeros, strict=True):
        layer.weight.data = torch.arange(1.0, 9).mul_(torch.arange(8) >= count).view(2, 4)
    return make_run(3, 3, model=model)


@pytest.mark.parametrize(
    ("global_sparsity", "expected"),
    [
        (False, [(2, 4), (4, 5), (6, 6)]),  # levels 2/8, 4/8, 6/8 and 4/8, 5/8, 6/8
        (True, [(2, 4), (4, 5), (6, 6)]),  # 6/16, 9/16, 12/16 of all; here equal weights go in pairs, first kept first
    ],
)
def test_from_param_starts_from_the_zeros_that_are_there(global_sparsity, expected):
    run = two_matrices(2, 4)
    modifier = MagnitudePruning(
        final_sparsity=0.75,
        init_sparsity="__FROM_PARAM__",
        inter_func="linear",
        end="2 steps",
        update_frequency="1 step",
        params=["re:.*weight"],
        global_sparsity=global_sparsity,
    )
    modifier.attach(run)
    seen = []
    for step in range(3):
        run.progress.step = step
        modifier.before_step(run)
        seen.append(tuple(int((~mask).sum()) for mask in modifier.masks.values()))
    assert seen == expected


def test_from_param_of_a_tensor_that_is_sparser_than_the_target():
    run = two_matrices(7, 0)
    modifier = MagnitudePruning(final_sparsity=0.5, init_sparsity="__FROM_PARAM__", params=["re:.*weight"])
    modifier.attach(run)
    assert modifier.levels(0.0) == {"0.weight": 0.5, "1.weight": 0.0}
    assert modifier.levels(1.0) == {"0.weight": 0.5, "1.weight": 0.5}


def test_from_param_resumes_with_the_levels_it_started_from():
    run = two_matrices(2, 4)

    def make() -> MagnitudePruning:
        modifier = MagnitudePruning(
            final_sparsity=0.75, init_sparsity="__FROM_PARAM__", inter_func="linear", params=["re:.*weight"]
        )
        modifier.attach(run)
        return modifier

    modifier = make()
    modifier.before_step(run)
    state = through_a_file(modifier.state_dict())
    for weight in modifier.targets.values():
        weight.data.zero_()
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.levels(0.5) == {"0.weight": 0.5, "1.weight": 0.625}


# Keeping zeros, live


def test_live_constant_pruning_freezes_a_weight_that_becomes_zero():
    run = bert_run(4, 5)
    zeros = make_sparse(run)
    modifier = ConstantPruning(refresh_masks=True)
    modifier.attach(run)
    name = "bert.encoder.layer.0.output.dense.weight"
    for step in simulate(run, modifier):
        if step == 1:
            assert not zeros[name][0, 1]
            modifier.targets[name].data[0, 1] = 0.0
    zeros[name][0, 1] = True
    for each, where in zeros.items():
        assert (modifier.targets[each] == 0).equal(where)


# Masks made anew, as in Prune Once for All


def test_masks_are_made_anew_until_refresh_until():
    """Updates at 0, 1000, ..., 80000 of 100,000: 81, of which 51 up to the end of the ramp (arXiv:2111.05754)."""
    modifier = MagnitudePruning(final_sparsity=0.9, end="50%", refresh_until="80%", update_frequency="1%", regrow=True)
    levels = modifier.levels_by_step(Clock(1000, 100_000))
    assert list(levels) == list(range(0, 80_001, 1000))
    assert sum(step <= 50_000 for step in levels) == 51
    told = {1000: 0.052927, 5000: 0.2439, 10_000: 0.4392, 20_000: 0.7056, 25_000: 0.7875, 40_000: 0.8928}
    assert levels[0] == 0
    assert {step: levels[step] for step in told} == pytest.approx(told, abs=1e-6)
    assert all(level == 0.9 for step, level in levels.items() if step >= 50_000)


def test_the_end_of_the_ramp_is_an_update_whatever_the_frequency():
    modifier = MagnitudePruning(
        final_sparsity=0.9, end="10 steps", refresh_until="18 steps", update_frequency="4 steps"
    )
    levels = modifier.levels_by_step(Clock(10, 20))
    assert list(levels) == [0, 4, 8, 10, 14, 18]
    assert levels[10] == levels[18] == 0.9


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"refresh_until": "x"}, "not a time"), ({"refresh_until": "80%", "leave_enabled": False}, "leave_enabled=false")],
)
def test_an_impossible_refresh_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MagnitudePruning(final_sparsity=0.5, **fields)


def test_a_refresh_before_the_end_of_the_ramp_is_refused():
    with pytest.raises(ValueError, match="refresh_until=40% is before end=50%"):
        MagnitudePruning(final_sparsity=0.5, end="50%", refresh_until="40%").window(Clock(10, 100))


def regrown(regrow: bool) -> Tensor:
    """Four weights, half of them pruned; then one of the others shrinks to 0.15, and the masks are made anew."""
    run = matrix_run(torch.tensor([[0.1, 0.2, 0.5, 0.9]]), 10, 10)
    group = {"params": [run.model.weight], "lr": 0.1, "weight_decay": 0.5}
    run.optimizer = SimpleNamespace(param_groups=[{"params": [], "lr": 9.0, "weight_decay": 9.0}, group])
    modifier = MagnitudePruning(
        final_sparsity=0.5, params=["weight"], end="1 steps", refresh_until="9 steps", update_frequency="1 steps",
        regrow=regrow,
    )  # fmt: skip
    modifier.attach(run)
    for step in range(3):
        run.progress.step = step
        modifier.before_step(run)
        if step == 1:
            assert run.model.weight.tolist() == [[0, 0, 0.5, pytest.approx(0.9)]]
            run.model.weight.data[0, 2] = 0.15
        modifier.after_update(run)
        modifier.check(run)
    return run.model.weight.detach()


def test_a_pruned_weight_comes_back_with_the_value_it_had_less_its_decay():
    """0.2 is masked at step 1 and decays once, by 0.1 * 0.5."""
    torch.testing.assert_close(regrown(True), torch.tensor([[0, 0.2 * 0.95, 0, 0.9]]))


def test_without_regrowth_zeros_stay():
    torch.testing.assert_close(regrown(False), torch.tensor([[0, 0, 0.15, 0.9]]))
