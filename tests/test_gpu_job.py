"""The job for a GPU machine: its cells compose, it stops in time, and it goes on where it ended."""

from __future__ import annotations

import json
import lzma
import sys
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu.cases import CASES, TRAINER
from benchmarks.gpu.cells import make_cells, teacher_of
from benchmarks.gpu.checks import failed
from benchmarks.gpu.embedding_cells import RECIPES, embedding_cells
from benchmarks.gpu.embeddings import job_of, unpack_texts
from benchmarks.gpu.packing import KEPT, pack_results, unpack_earlier
from benchmarks.gpu.processes import ENDED, FAILED, LEFT_OUT, STOPPED, Job, run_all
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import report
from benchmarks.gpu.tables import make_jobs
from tests.runs import HANGS, configure

CELLS = make_cells((1,), {"sst2": 64}, None)


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "in", tmp_path / "out", tmp_path / "work", None, 2, 2, (1,), {"sst2": 64})


def python(name: str, code: str, log: Path, **more: object) -> Job:
    return Job(name, [sys.executable, "-c", code], log, **more)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.seed is None], ids=lambda cell: cell.name)
def test_a_cell_composes_with_the_steps_that_it_is_thought_to_have(cell):
    config = configure(*cell.overrides())
    assert config.train.batch_size == cell.batch
    own = configure(*(word for word in cell.overrides() if not word.startswith(("train.batch", "train.learning"))))
    grown = (cell.batch / own.train.batch_size) ** 0.5
    assert config.train.learning_rate == pytest.approx(own.train.learning_rate * grown, rel=1e-2)
    rows = {"sst2": 67_349, "conll2003": 14_041, "qnli": 9_999, "squad": 12_150}[cell.task]
    assert cell.steps == pytest.approx(config.train.epochs * rows / cell.batch, rel=0.01)


@pytest.mark.parametrize("cell", [cell for cell in embedding_cells() if cell.seed == 42], ids=lambda cell: cell.name)
def test_an_embedding_cell_composes_and_ends_in_8_bits(cell):
    config = configure(*cell.overrides(4000), "data.train=texts.txt", "model.checkpoint=all_minilm")
    assert (config.train.steps, config.train.batch_size, config.seed) == (4000, 128, 42)
    assert config.quantization.start == "60%"
    assert config.teacher.source == "self"


def test_embedding_cells_of_the_first_seed_come_first():
    cells = embedding_cells()
    assert [cell.seed for cell in cells] == [42] * len(RECIPES) + [43] * len(RECIPES)
    assert len({cell.name for cell in cells}) == len(cells)


def test_speedups_of_embedding_cells_read_the_table_of_latencies(settings):
    jobs = {cell: job_of(settings, cell, Path("texts.txt")) for cell in embedding_cells()}
    reads = {
        cell.recipe for cell, job in jobs.items() if f"sparsity.latency={settings.inputs}/latency.json" in job.command
    }
    assert reads == {"speedup4", "speedup10"}


def test_texts_travel_packed(settings):
    settings.data.mkdir(parents=True)
    settings.work.mkdir()
    with lzma.open(settings.data / "texts.txt.xz", "wt") as file:
        file.write("one text\nanother\n")
    assert unpack_texts(settings).read_text() == "one text\nanother\n"


@pytest.mark.parametrize("case", [case for case in CASES if case.words != (TRAINER,)], ids=lambda case: case.name)
def test_a_case_of_the_speeds_composes(case):
    task = "squad" if case.task == "long" else case.task
    assert configure(f"task={task}", "model=minilm", *case.words, f"train.batch_size={case.batch}")


def test_teachers_come_first_and_other_seeds_last():
    assert [cell.task for cell in CELLS[:4]] == ["sst2", "conll2003", "qnli", "squad"]
    assert all(cell.dense for cell in CELLS[:4])
    seeds = [cell.seed for cell in CELLS]
    assert seeds == sorted(seeds, key=lambda seed: seed is not None)
    assert all(CELLS.index(teacher_of(cell, CELLS)) <= CELLS.index(cell) for cell in CELLS)


