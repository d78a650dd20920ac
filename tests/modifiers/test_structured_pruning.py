"""Structured pruning in a run: schedule, choice, targets, errors, and all that comes after the removal."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.functional.layers import encoder_layers
from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at, sizes_of
from sparse_xp.functional.structured.config import removal_summary
from sparse_xp.models.reduced import load_reduced_model
from sparse_xp.modifiers import MagnitudePruning, Quantization, StructuredPruning
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.predict import main as predict
from sparse_xp.recipe.view.timeline import Timeline
from sparse_xp.result import Result
from sparse_xp.run import run
from tests.encoders import BATCH, FIRST_STAYS, KINDS, make_encoder
from tests.latency_tables import TABLE, write_table
from tests.modifiers.structured_runs import attach_pruning, check_landing, take_step
from tests.runs import SHORT, configure, history


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("score", ["first_order", "second_order", "magnitude"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_lands_on_its_target_and_never_goes_back(kind, score, together):
    this, modifier = attach_pruning(make_encoder(kind), score=score, global_sparsity=together)
    check_landing(this, modifier, together)


@pytest.mark.parametrize(("score", "term"), [("first_order", torch.abs), ("second_order", torch.square)])
def test_the_score_is_a_decayed_sum(score, term):
    this, modifier = attach_pruning(score=score, decay=0.5)
    block = encoder_blocks(this.model)[0]
    down = linear_at(this.model, block.down)
    expected = torch.zeros(16)
    for _ in range(3):
        for parameter in this.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        expected = 0.5 * expected + term((down.weight * down.weight.grad).sum(0)).detach()
        modifier.before_update(this)
    torch.testing.assert_close(modifier.gate_scores.sums[block.down], expected)


def test_what_matters_least_goes():
    model = make_encoder("Bert")
    for block in encoder_blocks(model):
        linear_at(model, block.output).weight.data[:, :4] *= 1e-3  # the first head
        linear_at(model, block.down).weight.data[:, ::2] *= 1e-3  # every second neuron
    for score in ("first_order", "second_order", "magnitude"):
        this, modifier = attach_pruning(copy.deepcopy(model), score=score)
        for number in range(10):
            modifier.before_step(this)
            this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
            modifier.before_update(this)
            this.progress.step = number + 1
        for heads, neurons in modifier.masks.values():
            assert heads.tolist() == [False, True]
            if score != "magnitude":  # what writes the neurons counts there, too
                assert neurons.tolist() == [False, True] * 8


def test_multiplications_are_another_measure():
    _, modifier = attach_pruning(final_sparsity=0.49, cost_metric="multiplications", tokens=1000)
    head, neuron = 1000 * 4 * 4 * 8 + 2 * 1000**2 * 4, 1000 * 2 * 8
    assert modifier.target.dense == 4 * (2 * head + 16 * neuron)
    assert modifier.final_sizes == [(1, 16)] * 4  # attention's own products are nearly all of it: neurons can stay
    _, modifier = attach_pruning(final_sparsity=0.49)
    assert modifier.final_sizes == [(1, 8)] * 4


def test_masks_of_other_pruning_are_cut_too():
    other = MagnitudePruning(final_sparsity=0.75, update_frequency=0.0)
    this, _ = attach_pruning(others={"prune": other})
    other.attach(this)
    for _ in range(10):
        this.modifier_list.before_step(this)
        this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        this.modifier_list.before_update(this)
        this.modifier_list.after_update(this)
        this.progress.step += 1
    this.modifier_list.detach(this)
    this.modifier_list.check(this)
    name = "bert.encoder.layer.0.output.dense.weight"
    assert other.masks[name].shape == other.targets[name].shape == (8, 8)
    assert (other.targets[name] == 0).float().mean() >= 0.5


# Whole layers


@pytest.mark.parametrize("score", ["first_order", "second_order", "magnitude"])
@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "MPNet", pytest.param("DistilBert", marks=pytest.mark.slow)])
def test_layers_go_and_come_not_back(kind, score):
    """Two of four at least: what is wanted leaves 0.9 of a layer, and the least of one is 0.375."""
    this, modifier = attach_pruning(
        make_encoder(kind), score=score, final_sparsity=0.775, global_sparsity=True, layers=True
    )
    there = []
    for number in range(10):
        take_step(this, modifier, number)
        there.append(modifier.logs(this)["layers"])
    assert there[0] == 4
    assert there == sorted(there, reverse=True)
    assert 1 <= there[-1] <= 2
    assert modifier.target_reached(this)
    assert modifier.logs(this)["removed"] >= 0.775
    with torch.no_grad():
        before = this.model.eval()(**BATCH).logits
        left = [size for size in modifier.current_sizes() if any(size)]
        gone = [number for number, size in enumerate(modifier.current_sizes()) if not any(size)]
        modifier.detach(this)
        torch.testing.assert_close(this.model(**BATCH).logits, before, atol=1e-5, rtol=0)
    assert sizes_of(this.model) == left
    assert removal_summary(this.model).layers == gone
    assert kind not in FIRST_STAYS or 0 not in gone
    assert not any(layer._forward_hooks for layer in encoder_layers(this.model).values())


def test_the_layer_that_matters_least_goes():
    """The third one passes on nearly what it is given; its heads and neurons are like the others'."""
    model = make_encoder("Bert")
    layer = model.bert.encoder.layer[2]
    for part in (layer.attention.output, layer.output):
        part.dense.weight.data *= 1e-3
    for score in ("first_order", "second_order"):
        this, modifier = attach_pruning(model, score=score, final_sparsity=0.3, global_sparsity=True, layers=True)
        weak = modifier.blocks[2]
        for number in range(5):
            modifier.before_step(this)
            this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
            modifier.before_update(this)
            this.progress.step = number + 1
        scores = {block.name: modifier.gate_scores.sums[block.name].item() for block in modifier.blocks}
        assert min(scores, key=scores.get) == weak.name
        for gate in modifier.gates.values():
            gate.remove()


