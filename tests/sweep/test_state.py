"""What there is of a cell, and what is said of the cells at the end."""

from __future__ import annotations

import pytest
from hydra.core.utils import JobReturn, JobStatus

from sparse_xp.errors import UserError
from sparse_xp.files.ownership import write_marker
from sparse_xp.run_directory import remove_temporary_files, run_state, write_error
from sparse_xp.sweep.cells import SweepPlan
from sparse_xp.sweep.state import LONGEST_LINE, last_line, summarize
from tests.sweep.cells import make_cell
from tests.tiny import make_result


def test_states(tmp_path):
    assert run_state(tmp_path, "abc") == "to do"
    write_error(tmp_path, "Traceback\n  File\nValueError: no\n\n", "command")
    assert run_state(tmp_path, "abc") == "failed"
    assert last_line(tmp_path / "error.txt") == "ValueError: no"
    (tmp_path / "error.txt").unlink()
    (tmp_path / "config.yaml").write_text("config_hash: abc\n")
    (tmp_path / "history.jsonl").touch()
    assert run_state(tmp_path, "abc") == "interrupted"
    (tmp_path / "result.json").touch()
    assert run_state(tmp_path, "abc") == "finished"
    assert run_state(tmp_path, "abd") == "foreign"


def finish(place, cell):
    """A finished run in the directory of a cell."""
    directory = place / cell.directory
    directory.mkdir(parents=True, exist_ok=True)
    write_marker(directory, "run")
    (directory / "config.yaml").write_text(f"config_hash: {cell.config_hash}\n")
    make_result().write(directory / "result.json")
    return directory


def failed(message="killed"):
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = RuntimeError(message)
    return result


def test_a_cell_that_failed_and_is_finished_in_the_end_raises_nothing(tmp_path):
    """A teacher that was killed, and was made by its student after that."""
    cell = make_cell()
    plan = SweepPlan("p", tmp_path, [cell])
    directory = finish(tmp_path, cell)
    write_error(directory, "RuntimeError: killed", "command")
    summarize(plan, [failed()])
    assert plan.states == {cell.directory: "finished"}
    remove_temporary_files(directory)
    assert not (directory / "error.txt").exists()
    assert run_state(directory, cell.config_hash) == "finished"


def test_a_cell_that_failed_and_is_not_finished_raises(tmp_path, capsys):
    cell = make_cell()
    plan = SweepPlan("p", tmp_path, [cell])
    with pytest.raises(RuntimeError, match="killed"):  # it came to no folder of its own
        summarize(plan, [failed()])
    write_error(tmp_path / cell.directory, "Traceback\nRuntimeError: out of memory", "command")
    with pytest.raises(UserError, match=rf"1 of 1 cells failed: {cell.directory}\. All of it stands in their error"):
        summarize(plan, [failed()])
    assert "RuntimeError: out of memory" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"x" * 200_000, b"\x1b[31mred\n", b"  only\n  inner\n"])
def test_any_error_file_is_told_in_a_line(data, tmp_path):
    (tmp_path / "error.txt").write_bytes(data)
    line = last_line(tmp_path / "error.txt")
    assert len(line) < LONGEST_LINE + 100
    assert line.isprintable()


def test_an_error_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "error.txt").mkdir()
    with pytest.raises(UserError, match=r"error\.txt is a directory"):
        last_line(tmp_path / "error.txt")
