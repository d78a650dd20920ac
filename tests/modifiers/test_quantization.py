"""When a model computes in 8 bits, when its ranges stand still, what is stored of them, and what whole runs leave."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.export_command import main
from sparse_xp.functional.quant_file import load_quantization
from sparse_xp.functional.quant_modules import QuantLinear, quantized_modules
from sparse_xp.modifiers import MagnitudePruning, Quantization
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.run import run
from sparse_xp.training import checkpoint
from sparse_xp.training.state import TrainingWrapper
from tests.runs import SHORT, configure, history
from tests.simulation import bert_run, through_a_file
from tests.tiny import plain_task

# In simulation: four steps an epoch


def quant_run(recipe, total_steps=12):
    """A run with a real model, shell and optimizer; its recipe attached."""
    this = bert_run(4, total_steps)
    this.wrapper, this.modifier_list = TrainingWrapper(this.model, plain_task()), ModifierList(recipe, this.clock)
    this.modifier_list.attach(this)
    return this


def train(this, first=0, last=None):
    """Train as the loop does, two batches a step; yields each step's number after its update."""
    for step in range(first, this.clock.total_steps if last is None else last):
        this.progress.step = step
        this.model.train()
        this.modifier_list.before_step(this)
        for part in range(2):
            rows = torch.randint(5, 20, (4, 6), generator=torch.Generator().manual_seed(10 * step + part))
            this.wrapper(input_ids=rows, labels=rows[:, 0] % 2).loss.backward()
        this.modifier_list.before_update(this)
        this.optimizer.step()
        this.optimizer.zero_grad()
        this.modifier_list.after_update(this)
        yield step


def classifier(this):
    return this.model.classifier.quant


def test_training_in_8_bits_begins_and_ranges_freeze_when_they_should():
    this = quant_run({"quantization": Quantization(start=1.0, observers_end="8 steps")})
    modifier, active, counts, scales = this.modifier_list.modifiers["quantization"], [], [], []
    for _ in train(this):
        active.append(modifier.logs(this)["quantized"])
        assert modifier.target_reached(this) == bool(active[-1])
        counts.append(classifier(this).input_observer.count)
        scales.append(classifier(this).scale)
    assert active == [0] * 4 + [8] * 8
    assert counts == [0] * 4 + [2, 4, 6, 8] + [8] * 4  # two batches a step
    assert scales[:8] == [None] * 8
    assert all(scale.equal(scales[8]) for scale in scales[8:])


def test_without_an_end_ranges_freeze_after_training():
    this = quant_run({"quantization": Quantization(start=2.0)})
    list(train(this))
    assert classifier(this).scale is None
    assert classifier(this).input_observer.count == 8
    this.modifier_list.detach(this)
    assert classifier(this).scale is not None
    assert not classifier(this).mode.observing


