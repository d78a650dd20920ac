"""A whole sweep by its command: each cell once, and one that fails hides nothing."""

from __future__ import annotations

from pathlib import Path


def test_a_sweep_makes_its_cells_once(grid, made, command):
    words = grid()
    code, said = command(*words)
    assert (code, "4 to do" in said) == (0, True)
    assert list(made) == [
        f"sst2,tiny,{what},seed={seed}"
        for what in ("dense,embedded", "gradual80,embedded,recipe.sparsity=0.7")
        for seed in (1, 2)
    ]
    teachers = {config.teacher.path for config in made.values() if config.recipe.name != "dense"}
    assert teachers == {"outputs/mine/sst2,tiny,dense,embedded,seed=1"}
    made.clear()
    code, said = command(*words)
    assert (code, made, "4 finished" in said) == (0, {}, True)


def test_a_failed_cell_hides_nothing(grid, made, command):
    made.broken = ("gradual80",)
    code, said = command(*grid(), "seed=1")
    assert code == 1
    assert "1 of 2 cells failed" in said
    assert "RuntimeError: gradual80 is broken" in said
    failed = Path("outputs/mine/sst2,tiny,gradual80,embedded,recipe.sparsity=0.7,seed=1/error.txt").read_text()
    assert failed.startswith("python -m sparse_xp profile=embedded log=none task=sst2 seed=1 recipe=gradual80")
    assert "Traceback" in failed
    assert len(list(Path("outputs/mine").glob("*dense*/result.json"))) == 1
    made.broken = ()
    assert command(*grid(), "seed=1")[0] == 0
    assert not list(Path("outputs/mine").glob("*/error.txt"))
