"""The sweep of these tests, and a cell by hand."""

from __future__ import annotations

from sparse_xp.sweep.cells import Cell

#: two cells with names and two seeds of one task
GRID = """
defaults: [config, _self_]
hydra:
  mode: MULTIRUN
  sweep: {dir: outputs/mine}
  sweeper:
    params: {profile: embedded, log: none, task: sst2, seed: [1, 2]}
    cells:
      dense: {recipe: dense}
      sparse: {recipe: gradual80, recipe.sparsity: 0.7}
"""
#: of the published numbers beside it
HEADER = "task,cell,metric,published,std,n,tolerance,source,note\n"


def make_cell(**changes) -> Cell:
    fields = {
        "number": 0, "name": "dense", "words": ["task=sst2", "recipe=dense", "seed=1"], "directory": "d",
        "task": "sst2", "model": "tiny", "recipe": "dense", "profile": "embedded", "seed": 1, "epochs": 2.0,
        "max_train_samples": None,
        "config_hash": "0123456789", "command": "python -m sparse_xp task=sst2",
    }  # fmt: skip
    return Cell(**fields | changes)