@pytest.mark.parametrize(("steps", "gates"), [(9, {True, False}), (10, set())])
def test_gates_are_restored_with_the_rest(steps, gates):
    """After the last update there are none: layers that went are bypassed."""
    this, modifier = attach_pruning(score="magnitude", final_sparsity=0.775, global_sparsity=True, layers=True)
    for number in range(steps):
        take_step(this, modifier, number)
    again, other = attach_pruning(score="magnitude", final_sparsity=0.775, global_sparsity=True, layers=True)
    other.restore_shapes(again, modifier.state_dict())
    again.model.load_state_dict(this.model.state_dict())
    other.load_state_dict(modifier.state_dict())
    assert {gate.is_open for gate in other.gates.values()} == gates
    with torch.no_grad():
        assert torch.equal(again.model.eval()(**BATCH).logits, this.model.eval()(**BATCH).logits)


def test_masks_of_layers_that_went_go_too():
    other = MagnitudePruning(final_sparsity=0.9, update_frequency=0.0)
    fields = {"score": "magnitude", "final_sparsity": 0.775, "global_sparsity": True, "layers": True}
    this, modifier = attach_pruning(others={"prune": other}, **fields)
    other.attach(this)
    for _ in range(10):
        this.modifier_list.before_step(this)
        this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        this.modifier_list.before_update(this)
        this.modifier_list.after_update(this)
        this.progress.step += 1
    gone = sum(not any(size) for size in modifier.current_sizes())
    assert (len(other.targets), gone > 0) == (24, True)
    this.modifier_list.detach(this)
    this.modifier_list.check(this)
    assert len(other.targets) == len(other.masks) == 24 - 6 * gone


