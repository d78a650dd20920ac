"""Load a model from which heads or neurons were removed: ``sparse_xp.structured.load(directory)``."""

from sparse_xp.functional.structured import load

__all__ = ["load"]
