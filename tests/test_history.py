"""``history.jsonl``: which steps are logged, what a line holds, and what a resumed run makes of it."""

from __future__ import annotations

import json

import pytest

from sparse_xp.clock import Clock
from sparse_xp.history import History

CLOCK = Clock(steps_per_epoch=4, total_steps=10)


class Tracker:
    def __init__(self):
        self.lines = []

    def log(self, values, step):
        self.lines.append((step, values))


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "history.jsonl", every=3, tracker=Tracker())


def test_the_first_every_third_and_the_last_step_are_due(history):
    assert [step for step in range(1, 11) if history.is_due(step, total=10)] == [1, 3, 6, 9, 10]


def test_a_step_is_a_line_and_goes_to_the_tracker(history):
    line = history.log_step(2, CLOCK, 0.75, 1.5, {"lr": 1e-5, "sparsity": 0.8})
    expected = {"step": 2, "epoch": 0.5, "loss": 0.75, "grad_norm": 1.5, "lr": 1e-5, "sparsity": 0.8}
    assert line == expected
    assert [json.loads(text) for text in history.path.read_text().splitlines()] == [expected]
    tracked = {"epoch": 0.5, "loss": 0.75, "grad_norm": 1.5, "lr": 1e-5, "sparsity": 0.8}
    assert history.tracker.lines == [(2, tracked)]


def test_an_evaluation_is_a_line_and_goes_to_the_tracker_under_a_name_of_its_own(history):
    line = history.log_evaluation(4, CLOCK, {"f1": 87.5, "exact_match": 80.0}, valid=False)
    expected = {"step": 4, "epoch": 1.0, "metrics": {"f1": 87.5, "exact_match": 80.0}, "valid": False}
    assert line == expected
    assert history.read() == [expected]
    assert history.tracker.lines == [(4, {"eval/f1": 87.5, "eval/exact_match": 80.0})]


def test_lines_are_appended_in_order_by_one_writer_after_another(history):
    history.log_step(1, CLOCK, 3.0, 1.0, {})
    another = History(history.path, every=3)  # without a tracker
    another.log_step(2, CLOCK, 2.0, 1.0, {})
    another.log_evaluation(2, CLOCK, {"f1": 1.0}, valid=True)
    assert [line["step"] for line in history.read()] == [1, 2, 2]
    assert [line.get("loss") for line in history.read()] == [3.0, 2.0, None]


def test_other_processes_than_the_main_one_write_and_track_nothing(tmp_path):
    path, tracker = tmp_path / "history.jsonl", Tracker()
    path.write_text('{"step": 5}\n')
    history = History(path, every=3, tracker=tracker, active=False)
    assert history.log_step(1, CLOCK, 3.0, 1.0, {})["loss"] == 3.0
    history.log_evaluation(1, CLOCK, {"f1": 1.0}, valid=True)
    history.rewind(0)
    assert path.read_text() == '{"step": 5}\n'
    assert tracker.lines == []


def test_nothing_was_written_yet(history):
    assert history.read() == []
    history.rewind(0)
    assert not history.path.exists()


def test_rewind_forgets_what_the_resumed_run_will_write_again(history):
    for step in (1, 2, 3, 4):
        history.log_step(step, CLOCK, 1.0, 1.0, {})
    history.log_evaluation(2, CLOCK, {"f1": 1.0}, valid=True)
    history.log_evaluation(4, CLOCK, {"f1": 2.0}, valid=True)
    history.rewind(2)
    assert [line["step"] for line in history.read()] == [1, 2, 2]
    history.log_step(3, CLOCK, 1.0, 1.0, {})
    assert [line["step"] for line in history.read()] == [1, 2, 2, 3]


def test_a_run_that_starts_over_starts_a_new_history(history):
    history.log_step(1, CLOCK, 1.0, 1.0, {})
    history.rewind(0)
    assert history.read() == []


def test_a_line_cut_short_by_a_crash_is_left_out_and_written_over(history):
    history.log_step(1, CLOCK, 1.0, 1.0, {})
    with history.path.open("a") as file:
        file.write('{"step": 2, "epo')
    assert [line["step"] for line in history.read()] == [1]
    history.rewind(1)
    history.log_step(2, CLOCK, 1.0, 1.0, {})
    assert [line["step"] for line in history.read()] == [1, 2]


def test_a_loss_that_is_not_a_number_is_kept_as_such(history):
    history.log_step(1, CLOCK, float("nan"), float("inf"), {})
    [line] = history.read()
    assert line["loss"] != line["loss"]
    assert line["grad_norm"] == float("inf")