@pytest.mark.parametrize("start", [1.0, "6 steps"])  # from its own step on, not from the epoch that it lies in
def test_mixed_precision_ends_where_8_bit_training_begins(start):
    this = quant_run({"quantization": Quantization(start=start)}, 8)
    first, seen = this.clock.first_step(this.clock.to_epochs(start)), {}
    this.model.bert.encoder.layer[0].output.dense.register_forward_hook(
        lambda module, inputs, output: seen.setdefault(this.progress.step, set()).add(output.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        list(train(this))
    assert seen == {step: {torch.float32 if step >= first else torch.bfloat16} for step in range(8)}


@pytest.mark.parametrize("stop", [2, 3, 5, 7, 9, 11])
def test_a_restored_run_goes_on_to_the_last_bit(stop):
    def make():
        return quant_run(
            {
                "sparsity": MagnitudePruning(final_sparsity=0.5, end=1.5, update_frequency="1 step"),
                "quantization": Quantization(start="3 steps", observers_end="7 steps", linear_outputs=True),
            }
        )

    straight, first, second = make(), make(), make()
    list(train(straight))
    list(train(first, 0, stop))
    states = (first.model.state_dict(), first.optimizer.state_dict(), first.modifier_list.state_dict())
    model, optimizer, recipe = through_a_file(states)
    second.model.load_state_dict(model)
    second.optimizer.load_state_dict(optimizer)
    second.modifier_list.load_state_dict(recipe)
    list(train(second, stop))
    ours, theirs = straight.model.state_dict(), second.model.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    one, other = (each.modifier_list.state_dict()["quantization"] for each in (straight, second))
    assert (one["counts"], one["settings"]) == (other["counts"], other["settings"])
    for kind in ("ranges", "scales"):
        assert one[kind].keys() == other[kind].keys()
        assert all(one[kind][name].equal(other[kind][name]) for name in one[kind])


def test_the_best_model_keeps_the_ranges_of_its_step(tmp_path):
    this = quant_run({"quantization": Quantization(start=0.0, observers_end="10 steps")})
    this.directory, this.device = tmp_path, torch.device("cpu")
    rows = torch.tensor([[2, 5, 8, 3]])
    for step in train(this):
        if step == 5:
            checkpoint.save_best(this)
            before, count = this.model.eval()(rows).logits, classifier(this).input_observer.count
    assert not this.model.eval()(rows).logits.equal(before)
    checkpoint.load_best(this)
    assert classifier(this).scale is None  # it was not frozen yet
    assert classifier(this).input_observer.count == count == 12
    assert this.model.eval()(rows).logits.equal(before)
    this.modifier_list.detach(this)
    assert this.model.eval()(rows).logits.equal(before)


def test_several_processes_go_on_with_the_mean_of_their_ranges():
    this = quant_run({"quantization": Quantization(start="2 steps", observers_end="4 steps")}, 6)
    asked = []

    def reduce(values, how):
        asked.append((this.progress.step, how))
        return values * 2  # as if the others had seen three times as much

    this.accelerator = SimpleNamespace(autocast=nullcontext, scaler=None, num_processes=2, reduce=reduce)
    low = None
    for step in train(this):
        if step == 3:
            low = classifier(this).input_observer.low
    assert asked == [(2, "mean"), (3, "mean")]  # one reduction a step, and none once the ranges stand still
    assert classifier(this).input_observer.low.equal(low)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"weight_bits": 9}, "Quantization.weight_bits=9: expected 2 to 8 bits."),
        ({"activation_bits": 1}, "Quantization.activation_bits=1: expected 2 to 8 bits."),
        ({"activation_bits": 4, "dynamic": True}, "ONNX computes dynamic ranges in 8 bits only."),
        ({"end": 3.0}, "Quantization.end=3.0: a quantized model stays quantized."),
        ({"observers_end": "10%%"}, "Quantization.observers_end='10%%' is not a time."),
        ({"calibration_rows": 0}, "Quantization.calibration_rows=0: expected at least 1, or null."),
        ({"calibration_rows": 8, "dynamic": True}, "dynamic ranges need no calibration_rows."),
        ({"calibration_rows": 8, "start": 1.0}, "Leave start and observers_end out."),
        ({"calibration_rows": 8, "observers_end": 1.0}, "Leave start and observers_end out."),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ValueError, match=r"Quantization") as caught:
        Quantization(**words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"start": 2.0, "observers_end": 1.5}, "observers_end=1.5 is before start=2.0."),
        ({"start": "50%", "observers_end": "25%"}, "observers_end=25% is before start=50%."),
        ({"start": 2.9}, "start=2.9 is after the last step: nothing would be quantized."),
        ({"start": 3.5}, "start=3.5"),
    ],
)
def test_a_time_that_does_not_fit_the_run_is_refused(words, message):
    with pytest.raises(UserError) as caught:
        ModifierList({"quantization": Quantization(**words)}, Clock(4, 12))
    assert message in str(caught.value)


def test_two_at_a_time_are_refused():
    with pytest.raises(UserError, match="both drive the quantization"):
        ModifierList({"one": Quantization(), "two": Quantization(calibration_rows=4)}, Clock(4, 12))


# Whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """prune70_quant in bf16 on 24 steps: 8 bits from step 18 on, frozen at 21."""
    place, seen = tmp_path_factory.mktemp("quant"), set()
    real = QuantLinear.forward

    def forward(self, input):
        found = real(self, input)
        if self.training:
            seen.add((self.quant.mode.active, found.dtype))
        return found

    config = configure(
        *SHORT,
        "task=squad",
        "recipe=prune70_quant",
        "teacher=none",
        "train.precision=bf16",
        f"data.cache={place}/cache",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuantLinear, "forward", forward)
        result = run(config, place / "run")
    return SimpleNamespace(place=place / "run", config=config, result=result, seen=seen)


def test_a_run_is_quantized_from_its_epoch_on_in_float32(finished):
    assert finished.seen == {(False, torch.bfloat16), (True, torch.float32)}
    lines = [line for line in history(finished.place) if "quantized" in line]
    assert [line["quantized"] for line in lines] == [0] * 18 + [8] * 6
    assert finished.result.training.best_step == 24  # no evaluation before satisfies the recipe


def test_a_run_says_that_it_is_of_integers(finished):
    assert (finished.result.quantization, finished.result.deployment.integers) == ("int8", True)
    assert "- in 8-bit integers: quantization=int8\n" in (finished.place / "report.md").read_text()
    assert finished.result.deployment.portable
    assert 63 < finished.result.deployment.largest_pair <= 126
    assert "- computes the same in every session on every x86 CPU\n" in (finished.place / "report.md").read_text()
    card = (finished.place / "deployment/model_card.md").read_text()
    assert "It computes the same on every x86 CPU" in card
    assert "matrices and tables of the file are 8-bit integers" in card
    assert "- quantization: int8\n" in card


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "int8"),
        ({"per_channel": False}, "int8_sparseml"),
        ({"dynamic": True}, "int8_dynamic"),
        ({"calibration_rows": 512}, "ptq_int8"),
        ({"weight_bits": 4}, "int4"),
    ],
)
def test_the_names_of_the_options(fields, name):
    assert Quantization(**fields).option == name


