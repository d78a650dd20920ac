"""Sweeps: from a grid with names to cells, what is done of them, and what is left to do.

A cell is one run. Where its files are follows from its words alone, so a sweep that is started again finds what it did
before: finished cells are skipped, interrupted ones continue.

The straight line is ``hydra/sweeper=cells`` (``hydra_plugins/sparse_xp/cells.py``). ``plan.py`` composes every cell of
the grid (``grid.py``), with who teaches it (``teachers.py``), its command (``commands.py``) and what there is of it
(``state.py``). Then the dry run is shown (``dry_run.py``), or the manifest is written (``manifest.py``), the cells are
launched in waves, and ``state.py`` says what became of them.
"""