def test_a_layer_of_a_table_by_speed(tmp_path):
    """4 layers of 4 ms, of which 2 ms are to be left: less than the least, 1.5 ms, of two."""
    speed = {"final_sparsity": None, "target_speedup": 16, "latency": write_table(tmp_path), "score": "magnitude"}
    this, modifier = attach_pruning(others={"q": Quantization(start="90%")}, global_sparsity=True, layers=True, **speed)
    for number in range(10):
        take_step(this, modifier, number)
    [size] = [size for size in modifier.current_sizes() if any(size)]
    assert modifier.logs(this) == {"speedup": 32 / modifier.target.costs.total([size]), "layers": 1.0}
    modifier.detach(this)
    this.modifier_list = ModifierList({"sparsity": modifier, "q": Quantization(start="90%")}, this.clock)
    with pytest.raises(UserError, match=r"is reached with nothing removed: some/checkpoint has 21\.33 times"):
        modifier.attach(this)  # of the four layers that the full model has


# By speed


@pytest.mark.parametrize("together", [False, True])
def test_by_speed(tmp_path, together):
    speed = {"final_sparsity": None, "target_speedup": 4, "latency": write_table(tmp_path), "global_sparsity": together}
    this, modifier = attach_pruning(others={"q": Quantization(start="90%")}, **speed)
    assert (modifier.target.dense, modifier.target.budget) == (32.0, 8.0)
    for number in range(10):
        take_step(this, modifier, number)
    assert modifier.logs(this)["speedup"] == pytest.approx(4.0)
    assert modifier.current_sizes() == [(1, 8)] * 4 or together


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (2, "is reached with nothing removed: some/checkpoint has 2.00 times the speed of dense fp32"),
        (6, "cannot be reached: with one head and 4 neurons in each of its 4 layers, some/checkpoint has 5.33 times"),
    ],
)
def test_speeds_that_cannot_be(tmp_path, target, message):
    with pytest.raises(UserError, match=message):
        attach_pruning(
            others={"q": Quantization(start="90%")},
            target_speedup=target,
            latency=write_table(tmp_path),
            final_sparsity=None,
        )


def test_the_table_is_of_what_is_delivered(tmp_path):
    with pytest.raises(UserError, match=r"is of a model in int8, and this run delivers one in fp32\. Write quantiz"):
        attach_pruning(target_speedup=4, latency=write_table(tmp_path))
    place = write_table(tmp_path, spec=replace(TABLE.spec, precision="fp32"))
    with pytest.raises(UserError, match=r"is of a model in fp32, and this run delivers one in int8"):
        attach_pruning(others={"q": Quantization(start="90%")}, target_speedup=4, latency=place)


# Refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "final_sparsity=None: expected the part of the encoder to remove"),
        ({"final_sparsity": 0.0}, "final_sparsity=0.0: expected the part"),
        ({"final_sparsity": 1.0}, "final_sparsity=1.0: expected the part"),
        ({"final_sparsity": 0.5, "latency": "onnxruntime:int8:1x128"}, "is used with target_speedup only"),
        ({"target_speedup": 4}, r"target_speedup=4 needs latency=.*sparsity\.latency=onnxruntime:int8:1x128"),
        ({"target_speedup": 1, "latency": "x.json"}, "target_speedup=1: expected a number above 1"),
        ({"target_speedup": 4, "latency": "onnx:int8:1x128"}, "latency=onnx:int8:1x128: expected ENGINE:PRECISION"),
        ({"target_speedup": 4, "latency": "x.json"}, r"latency=x\.json: there is no such file"),
        (
            {"final_sparsity": 0.5, "score": "firstorder"},
            "score=firstorder: expected .* Did you mean 'first_order'",
        ),
        (
            {"final_sparsity": 0.5, "cost_metric": "flops"},
            "cost_metric=flops: expected one of parameters, multiplications",
        ),
        ({"final_sparsity": 0.5, "inter_func": "cubix"}, "inter_func=cubix: expected one of cubic"),
        ({"final_sparsity": 0.5, "multiple": 0}, "multiple=0: expected at least 1"),
        ({"final_sparsity": 0.5, "layers": True}, r"layers=true weighs layers .* write sparsity=structured_global\."),
        ({"final_sparsity": 0.5, "decay": 2}, "decay=2: expected a factor from 0"),
        ({"final_sparsity": 0.5, "update_frequency": "often"}, "update_frequency='often' is not a time"),
    ],
)
def test_values_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        StructuredPruning(**fields)