def test_finished_cells_are_left_out_and_their_teachers_too(settings):
    done = {cell.name for cell in CELLS if cell.task == "sst2" and cell.seed is None}
    jobs = make_jobs(settings, CELLS, done)
    assert not done & set(jobs)
    one = next(cell for cell in CELLS if cell.task == "sst2" and cell.words == ("recipe=gradual80",))
    again = make_jobs(settings, CELLS, done - {one.name})
    teacher = teacher_of(one, CELLS)
    assert set(again) - set(jobs) == {one.name, teacher.name}
    assert again[one.name].after is again[teacher.name]


def test_what_fails_or_takes_too_long_stops_nothing_else(tmp_path):
    fails = python("fails", "raise SystemExit('so it is')", tmp_path / "fails.txt")
    jobs = [
        fails,
        python("its student", "", tmp_path / "student.txt", after=fails),
        python("works", "print('done')", tmp_path / "works.txt"),
        python("is too long", "", tmp_path / "long.txt", expected=2.0 * HANGS),
    ]
    told: list[str] = []
    run_all(jobs, 1, time.monotonic() + HANGS, lambda job: told.append(job.name))
    assert [job.state for job in jobs] == [FAILED, LEFT_OUT, ENDED, LEFT_OUT]
    assert told == ["fails", "works"]
    assert fails.last_lines() == ["so it is"]


def test_at_the_end_of_the_time_children_are_stopped_too(tmp_path):
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(9999)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    job, waits = (python(name, code, tmp_path / f"{name}.txt") for name in ("sleeps", "waits"))
    job.begin()
    deadline = time.monotonic() + HANGS
    while not (pid.exists() and pid.read_text().endswith(".")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run_all([job, waits], 1, time.monotonic() + 0.1, lambda _: None)
    assert (job.state, waits.state) == (STOPPED, LEFT_OUT)
    while is_alive(int(pid.read_text()[:-1])):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(number: int) -> bool:
    """Whether a process is there and has not ended, as one has whose parent has not asked for its exit code."""
    try:
        return ") Z" not in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False


def test_results_travel_to_a_second_occasion(tmp_path):
    place = tmp_path / "work/tables/cell,seed=1"
    place.mkdir(parents=True)
    for name in (*KEPT, "model.safetensors"):
        (place / name).write_text(name)
    (tmp_path / "out").mkdir()
    pack_results(tmp_path / "work", tmp_path / "out")
    unpack_earlier(tmp_path / "out", tmp_path / "second")
    found = {path.name for path in (tmp_path / "second/earlier/tables/cell,seed=1").iterdir()}
    assert found == set(KEPT)
    pack_results(tmp_path / "second", tmp_path)
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        assert "tables/cell,seed=1/result.json" in archive.getnames()


def test_only_failed_tests_run_again(tmp_path):
    report = tmp_path / "tests.txt"
    report.write_text(
        "[gw0] [ 10%] PASSED tests/gpu/test_a.py::test_one[a b] \n"
        "[gw1] [ 20%] FAILED tests/gpu/test_a.py::test_two[of, more] \n"
        "FAILED tests/gpu/test_a.py::test_two[of, more] - AssertionError: assert 1 - 2\n"
        "[gw1] [ 30%] ERROR tests/gpu/test_b.py::test_three \n"
    )
    assert failed(report) == ["tests/gpu/test_a.py::test_two[of, more]", "tests/gpu/test_b.py::test_three"]
    report.write_text("nothing")
    assert failed(report) == ["tests/gpu"]


def test_speeds_are_compared_with_the_trainer_on_the_same_rows():
    ours, theirs = CASES[0], CASES[1]
    lines = [
        {"case": "peak", "tflops": 800.0},
        {"case": ours.name, "ms": [4.0, 5.0, 6.0], "cpu_ms": [3.0, 3.0, 3.0], "tokens": 20.0, "GiB": 1.0},
        {"case": theirs.name, "ms": [20.0, 20.0, 20.0], "cpu_ms": [9.0, 9.0, 9.0], "tokens": 0.0, "GiB": 1.0},
        {"case": "step: QAT", "error": ["RuntimeError: so it is"]},
    ]
    told = report(json.loads(json.dumps(lines)))
    row = next(line for line in told if line.startswith(f"| {ours.name} |"))
    assert "| 5.00 | 3.0 | 6400 | 4.00 |" in row
    assert "RuntimeError: so it is" in told
