"""The dry run: what is there, who teaches, and what the rest takes."""

from __future__ import annotations

from pathlib import Path


def test_a_dry_run_runs_nothing(grid, made, command):
    code, said = command(*grid(), "hydra.sweeper.dry_run=true")
    assert (code, made) == (0, {})
    assert not Path("outputs").exists()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    assert [line[:2] + line[5:8] for line in lines[1:]] == [
        ["0", "dense", "1", "to do", ""],
        ["1", "dense", "2", "to do", ""],
        ["2", "sparse", "1", "to do", "job 0"],
        ["3", "sparse", "2", "to do", "job 0"],
    ]
    command(*grid(), "seed=1", "hydra.sweeper.jobs=[0]")
    _, said = command(*grid(), "hydra.sweeper.dry_run=true")
    assert "1 finished, 3 to do" in said
    assert "for 3 cells, going by finished runs" in said
