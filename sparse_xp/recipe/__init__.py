"""The recipes of SparseML: reading a file, turning it into modifiers, writing one back. ``view`` shows any recipe."""
