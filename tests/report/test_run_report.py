"""Tables and reports as text, from results made by hand."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparse_xp.cli import run_command
from sparse_xp.functional.measured import Compression, Sparsity, StoredWeights, compressed_part
from sparse_xp.report.__main__ import main
from sparse_xp.report.results_table import results_table
from sparse_xp.report.run_report import evaluations, learning_curves, report_text, sparkline, write_report
from sparse_xp.result import Deployment, Result, find_results
from sparse_xp.text import markdown
from tests.tiny import make_result

PRUNED = make_result()


def sst2(accuracy: float, **changes: Any) -> Result:
    deployment = Deployment({"accuracy": accuracy}, 1e-6, 12_345_678, 4_500_000, compression="zstd")
    own = {"task": "sst2", "metric": "accuracy", "metrics": {"accuracy": accuracy}, "deployment": deployment}
    return make_result(**own | changes)


def find(places: list[Path]) -> list[Result]:
    return [result for _, result in find_results(places)]


def table(results: list[Result]) -> str:
    """The table of results that stand in directories of their own."""
    return results_table([(Path(f"outputs/run{number}"), result) for number, result in enumerate(results)])


ROWS = [
    sst2(90.5),
    sst2(91.25, teacher="outputs/dense", seed=43),
    sst2(92.0, recipe="dense", sparsity=Sparsity(0.0, 0.0, 0.001, {})),
]
TABLE = """\
task sst2, model minilm, train rows 1,536, epochs 2.5

