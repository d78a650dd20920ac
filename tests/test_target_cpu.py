"""fp32 or 8 bits: by latency tables worked out by hand, and what a run says about the CPU before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sparse_xp import target_cpu
from sparse_xp.cpu import CPU, this_cpu
from sparse_xp.deployment import latency_cache, latency_measurement
from sparse_xp.deployment.latency_table import LatencySpec, LatencyTable, read_latency_tables, write_latency_tables
from sparse_xp.errors import UserError
from sparse_xp.functional.cost_model import LayerShape
from sparse_xp.result import Result
from sparse_xp.run import interrupted_run_quantizes, run
from sparse_xp.target_cpu import (
    SCATTERED_ZEROS,
    faster_precision,
    leaves_precision_open,
    start_note,
    with_chosen_precision,
)
from tests.in_process import command_of
from tests.runs import SHORT, configure, without_export
from tests.tiny import make_bert

ZEN2 = CPU("AMD EPYC", 23, 49, 0, ("avx2", "fma"), 2)
ICELAKE = CPU("Intel Xeon", 6, 106, 6, ("avx512_vnni", "avx512f", "avx2", "fma"), 2)


def table(precision, attention, feed_forward):
    """A table of a BERT of one layer of 2 heads and 16 neurons; dense it takes 2 * 8 ms."""
    return LatencyTable(
        spec=LatencySpec("onnxruntime", precision, 1, 16),
        shape=LayerShape(8, 2, 4, 16),
        machine="made up",
        version="1",
        full=(8.0, 8.0, 0.0),
        attention=[(1, attention / 2), (2, attention)],
        feed_forward=[(4, feed_forward / 4), (16, feed_forward)],
        embeddings=0.0,
    )


def pruner(speed):
    words = ("task=sst2", "recipe=speedup4", f"sparsity.target_speedup={speed}", "sparsity.multiple=4")
    return configure(*words).sparsity


FP32 = table("fp32", 8.0, 8.0)


@pytest.mark.parametrize(
    ("int8", "speed", "best"),
    [
        (table("int8", 4.0, 4.0), 2, "int8"),  # twice as fast: nothing has to go
        (table("int8", 6.4, 6.4), 2, "int8"),  # 12 neurons stay beside the one head, and 8 in fp32
        (table("int8", 8.0, 8.0), 2, "fp32"),  # as fast: no reason for integers
        (table("int8", 15.0, 15.0), 2, "fp32"),  # slower
        (table("int8", 2.0, 2.0), 6, "int8"),  # fp32 cannot be so fast
        (table("int8", 8.0, 8.0), 6, "fp32"),  # neither can, equally
        (table("int8", 7.0, 7.0), 6, "int8"),  # neither can, int8 is nearer
    ],
)
def test_the_precision_that_keeps_more_is_chosen(int8, speed, best, capsys):
    assert faster_precision([FP32, int8], [(2, 16)], 1, pruner(speed)) == best
    assert f"latency: the run delivers {best}, on made up" in capsys.readouterr().out


def test_a_latency_that_leaves_it_open(tmp_path):
    assert leaves_precision_open("onnxruntime:auto:1x128")
    assert not leaves_precision_open("onnxruntime:int8:1x128")
    write_latency_tables([FP32], tmp_path / "one.json")
    write_latency_tables([FP32, table("int8", 1.0, 1.0)], tmp_path / "two.json")
    assert not leaves_precision_open(str(tmp_path / "one.json"))
    assert leaves_precision_open(str(tmp_path / "two.json"))


def speedup(tmp_path, *words, int8=4.0, tables=True):
    path = tmp_path / "table.json"
    write_latency_tables([FP32, table("int8", int8, int8)] if tables else [FP32], path)
    return configure("task=sst2", "recipe=speedup4", f"sparsity.latency={path}", "sparsity.target_speedup=2", *words)


@pytest.mark.parametrize(("int8", "integers"), [(4.0, True), (16.0, False)])
def test_a_run_delivers_what_was_chosen(tmp_path, int8, integers):
    config = with_chosen_precision(speedup(tmp_path, int8=int8), make_bert(), tmp_path / "run", tmp_path, None)
    assert (config.quantization is not None) == integers


def test_quantization_among_the_other_modifiers_goes_too(tmp_path):
    words = ("quantization=none", "+modifier@recipe.modifiers.q=Quantization", "recipe.modifiers.q.start=50%")
    config = with_chosen_precision(speedup(tmp_path, *words, int8=16.0), make_bert(), tmp_path / "run", tmp_path, None)
    assert config.recipe.modifiers == {}


def test_a_run_that_was_begun_goes_on_as_it_began(tmp_path):
    config = speedup(tmp_path, int8=16.0)
    assert with_chosen_precision(config, make_bert(), tmp_path / "run", tmp_path, True).quantization is not None
    assert with_chosen_precision(config, make_bert(), tmp_path / "run", tmp_path, False).quantization is None


def test_a_run_keeps_its_tables_on_another_cpu(tmp_path, monkeypatch):
    """It was begun on a CPU where integers are fast, and goes on with its costs where they are not."""
    config = speedup(tmp_path)
    assert with_chosen_precision(config, make_bert(), tmp_path / "run", tmp_path, None).quantization is not None
    monkeypatch.setattr(latency_cache, "find_tables", lambda *_: pytest.fail("measured again"))
    assert with_chosen_precision(config, make_bert(), tmp_path / "run", tmp_path, True) is config
    assert [each.spec.precision for each in read_latency_tables(tmp_path / "run/latency.json")] == ["fp32", "int8"]


def test_a_run_that_was_killed_while_it_wrote_its_configuration_was_not_begun(tmp_path):
    (tmp_path / "config.yaml").write_text("config_hash: 0123456789\n")
    assert interrupted_run_quantizes(tmp_path, "0123456789") is None
    (tmp_path / "recipe.yaml").write_text("modifiers: {quantization: {kind: Quantization}}\n")
    assert interrupted_run_quantizes(tmp_path, "0123456789") is True
    assert interrupted_run_quantizes(tmp_path, "other") is None


def test_the_tables_of_a_run_that_never_began_are_not_taken(tmp_path):
    (tmp_path / "run").mkdir()
    write_latency_tables([table("int8", 1.0, 1.0)], tmp_path / "run/latency.json")
    config = with_chosen_precision(speedup(tmp_path, int8=16.0), make_bert(), tmp_path / "run", tmp_path, None)
    assert config.quantization is None


def test_nothing_is_chosen_where_nothing_is_open(tmp_path):
    for config in (
        speedup(tmp_path, "quantization=none"),
        speedup(tmp_path, tables=False),
        configure("task=sst2", "recipe=structured50_quant"),
        configure("task=sst2", "recipe=dense"),
    ):
        assert with_chosen_precision(config, make_bert(), tmp_path / "run", tmp_path, None) is config


def test_whole_layers_reach_further(capsys):
    words = ("task=sst2", "recipe=speedup4", "sparsity=structured_global", "sparsity.layers=true")
    modifier = configure(*words, "sparsity.target_speedup=9", "sparsity.multiple=4").sparsity
    slow = table("int8", 9.0, 9.0)
    assert faster_precision([FP32, slow], [(2, 16), (2, 16)], 2, modifier) == "fp32"
    assert "in fp32, 2.67 times the speed of dense fp32 is the most unless layers go whole" in capsys.readouterr().out


def test_factored_embeddings_count(capsys):
    """Their matrix takes as long as half so many neurons, and does not go."""
    int8 = table("int8", 6.4, 6.4)
    assert faster_precision([FP32, int8], [(2, 16)], 1, pruner(2)) == "int8"
    assert "in int8, 2 times the speed of dense fp32 leaves 1 heads and 12 neurons" in capsys.readouterr().out
    faster_precision([FP32, int8], [(2, 16)], 1, pruner(2), dimensions=8)
    assert "in int8, 2 times the speed of dense fp32 leaves 1 heads and 8 neurons" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cpu", "words", "said"),
    [
        (ZEN2, ["recipe=structured50_quant"], "8 bits on AMD EPYC (x86 with AVX2 and no VNNI): "),
        (ZEN2, ["recipe=dense", "quantization=ptq_int8"], "recipe=structured50, structured75"),
        (ICELAKE, ["recipe=structured50_quant"], None),
        (ICELAKE, ["recipe=structured50_quant", "export.target_cpu=avx2"], "8 bits on x86 with AVX2 and no VNNI: "),
        (ZEN2, ["recipe=structured50_quant", "export.target_cpu=vnni"], None),
        (ZEN2, ["recipe=structured50"], None),
        (ZEN2, ["recipe=speedup4"], None),  # it measures and says what it found
    ],
)
def test_what_a_run_says_first(monkeypatch, cpu, words, said):
    monkeypatch.setattr(target_cpu, "this_cpu", lambda: cpu)
    note = start_note(configure("task=sst2", *words), Path("run"))
    assert note is None if said is None else said in note


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipe=pruned80"], True),
        (["recipe=gradual80"], True),
        (["recipe=obert80"], True),
        (["sparsity=movement", "recipe.sparsity=0.8"], True),
        (["sparsity=acdc", "recipe.sparsity=0.8"], True),
        (["sparsity=gradual_block4", "recipe.sparsity=0.8"], True),
        (["sparsity=n_m", "recipe.sparsity=0.5"], True),
        (["recipe=dense"], False),
        (["recipe=pruned90_quant"], False),
        (["recipe=structured50"], False),
        (["recipe=upstream80", "task=wikipedia"], False),
        (["recipe=teacher_preparation", "task=wikipedia"], False),
    ],
)
def test_that_scattered_zeros_gain_no_speed_is_said_first(monkeypatch, words, said):
    monkeypatch.setattr(target_cpu, "this_cpu", lambda: ICELAKE)
    note = start_note(configure("task=sst2", *words), Path("run"))
    assert note == (SCATTERED_ZEROS if said else None)
    assert "\n" not in SCATTERED_ZEROS
    assert "recipe=structured50" in SCATTERED_ZEROS


def test_layers_that_are_left_out_are_no_scattered_zeros(monkeypatch):
    monkeypatch.setattr(target_cpu, "this_cpu", lambda: ICELAKE)
    fewer = ["+modifier@recipe.modifiers.fewer=LayerPruning", "recipe.modifiers.fewer.layers=[bert.encoder.layer.1]"]
    assert start_note(configure("task=sst2", "recipe=prune80", *fewer), Path("run")) is None


def test_a_speed_on_another_kind_of_cpu_is_measured_there(monkeypatch, tmp_path):
    monkeypatch.setattr(target_cpu, "this_cpu", lambda: ZEN2)
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"target_cpu=vnni: .*would be measured here, on AMD EPYC.*latency=FILE\.json"):
        start_note(configure("task=sst2", "recipe=speedup4", "export.target_cpu=vnni"), run)
    assert start_note(speedup(tmp_path, "export.target_cpu=vnni"), run) is None
    assert start_note(configure("task=sst2", "recipe=speedup4", "export.target_cpu=avx2"), run) is None
    run.mkdir()  # begun on the other CPU
    write_latency_tables([FP32], run / "latency.json")
    assert start_note(configure("task=sst2", "recipe=speedup4", "export.target_cpu=vnni"), run) is None


def test_it_is_said_before_a_teacher_is_trained(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(target_cpu, "this_cpu", lambda: ZEN2)
    command = command_of(monkeypatch, capsys)
    answer = command("task=sst2", "recipe=speedup4", "profile=embedded", "export.target_cpu=vnni")
    assert answer.code == 1
    assert "export.target_cpu=vnni: " in answer.message
    assert not list(tmp_path.glob("outputs/*"))
    trained = []

    def train(config, *_, **__):
        trained.append(config.recipe.name)
        raise UserError("enough")

    monkeypatch.setattr("sparse_xp.main.run", train)
    answer = command("task=sst2", "recipe=structured50_quant", "profile=embedded")
    assert trained == ["dense"]
    assert answer.out.startswith("8 bits on AMD EPYC (x86 with AVX2 and no VNNI): a quarter of the size")


def test_a_kind_that_there_is_not():
    with pytest.raises(UserError, match=r"export\.target_cpu=avx3: expected one of amx, .*Did you mean 'avx2'"):
        configure("task=sst2", "recipe=dense", "export.target_cpu=avx3")


@pytest.mark.parametrize(("third", "precision"), [(3.0, "int8"), (1.0, "fp32")])
def test_a_whole_run(tmp_path, monkeypatch, third, precision, capsys):
    """The same command on a CPU where integers are three times as fast, and on one where they are not."""
    times = {"attention": 1.0, "feed_forward": 1.0 / 32, "embeddings": 0.1}
    monkeypatch.setattr(
        latency_measurement,
        "fastest_times",
        lambda calls: {key: times[key[0]] * (key[1] or 1) / (third if key[2] else 1) for key in calls},
    )
    words = (*SHORT, "task=sst2", "recipe=speedup4", "teacher=none", "train.epochs=2")
    config = configure(*words, "sparsity.start=20%", f"data.cache={tmp_path}/cache")
    with without_export():
        result = run(config, tmp_path / "run")
    assert result.quantization == ("int8" if precision == "int8" else None)
    assert isinstance(Result.read(tmp_path / "run/result.json"), Result)
    assert result.sparsity.removed.share > 0
    assert f"latency: the run delivers {precision}, on {this_cpu()}" in capsys.readouterr().out.replace("\n", " ")


def test_the_names_of_machines_are_not_confused():
    assert str(ZEN2) != str(replace(ZEN2, model=1))
