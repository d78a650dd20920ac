"""What Hydra finds here by itself: our sweepers and our launcher. The work is done in ``sparse_xp.sweep`` and ``sparse_xp.search``."""