def test_the_learning_rate_starts_anew_with_8_bit_training(finished):
    rates = {line["step"]: line["lr"] for line in history(finished.place) if "lr" in line}
    peak = finished.config.train.learning_rate
    assert rates[18] < 0.1 * peak
    assert rates[19] == pytest.approx(peak)
    assert rates[24] == pytest.approx(peak / 6)


def initializers(place):
    graph = onnx.load(place / "deployment/model.onnx").graph
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def test_pruned_weights_are_zero_in_the_file(finished):
    from safetensors.torch import load_file

    weights, arrays = load_file(finished.place / "model/model.safetensors"), initializers(finished.place)
    assert finished.result.sparsity.prunable == pytest.approx(0.7, abs=0.01)
    for name in finished.result.sparsity.layers:
        stored, zero = arrays[f"model.{name}"].T, weights[name].numpy() == 0
        assert stored.dtype == np.int8
        assert zero.mean() == pytest.approx(0.7, abs=0.01)
        assert (stored[zero] == 0).all()
        assert np.abs(stored).max() == 63  # 7 bits, by default


def test_the_saved_model_is_stock_and_becomes_integers_again(finished):
    stored = json.loads((finished.place / "model/quantization.json").read_text())
    shared = {"weight_bits": 8, "activation_bits": 8, "per_channel": True, "dynamic": False, "reduce_range": True}
    assert stored["settings"] == shared
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(finished.place / "model").eval()
    rows = torch.tensor([[2, 7, 9, 30, 31, 3], [2, 8, 40, 3, 0, 0]])
    inputs = {"input_ids": rows, "attention_mask": (rows > 0).long(), "token_type_ids": torch.zeros_like(rows)}
    with torch.no_grad():
        plain = model(**inputs).start_logits
        assert load_quantization(model, finished.place / "model")
        ours = model(**inputs).start_logits
    assert len(list(quantized_modules(model))) == len(stored["modules"]) == 13 + 3
    import onnxruntime

    session = onnxruntime.InferenceSession(finished.place / "deployment/model.onnx")
    theirs = session.run(["start_logits"], {name: value.numpy() for name, value in inputs.items()})[0]
    real = inputs["attention_mask"].bool().numpy()
    near, far = (float(np.abs(each.numpy() - theirs)[real].max()) for each in (ours, plain))
    assert near < min(0.05, far)


@pytest.mark.slow
def test_weights_of_8_bits_are_no_portable_file_and_say_so(tmp_path):
    words = (*SHORT, "task=sst2", "recipe=dense", "train.epochs=1", "quantization=ptq_int8")
    result = run(configure(*words, "quantization.reduce_range=false"), tmp_path / "run")
    assert 128 < result.deployment.largest_pair <= 254
    assert result.deployment.portable is False
    card = (tmp_path / "run/deployment/model_card.md").read_text()
    assert "**It can overflow on x86 CPUs without VNNI**" in card
    assert "can answer differently on x86 CPUs without VNNI" in (tmp_path / "run/report.md").read_text()


@pytest.mark.slow
def test_exported_again_it_is_the_same(finished):
    before = json.loads((finished.place / "result.json").read_text())
    data = (finished.place / "deployment/model.onnx").read_bytes()
    main([f"run={finished.place}"])
    assert json.loads((finished.place / "result.json").read_text()) == before
    assert (finished.place / "deployment/model.onnx").read_bytes() == data
    for trace in (str(Path.cwd()), "/" + "work", "site-packages", ".py"):
        assert trace.encode() not in data


@pytest.mark.slow
def test_calibration_changes_nothing_until_all_is_trained(tmp_path, monkeypatch):
    seen = []
    real = Quantization.calibrate

    def calibrate(self, this):
        assert not list(quantized_modules(this.model))
        before = {name: weight.clone() for name, weight in this.model.state_dict().items()}
        real(self, this)
        after = this.model.state_dict()
        assert all(after[name].equal(weight) for name, weight in before.items())
        seen.append((this.progress.step, {each.count for each in self.observers().values()}))

    monkeypatch.setattr(Quantization, "calibrate", calibrate)
    words = (*SHORT, "task=sst2", "recipe=dense", "train.epochs=1", "train.eval_batch_size=8")
    run(configure(*words, "quantization=ptq_int8", "quantization.calibration_rows=20"), tmp_path / "run")
    assert seen == [(8, {3})]  # 20 rows in batches of 8
    assert {line["quantized"] for line in history(tmp_path / "run") if "quantized" in line} == {0}
    assert (tmp_path / "run/model/quantization.json").is_file()
    assert sum(array.dtype == np.int8 for array in initializers(tmp_path / "run").values()) == 14 + 3
