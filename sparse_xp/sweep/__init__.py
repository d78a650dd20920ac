"""Sweeps: a grid of overrides with names, the cells it stands for, and which of them are finished.

A cell is one run. Its directory follows from its overrides alone, so a sweep that is started again finds what it did
before: finished cells are skipped, interrupted ones continue.

``hydra/sweeper=cells`` (``hydra_plugins/sparse_xp/cells.py``) passes through these files in order. ``plan.py`` composes
every cell of the grid (``grid.py``), finds its teacher (``teachers.py``), its command (``commands.py``) and its state.
Then either the dry run is shown (``dry_run.py``), or the manifest is written (``manifest.py``), the cells are launched
in waves, and ``state.py`` prints what became of them. ``hydra/sweeper=search`` uses ``search.py`` alone. Single runs
use ``teachers.py`` (``teacher=dense``) and ``commands.py`` (the recorded command) too.
"""
