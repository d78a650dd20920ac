"""What Hydra finds here by itself: our sweepers and our launcher. They call ``sparse_xp.sweep`` and ``.search``."""