def test_a_target_that_would_leave_a_layer_with_nothing():
    with pytest.raises(UserError, match=r"final_sparsity=0\.9 of the parameters cannot be reached: with one head"):
        attach_pruning(final_sparsity=0.9)


def test_a_target_beyond_the_last_layer():
    with pytest.raises(UserError, match=r"with one head and 4 neurons in one of its 4 layers, .* has 90\.6% fewer"):
        attach_pruning(final_sparsity=0.95, global_sparsity=True, layers=True)


def test_a_start_at_which_nothing_is_known():
    this, modifier = attach_pruning(end="1 steps")
    modifier.before_step(this)  # nothing goes in the first step of a window
    this, modifier = attach_pruning()
    modifier.window = lambda clock: (0.0, 0.0)  # a window that has shrunk to its first step
    with pytest.raises(UserError, match=r"nothing is known of heads and neurons at the first step.*score=magnitude"):
        modifier.before_step(this)


def test_diverged_training_is_no_ground_for_a_choice():
    this, modifier = attach_pruning()
    for number in range(2):
        take_step(this, modifier, number)
    modifier.gate_scores.sums[modifier.blocks[2].down][3] = torch.nan
    with pytest.raises(UserError, match=r"scores of bert\.encoder\.layer\.2 are not finite: training has diverged"):
        modifier.before_step(this)


def test_frozen_layers_have_no_gradients():
    this, modifier = attach_pruning()
    linear_at(this.model, modifier.blocks[1].down).weight.requires_grad_(False)
    this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
    with pytest.raises(UserError, match=r"bert\.encoder\.layer\.1\.output\.dense does not train.*score=magnitude"):
        modifier.before_update(this)


def test_a_start_behind_the_last_step():
    with pytest.raises(UserError, match=r"StructuredPruning: start=99% is after the beginning of the last step"):
        ModifierList({"x": StructuredPruning(final_sparsity=0.5, start="99%")}, Clock(5, 10))


def test_a_revived_weight_is_found():
    this, modifier = attach_pruning()
    for number in range(9):
        take_step(this, modifier, number)
    linear_at(this.model, modifier.blocks[0].ups[0]).bias.data.fill_(1.0)
    with pytest.raises(RuntimeError, match=r"4 removed weights of bert\.encoder\.layer\.0\.intermediate\.dense are no"):
        modifier.check(this)


def test_the_schedule_can_be_drawn():
    config = configure("recipe=structured50", "task=sst2")
    clock = Clock(100, 800)
    line = Timeline("structured50", clock, ModifierList(config.modifiers(), clock))
    assert [line.level("sparsity", step) for step in (0, 79, 80, 480, 799)] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert line.level("sparsity", 280) == pytest.approx(0.5 * (1 - 0.5**3))
    assert [span.mark for span in line.modifiers["sparsity"].spans(clock)] == ["=", "-"]
    speed = configure("recipe=speedup4", "task=sst2").sparsity
    assert speed.levels_by_step(clock)[480] is None


# Whole runs

QUANT = (
    *SHORT,
    "task=sst2",
    "recipe=structured50_quant",
    "model.layers=3",
    "+modifier@recipe.modifiers.layers=LayerPruning",
    "recipe.modifiers.layers.layers=[bert.encoder.layer.1]",
    "+modifier@recipe.modifiers.hidden=PerLayerDistillation",
    "+modifier@recipe.modifiers.prune=MagnitudePruning",
    "recipe.modifiers.prune.final_sparsity=0.8",
    "recipe.modifiers.prune.end=60%",
)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory):
    """A dense run, and one with everything at once: groups, weights and a layer go, two losses of a teacher, int8."""
    place = tmp_path_factory.mktemp("structured")
    cache = f"data.cache={place}/cache"
    run(configure(*SHORT, "task=sst2", "recipe=dense", "model.layers=2", cache), place / "dense")
    words = (*QUANT, "sparsity=structured_global", "teacher=checkpoint", f"teacher.path={place}/dense", cache)
    return place, run(configure(*words), place / "run")