| recipe   | teacher | seed | score          | sparsity (prunable / encoder / model) | ONNX MB | zstd MB |
|----------|---------|------|----------------|---------------------------------------|---------|---------|
| dense    | no      | 42   | accuracy 92.00 | 0.0% / 0.0% / 0.1%                    | 12.35   | 4.50    |
| pruned80 | yes     | 43   | accuracy 91.25 | 80.0% / 79.0% / 41.4%                 | 12.35   | 4.50    |
| pruned80 | no      | 42   | accuracy 90.50 | 80.0% / 79.0% / 41.4%                 | 12.35   | 4.50    |"""


def test_table():
    assert table(ROWS) == TABLE


def test_runs_of_one_name_are_told_apart_by_their_directories(tmp_path):
    found = [(tmp_path / where / "sst2,seed=1", sst2(90.0)) for where in (".", "demo")]
    shown = results_table(found)
    assert "| sst2,seed=1 " in shown
    assert "| demo/sst2,seed=1 " in shown


def test_runs_that_no_column_tells_apart_are_named():
    """As those of ``sparsity=gradual`` and ``sparsity=obert``."""
    _, _, names, _, *lines = table([sst2(90.0), sst2(91.0)]).splitlines()
    assert names.startswith("| run  | recipe ")
    assert [line.split("|")[1].strip() for line in lines] == ["run0", "run1"]


def test_a_table_names_what_is_of_integers_and_what_gzip_compressed():
    old = sst2(90.0, deployment=Deployment({"accuracy": 90.0}, 1e-6, 12_345_678, 4_500_000))
    head, _, names, _, *lines = table([old, sst2(91.0, quantization="int8")]).splitlines()
    assert "quantization" not in head
    column = [cell.strip() for cell in names.split("|")].index("quantization")
    assert [line.split("|")[column].strip() for line in lines] == ["none", "int8"]
    assert [line.split("|")[-2].strip() for line in lines] == ["4.50 (gzip)", "4.50"]
    assert table([sst2(91.0, quantization="int8")]).startswith("task sst2, model minilm, quantization int8, seed 42")


def test_a_table_of_different_tasks_shows_what_differs():
    head, _, *lines = table([PRUNED, sst2(91.0, seed=43)]).splitlines()
    assert head == "model minilm, train rows 1,536, epochs 2.5"
    assert [cell.strip() for cell in lines[0].split("|")[1:5]] == ["task", "recipe", "teacher", "seed"]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["squad", "sst2"]


def test_a_table_of_runs_without_anything_in_common_has_no_line_above():
    other = sst2(91.0, model="bert_base", seed=43)
    other.training.train_rows, other.training.epochs = 100, 3.0
    text = table([PRUNED, other])
    assert text.startswith("| task ")
    assert "epochs" in text.splitlines()[0]


def test_markdown_is_aligned():
    assert markdown([{"a": "1", "long name": "x"}, {"a": "12345", "long name": "y"}]) == (
        "| a     | long name |\n|-------|-----------|\n| 1     | x         |\n| 12345 | y         |"
    )


# The report of one run

HISTORY = [
    {"step": 1, "epoch": 0.0104, "loss": 5.875, "grad_norm": 2.0, "lr": 0.0, "sparsity": 0.0},
    {"step": 100, "epoch": 1.0417, "metrics": {"exact_match": 60.0, "f1": 70.0}, "valid": False},
    {"step": 200, "epoch": 2.0833, "loss": 1.25, "grad_norm": 1.0, "lr": 1e-5, "sparsity": 0.8},
    {"step": 200, "epoch": 2.0833, "metrics": {"exact_match": 75.5, "f1": 82.5}, "valid": True},
    {"step": 240, "epoch": 2.5, "metrics": {"exact_match": 75.0, "f1": 82.0}, "valid": True},
]


@pytest.mark.parametrize(
    "fact",
    [
        "# pruned80 on squad, minilm, seed 42",
        "**exact_match 75.00**  **f1 82.25** on the exported file, 384 rows",
        "80.00% of the prunable weights, 79.00% of the encoder",
        "41.40% of the model",
        "12.35 MB, 4.50 MB under zstd",
        "3.2e-06",
        "1,536 rows for 2.5 epochs:\n  240 steps, 62 s",
        "62.3 features/s on cpu in fp32",
        "teacher: none",
        "python -m sparse_xp task=squad recipe=pruned80",
        "git unknown, config 0123456789, data fedcba, torch 2.13.0, onnx 1.19.0",
        "| layer.1.weight | 85.00% |",
        "| 0.01  | 1    | 5.875 | 0     | 0        | 2         |",
        "| 2.08  | 200  | 75.50       | 82.50 | yes             | kept |",
        "| 2.50  | 240  | 75.00       | 82.00 | yes             |      |",
    ],
)
def test_the_report_states(fact):
    assert fact in report_text(PRUNED, HISTORY)


def test_the_report_names_teacher_and_commit():
    made = make_result(teacher="outputs/dense")
    made.provenance.git = "0123456789ab-dirty"
    text = report_text(made, HISTORY)
    assert "teacher: outputs/dense" in text
    assert "git 0123456789ab-dirty" in text


def test_the_report_is_a_file_beside_the_result(tmp_path):
    write_report(tmp_path, PRUNED, HISTORY)
    assert (tmp_path / "report.md").read_text().startswith(report_text(PRUNED, HISTORY))
    write_report(tmp_path, PRUNED, HISTORY)
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_a_report_that_somebody_has_edited_stays_beside_the_next(tmp_path, capsys):
    write_report(tmp_path, PRUNED, HISTORY)
    path = tmp_path / "report.md"
    path.write_text("my note\n" + path.read_text())
    write_report(tmp_path, PRUNED, HISTORY)
    assert (tmp_path / "report.md.changed-1").read_text().startswith("my note\n")
    assert path.read_text().startswith("# pruned80")
    assert "report.md was changed since it was written" in capsys.readouterr().out


def test_a_report_is_written_of_a_run_that_overflowed_on_its_way():
    # The first steps in fp16 do, until the scale of the loss has come down.
    overflowed = {"step": 1, "epoch": 0.01, "loss": float("nan"), "grad_norm": float("inf")}
    assert "| 2.08  | 200  | 1.25" in report_text(PRUNED, [overflowed, *HISTORY])


@pytest.mark.parametrize(
    ("values", "width", "curve"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 60, "▁▂▃▄▅▆▇█"),
        ([2e-5, 1e-5], 60, "█▁"),
        ([3.0, 3.0, 3.0], 60, "▁▁▁"),
        ([5.0], 60, "▁"),
        ([1, 3, 5, 7], 2, "▁█"),  # means 2 and 6
        ([0] * 60 + [1] * 60, 60, "▁" * 30 + "█" * 30),
        ([0, 0, 0, 14, 14, 7, 7], 3, "▁▆█"),  # stretches of two, of two and of three: 0, 7, 28 / 3
    ],
)
def test_a_curve(values, width, curve):
    assert sparkline(values, width) == curve


@pytest.mark.parametrize("broken", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_does_not_flatten_the_curve_of_the_others(broken):
    curve = sparkline([0.0, broken, 7.0, 3.0])
    assert len(curve) == 4
    assert (curve[0], curve[2], curve[3]) == ("▁", "█", "▄")


def test_the_table_of_a_long_course_has_ten_steps_from_the_first_to_the_last():
    steps = [{"step": step, "epoch": step / 10, "loss": 1.0} for step in range(1, 21)]
    _, _, table_of_steps = learning_curves(steps).partition("\n\n")
    lines = table_of_steps.splitlines()[2:]
    assert [int(line.split("|")[2]) for line in lines] == [1, 3, 5, 7, 9, 12, 14, 16, 18, 20]


def test_a_course_shows_the_numbers_that_some_steps_have():
    steps = [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "lr": 1e-5, "loss_task": 3.0, "loss_distillation": 1.0, "unknown": 9.0},
        {"step": 2, "epoch": 1.0, "loss": 1.0, "lr": 5e-6},
    ]
    assert learning_curves(steps) == (
        "    loss               █▁  2 to 1\n"
        "    loss_task          ▁  3 to 3\n"
        "    loss_distillation  ▁  1 to 1\n"
        "    lr                 █▁  1e-05 to 5e-06\n"
        "\n"
        "| epoch | step | loss | loss_task | loss_distillation | lr    |\n"
        "|-------|------|------|-----------|-------------------|-------|\n"
        "| 0.50  | 1    | 2    | 3         | 1                 | 1e-05 |\n"
        "| 1.00  | 2    | 1    |           |                   | 5e-06 |"
    )


def test_evaluations_mark_the_model_that_was_kept():
    assert evaluations([line for line in HISTORY if "metrics" in line], best_step=200) == (
        "| epoch | step | exact_match | f1    | recipe complete |      |\n"
        "|-------|------|-------------|-------|-----------------|------|\n"
        "| 1.04  | 100  | 60.00       | 70.00 | no              |      |\n"
        "| 2.08  | 200  | 75.50       | 82.50 | yes             | kept |\n"
        "| 2.50  | 240  | 75.00       | 82.00 | yes             |      |"
    )


# Finding results


@pytest.fixture
def outputs(tmp_path):
    for folder, result in zip(("a/b/pruned", "distilled", "a/dense"), ROWS, strict=True):
        place = tmp_path / "outputs" / folder
        place.mkdir(parents=True)
        result.write(place / "result.json")
    (tmp_path / "outputs" / "unfinished").mkdir()
    (tmp_path / "outputs" / "unfinished" / "history.jsonl").touch()
    return tmp_path / "outputs"


def test_results_are_found_in_runs_and_below_directories(outputs):
    pruned, distilled, dense = ROWS
    assert find([outputs / "a" / "dense"]) == [dense]
    assert find([outputs / "a"]) == [pruned, dense]
    assert find([outputs / "distilled", outputs / "a" / "b"]) == [pruned, distilled]
    assert find_results([outputs / "unfinished"]) == []


def test_a_run_that_is_named_twice_is_one_row(outputs):
    assert len(find([outputs, outputs / "a", outputs / "a" / "dense"])) == 3


@pytest.mark.parametrize("words", [[], ["outputs"]])
def test_the_command_prints_the_table(outputs, capsys, words):
    main(words)  # the working directory is the one that holds outputs
    assert capsys.readouterr().out == f"{TABLE}\n"


@pytest.mark.parametrize("words", [[], ["outputs/unfinished"], ["no/such/place"]])
def test_without_results_the_command_says_so(tmp_path, words):
    (tmp_path / "outputs" / "unfinished").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"No finished run there: nothing holds a result\.json"):
        main(words)


def test_a_run_whose_name_is_not_utf_8_is_in_its_tables(tmp_path, capsys, monkeypatch):
    place = tmp_path / os.fsdecode(b"run\xff")
    place.mkdir()
    PRUNED.write(place / "result.json")
    monkeypatch.setattr(sys, "argv", ["report", str(place), "--out", str(tmp_path / os.fsdecode(b"page\xff"))])
    run_command(main)
    assert "pruned80" in capsys.readouterr().out
    assert len(list((tmp_path / os.fsdecode(b"page\xff")).iterdir())) == 4


def test_the_report_states_compression_with_its_arithmetic():
    encoder = compressed_part(12_800, [StoredWeights(12_800, 1280, 8)])
    text = report_text(make_result(compression=Compression(encoder, encoder)), HISTORY)
    assert (
        """
- compression of the encoder's matrices: 40.0 = 0.05 MB of the dense model in fp32 / 0.00 MB of nonzero weights;
  12,800 weights x 32 bits / (1,280 nonzero x 8 bits) = 40.0;
  17.8 with a bit for each weight that says whether it is zero
- compression of the whole model: 40.0"""
        in text
    )
    assert "compression" not in report_text(make_result(), HISTORY)
    assert "compression (encoder / model) |" in table([make_result(compression=Compression(encoder, encoder))])


@pytest.mark.parametrize(("skipped", "line"), [(0, ""), (2, ""), (3, "- 3 of 240 steps (1.2%) changed no weight")])
def test_steps_that_fp16_skipped_are_told_from_one_per_cent_on(skipped, line):
    training = replace(make_result().training, skipped=skipped, precision="fp16")
    text = report_text(make_result(training=training), HISTORY)
    assert ("changed no weight" in text) == bool(line)
    assert line in text
    assert "\n\n- teacher" not in text
