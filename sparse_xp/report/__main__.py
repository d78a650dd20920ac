"""``python -m sparse_xp.report``: tables of finished runs."""
