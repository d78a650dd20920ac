"""The command of each cell."""

from __future__ import annotations

import shlex


def test_each_cell_has_its_own_command_that_finds_it_finished(grid, made, command):
    command(*grid(), "train.epochs=3", "seed=1")
    own = dict(made.commands)
    assert len(own) == 2
    made.clear()
    for name, line in own.items():
        words = shlex.split(line)[3:]
        assert words[-1] == f"hydra.run.dir=outputs/mine/{name}"
        assert command(*words)[0] == 0
    assert made == {}  # the same configurations in the same places: every one of them was there already
