"""The table of a sweep: means and spreads by hand, marks, verdicts, and the four formats."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sparse_xp.deployment.measured_latency import Latency, read_latency
from sparse_xp.errors import UserError
from sparse_xp.functional.measured import Compression, Sparsity, StoredWeights, compressed_part
from sparse_xp.report.__main__ import main
from sparse_xp.report.compare import ComparedRow, compare
from sparse_xp.report.formats import csv_table, latex_table, markdown_table, notes, to_columns
from sparse_xp.report.page import html_report
from sparse_xp.report.rows import collect
from sparse_xp.result import Deployment, Result
from sparse_xp.run_directory import write_error
from sparse_xp.sweep.cells import Cell, Published, SweepPlan
from sparse_xp.sweep.manifest import write_manifest
from tests.tiny import make_result


def run(score: float, seed: int, recipe: str = "pruned80", **changes) -> Result:
    zeros = 0.0 if recipe == "dense" else 0.8
    return make_result(
        **{
            "task": "sst2", "metric": "accuracy", "metrics": {"accuracy": score},
            "model": "bert_base", "recipe": recipe, "seed": seed,
            "deployment": Deployment({"accuracy": score}, 1e-6, 400_000_000, 100_000_000),
            "sparsity": Sparsity(zeros, zeros, zeros / 2, {"a": zeros}),
        }
        | changes
    )  # fmt: skip


def cell(name: str, seed: int, **changes) -> Cell:
    fields = {
        "number": 0, "name": name, "words": [], "directory": f"sst2,bert_base,{name},seed={seed}", "task": "sst2",
        "model": "bert_base", "recipe": "pruned80", "profile": "full", "seed": seed, "epochs": 1.0,
        "max_train_samples": None, "config_hash": "x", "command": f"python -m sparse_xp {name} {seed}",
    }  # fmt: skip
    return Cell(**fields | changes)


def number(published: float, **changes) -> Published:
    fields = {"task": "sst2", "cell": "sparse", "metric": "accuracy", "published": published, "std": None, "n": None}
    return Published(**fields | {"tolerance": 0.5, "source": "a paper", "note": ""} | changes)


CELLS = [cell("dense", 1, recipe="dense"), cell("sparse", 1), cell("sparse", 2)]
PLACES = [(Path("out") / each.directory, each) for each in CELLS]
RUNS = list(zip([place for place, _ in PLACES], [run(92.0, 1, "dense"), run(90.0, 1), run(91.0, 2)], strict=True))


def compared(runs, cells, published) -> list[ComparedRow]:
    return compare(collect(runs, cells), published)


def test_seeds_make_one_row():
    dense, sparse = compared(RUNS, PLACES, [])
    assert (dense.cell, dense.mean, dense.std, dense.n, dense.recovery) == ("dense", 92.0, None, 1, None)
    assert (sparse.cell, sparse.mean, sparse.n) == ("sparse", 90.5, 2)
    assert sparse.std == pytest.approx(0.5**0.5)  # (0.5**2 + 0.5**2) / (2 - 1), root
    assert sparse.recovery == pytest.approx(100 * 90.5 / 92)


@pytest.mark.parametrize(("published", "verdict"), [(91.0, "pass"), (91.01, "fail"), (80.0, "pass")])
def test_the_verdict_is_within_the_tolerance(published, verdict):
    _, sparse = compared(RUNS, PLACES, [number(published)])
    assert sparse.difference == pytest.approx(90.5 - published)
    assert sparse.verdict == verdict


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        ({"changed": ["model=minilm"]}, "changed: model=minilm"),
        ({"profile": "embedded"}, "embedded profile: generated data, a tiny model"),
    ],
)
def test_a_cell_that_is_another_is_marked_and_not_judged(change, mark):
    places = [(place, each if each.name == "dense" else cell("sparse", each.seed, **change)) for place, each in PLACES]
    dense, sparse = compared(RUNS, places, [number(91.0)])
    assert (dense.caveats, sparse.caveats, sparse.verdict) == ((), (mark,), "not comparable")
    assert "| sparse * " in markdown_table("t", [dense, sparse])
    assert f"* sst2 sparse: {mark}." in markdown_table("t", [dense, sparse])


def test_another_model_is_a_mark():
    _, sparse = compared(RUNS, PLACES, [number(80, model="bert_base_pruned80")])
    assert (sparse.caveats, sparse.verdict) == (("bert_base instead of bert_base_pruned80",), "not comparable")


def test_the_number_of_the_same_model_is_taken():
    _, sparse = compared(RUNS, PLACES, [number(80, model="other"), number(91, model="bert_base")])
    assert (sparse.published.published, sparse.verdict) == (91, "pass")


def test_of_several_models_that_are_others_no_number_is_taken():
    _, sparse = compared(RUNS, PLACES, [number(80, model="other"), number(91, model="another")])
    assert (sparse.published, sparse.verdict) == (None, "")


def test_fewer_rows_are_a_mark():
    some = run(90.0, 1)
    some.training.train_rows, some.training.train_rows_of = 100, 1000
    some.training.eval_rows, some.training.eval_rows_of = 10, 20
    [line] = compared([(Path("a"), some)], [], [number(91, cell="pruned80")])
    assert line.caveats == ("trained on 100 of 1,000 rows", "scored on 10 of 20 rows")
    assert line.verdict == "not comparable"


def test_another_published_metric_is_a_line_of_its_own():
    runs = [
        (place, run(90, 1, deployment=Deployment({"accuracy": 90.0, "f1": 88.0}, 0, 1, 1))) for place, _ in RUNS[1:2]
    ]
    first, second = compared(runs, PLACES[1:2], [number(87.0, metric="f1"), number(90.0)])
    assert (first.metric, first.verdict, second.metric, second.mean, second.verdict) == (
        "accuracy",
        "pass",
        "f1",
        88.0,
        "pass",
    )


def test_a_cell_that_failed_shows_in_the_table(tmp_path):
    place = tmp_path / CELLS[1].directory
    write_error(place, "Traceback\nValueError: too bad\n", "c")
    [line] = compared([], [(place, CELLS[1])], [number(90)])
    assert (line.n, line.missing) == (0, (("failed", "ValueError: too bad"),))
    text = markdown_table("t", [line])
    assert "| failed | 0 of 1 |" in text
    assert "sst2 sparse: failed: ValueError: too bad" in text
    assert "failed" in csv_table([line])
    assert 'class="failed">failed' in html_report("t", [line])


def typed(words: str) -> Result:
    made = run(80.0, 1, "sparse", profile="embedded")
    made.provenance.command = f"python -m sparse_xp task=sst2 recipe=sparse profile=embedded {words} hydra.run.dir=out"
    return made


def test_lines_of_one_name_are_named_after_their_commands():
    alone = [
        (Path("out/sst2,bert_base,sparse,embedded,0a1b2c,seed=1"), typed("teacher=none log=none data.root=DATA")),
        (Path("out/sst2,bert_base,other,seed=1"), run(70.0, 1, "other")),
        (Path("more/sst2,bert_base,other,seed=1"), run(60.0, 1, "other")),
    ]
    made = compared([*RUNS, *alone], PLACES, [number(90.0)])
    assert [(line.cell, line.mean, line.published is not None) for line in made] == [
        ("dense", 92.0, False),
        ("sparse", 90.5, True),
        ("sparse, embedded, teacher=none", 80.0, False),
        ("out/other", 70.0, False),
        ("more/other", 60.0, False),
    ]


def test_the_lines_of_a_task_stand_together():
    cells = [cell("dense", 1), cell("dense", 1, task="qqp", directory="q"), cell("sparse", 1)]
    assert [(line.task, line.cell) for line in compared([], [(Path(each.directory), each) for each in cells], [])] == [
        ("sst2", "dense"),
        ("sst2", "sparse"),
        ("qqp", "dense"),
    ]


def test_notes_say_a_thing_once():
    cells = [cell("dense", 1, profile="embedded"), cell("sparse", 1, profile="embedded")]
    made = compared([], [(Path(each.directory), each) for each in cells], [number(92, cell="dense"), number(91)])
    assert notes(made) == [
        "* all lines: embedded profile: generated data, a tiny model.",
        "Published: sst2 dense accuracy 92, sst2 sparse accuracy 91: a paper.",
    ]


def test_sizes_say_what_compressed_them():
    old = Deployment({"accuracy": 90.0}, 1e-6, 400_000_000, 100_000_000, compression="gzip")
    new = Deployment({"accuracy": 90.0}, 1e-6, 400_000_000, 100_000_000, compression="zstd")
    text = markdown_table(
        "t", compared([(Path("a"), run(90, 1, deployment=old)), (Path("b"), run(90, 1, deployment=new))], [], [])
    )
    assert "zstd MB" in text
    assert text.count("100.00 (gzip)") == 1
    assert text.count("100.00") == 2


def test_int8_shows():
    [line] = compared([(Path("a"), run(90, 1, quantization="int8"))], [], [])
    assert "| int8 " in markdown_table("t", [line])


def test_latency_is_that_of_one_row(tmp_path):
    shape = {"engine": "onnxruntime", "threads": 1, "batch": 1, "length": 128, "ms": 20.0, "ratio": 1.5}
    others = [
        shape | {"batch": 32, "ratio": 9},
        shape | {"length": 32, "ratio": 8},
        shape | {"engine": "openvino", "ratio": 7},
    ]
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark/benchmark.json").write_text(json.dumps({"cells": [*others, shape], "machine": "PDP-11"}))
    found = read_latency(tmp_path)
    assert found == Latency("onnxruntime", 128, 20.0, 1.5, "PDP-11")
    assert read_latency(tmp_path / "nothing") is None


def test_csv_has_the_numbers_in_full():
    _, sparse = csv.DictReader(io.StringIO(csv_table(compared(RUNS, PLACES, [number(91.0)]))))
    assert (sparse["mean"], sparse["n"], sparse["published"], sparse["verdict"]) == ("90.5", "2", "91.0", "pass")
    assert sparse["commands"].splitlines() == [result.provenance.command for _, result in RUNS[1:]]


def test_latex_is_escaped():
    text = latex_table("t", compared(RUNS, PLACES, []))
    assert r"bert\_base" in text
    assert r"90.50 $\pm$ 0.71" in text
    assert r"80.0\% / 80.0\% / 40.0\%" in text
    assert text.count(r"\\") == 3


class Checked(HTMLParser):
    """Notes down what a page would load, and which tags stay open."""

    VOID = ("meta", "br", "use", "path")

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_page_needs_nothing_else(tmp_path):
    pytest.importorskip("matplotlib", reason="the plots are an extra")
    places = []
    for (place, _), (_, result) in zip(PLACES, RUNS, strict=True):
        (tmp_path / place).mkdir(parents=True)
        steps = [{"step": i, "epoch": i / 2, "loss": 1 / i, "lr": 1e-5, "sparsity": 0.1 * i} for i in (1, 2, 3)]
        (tmp_path / place / "history.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
        places.append((tmp_path / place, result))
    text = html_report("a <title>", compared(places, [(tmp_path / p, c) for p, c in PLACES], [number(91)]))
    checked = Checked()
    checked.feed(text)
    assert (checked.loads, checked.open) == ([], [])
    assert "<script" not in text
    assert "a &lt;title&gt;" in text
    assert text.count("<svg") == 6  # against zeros and size, loss, learning rate, zeros, layers
    assert len(set(text.split('id="')[1:])) == len(text.split('id="')[1:])
    for heading in ("Score against zeros", "Score against size", "Course", "Zeros by weight"):
        assert f"<h2>{heading}</h2>" in text


def test_without_matplotlib_the_page_says_how(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "sparse-xp[plot]" in html_report("t", compared(RUNS, PLACES, []))


def test_the_pareto_front():
    pytest.importorskip("matplotlib", reason="the plots are an extra")
    from sparse_xp.report.plots import pareto

    assert pareto([(3, 90), (1, 80), (2, 79), (2, 85), (4, 90)]) == [(1, 80), (2, 85), (3, 90)]


def test_the_command_writes_four_files(tmp_path, capsys, monkeypatch):
    place = tmp_path / "outputs" / "mine"
    write_manifest(SweepPlan("mine", place, CELLS, [number(91.0)]))
    for each, (_, result) in zip(CELLS, RUNS, strict=True):
        (place / each.directory).mkdir()
        result.write(place / each.directory / "result.json")
    main([str(place)])
    said = capsys.readouterr().out
    assert "| sst2 | sparse | bert_base | accuracy | 90.50 ± 0.71 | 2 | 91        | -0.50      | pass    |" in said
    assert {"table.md", "table.csv", "table.tex", "report.html"} <= {path.name for path in place.iterdir()}
    main([str(place), "--out", "elsewhere", "--sweep", "sparse_transfer"])
    assert Path("elsewhere/report.html").exists()
    assert "91.2" in capsys.readouterr().out


def test_runs_further_below_a_sweep_are_of_other_tables(tmp_path, capsys):
    for name in ("sst2,tiny,dense,seed=1", "demo/sst2,tiny,dense,seed=1", "sst2,tiny,sparse,seed=1"):
        (tmp_path / name).mkdir(parents=True)
        run(90.0, 1, name.split(",")[2]).write(tmp_path / name / "result.json")
    write_manifest(SweepPlan("mine", tmp_path, [cell("dense", 1, directory="sst2,tiny,dense,seed=1")]))
    main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in shown.splitlines() if line.startswith("| sst2")] == [
        "dense",
        "sparse",
    ]
    assert f"Not in it: the runs further below, in {tmp_path}/demo." in shown
    main([str(tmp_path), f"{tmp_path}/demo"])
    assert "Not in it" not in capsys.readouterr().out


def test_a_result_of_another_version_is_named(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/result.json").write_text("{}")
    with pytest.raises(UserError, match=r"a/result\.json has no 'sparsity'\. It may be of another version"):
        main([str(tmp_path)])


def test_an_empty_line_has_no_numbers():
    line = ComparedRow(("", ""), "t", "c", "m", "r", "full", "f1")
    assert (line.mean, line.std, line.difference, line.recovery, line.verdict) == (None, None, None, None, "")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", bytes(range(256)), b"[" * 100_000, b'{"cells": []}', b'{"cells": [1], "machine": "x"}'),
        b'{"machine": 5, "cells": [{"engine": "x", "batch": 1, "threads": 1, "length": 1, "ms": 1, "ratio": 1}]}',
        b'{"machine": "x", "cells": [{"engine": 5, "batch": 1, "threads": 1, "length": 8, "ms": null, "ratio": 1}]}',
    ],
)
def test_a_damaged_benchmark_is_named(data, tmp_path):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark/benchmark.json").write_bytes(data)
    with pytest.raises(UserError, match=r"benchmark/benchmark\.json .*python -m sparse_xp\.benchmark"):
        read_latency(tmp_path)


def test_the_commands_do_not_say_where_somebodys_home_is():
    home = Path("/home/alice")
    there = home / "runs/s" / CELLS[0].directory
    finished, unfinished = run(92.0, 1, "dense"), cell("sparse", 1)
    finished.provenance.command = f"python -m sparse_xp data.root={home}/data hydra.run.dir={there}"
    unfinished.command = f"python -m sparse_xp data.root={home}/data hydra.run.dir={home}/runs/s/{unfinished.directory}"
    places = [(there, CELLS[0]), (home / "runs/s" / unfinished.directory, unfinished)]
    made = compared([(there, finished)], places, [])
    text = markdown_table("x", made) + csv_table(made) + html_report("x", made)
    assert str(home) not in text
    assert f"data.root=data hydra.run.dir={unfinished.directory}" in text


def test_compression_has_a_column_and_its_arithmetic_a_note():
    def smaller(nonzero: int) -> Compression:
        encoder = StoredWeights(1000, nonzero, 8)
        return Compression(
            compressed_part(1000, [encoder]), compressed_part(1500, [encoder, StoredWeights(500, 500, 32)])
        )

    results = [run(90.0, 1, compression=smaller(100)), run(91.0, 2, compression=smaller(200))]
    rows = compared([RUNS[0], *zip([place for place, _ in PLACES[1:]], results, strict=True)], PLACES, [])
    text = markdown_table("t", rows)
    assert "| compression (encoder / model) |" in text
    # (40 + 20) / 2, and (6000 / 2100 + 6000 / 2200) / 2
    assert "| 30.0 / 2.8 " in text
    line = "sst2 sparse: encoder 1,000 weights x 32 bits / (100 nonzero x 8 bits) = 40.0 (17.8 with a bit mask); "
    assert line + "whole model 1,500 weights x 32 bits / (100 nonzero x 8 bits + 500 nonzero x 32 bits) = 2.9" in text
    assert "Compression: the dense model in fp32 over" in html_report("t", rows)
    _, sparse = csv.DictReader(io.StringIO(csv_table(rows)))
    assert (float(sparse["compression_encoder"]), sparse["compression_arithmetic"][:21]) == (
        30,
        "encoder 1,000 weights",
    )
    assert "compression" not in markdown_table("t", compared(RUNS, PLACES, []))


@pytest.mark.parametrize(
    ("quartiles", "shown"),
    [({}, "1.16"), ({"low": 0.97, "high": 1.2}, "1.16 (no difference measured)"), ({"low": 1.01, "high": 1.2}, "1.16")],
    ids=["of an earlier version", "noise", "a difference"],
)
def test_a_latency_ratio_whose_quartiles_include_1_is_no_difference(tmp_path, quartiles, shown):
    cell = {"engine": "onnxruntime", "threads": 1, "batch": 1, "length": 128, "ms": 20.0, "ratio": 1.16} | quartiles
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark/benchmark.json").write_text(json.dumps({"cells": [cell], "machine": "PDP-11"}))
    [row] = compared([(tmp_path, run(90.0, 1))], [], [])
    assert to_columns(row)["latency ratio"] == shown
