"""What there is of a cell."""

from __future__ import annotations

from sparse_xp.sweep.state import last_line, state, write_error


def test_states(tmp_path):
    assert state(tmp_path, "abc") == "to do"
    write_error(tmp_path, "Traceback\n  File\nValueError: no\n\n", "command")
    assert state(tmp_path, "abc") == "failed"
    assert last_line(tmp_path / "error.txt") == "ValueError: no"
    (tmp_path / "error.txt").unlink()
    (tmp_path / "history.jsonl").touch()
    assert state(tmp_path, "abc") == "interrupted"
    (tmp_path / "config.yaml").write_text("config_hash: abc\n")
    (tmp_path / "result.json").touch()
    assert state(tmp_path, "abc") == "finished"
    assert state(tmp_path, "abd") == "foreign"