def test_everything_in_one_recipe(delivered):
    place, result = delivered
    assert result.sparsity.removed.share >= 0.5
    assert len(result.sparsity.removed.heads) == 2
    assert result.sparsity.prunable > 0.3
    assert result.deployment.max_abs_diff < 0.5
    assert Result.read(place / "run/result.json") == result
    model = load_reduced_model(place / "run/model")
    assert sizes_of(model) == list(zip(result.sparsity.removed.heads, result.sparsity.removed.neurons, strict=True))
    assert result.deployment.bytes < 0.3 * Result.read(place / "dense/result.json").deployment.bytes
    for name in ("run/report.md", "run/deployment/model_card.md"):
        assert "of the encoder removed (heads " in (place / name).read_text()
    assert {line["removed"] for line in history(place / "run") if "removed" in line} > {0.0}


def test_the_file_answers(delivered, capsys):
    place, _ = delivered
    predict([f"run={place}/run", "text=A dull film."])
    assert json.loads(capsys.readouterr().out)["label"] in ("negative", "positive")


@pytest.mark.slow
def test_a_run_in_which_layers_go(tmp_path):
    """Of three layers less than half of one may be left; the file of integers is that of the shorter model."""
    words = (
        *SHORT, "task=sst2", "recipe=structured75_quant", "teacher=none", "recipe.sparsity=0.85", "model.layers=3",
        "sparsity=structured_global", "sparsity.layers=true",
        f"data.cache={tmp_path}/cache",
    )  # fmt: skip
    result = run(configure(*words), tmp_path / "run")
    gone = result.sparsity.removed.layers
    assert 1 <= len(gone) <= 2
    assert result.sparsity.removed.share >= 0.85
    assert Result.read(tmp_path / "run/result.json") == result
    model = load_reduced_model(tmp_path / "run/model")
    assert model.config.num_hidden_layers == len(result.sparsity.removed.heads) == 3 - len(gone)
    assert result.deployment.max_abs_diff < 0.5
    assert {line["layers"] for line in history(tmp_path / "run") if "layers" in line} == set(range(3 - len(gone), 4))
    card = (tmp_path / "run/deployment/model_card.md").read_text()
    assert f"; without layers {' '.join(map(str, gone))})" in card


@pytest.mark.slow
def test_export_makes_the_same_file_again(delivered, tmp_path):
    from sparse_xp.export_command import export_run

    place, result = delivered
    made = export_run(place / "run", [], tmp_path / "again")
    assert made.metrics == result.deployment.metrics
    assert (tmp_path / "again/model.onnx").stat().st_size == result.deployment.bytes


@pytest.mark.slow
def test_a_transfer_run_from_a_reduced_checkpoint(delivered, tmp_path):
    """Its zeros and its sizes stay; a teacher of another width gives hidden states; more may go."""
    place, before = delivered
    words = (
        *SHORT, "task=sst2", "recipe=structured75", f"model.checkpoint={place}/run/model", "teacher=checkpoint",
        f"teacher.path={place}/dense", "+modifier@recipe.modifiers.hidden=PerLayerDistillation",
        "+modifier@recipe.modifiers.locked=ConstantPruning", f"data.cache={place}/cache", "sparsity.multiple=8",
    )  # fmt: skip
    result = run(configure(*words), tmp_path / "run")
    assert result.sparsity.removed.share >= 0.75 > before.sparsity.removed.share
    assert result.sparsity.prunable >= 0.3
