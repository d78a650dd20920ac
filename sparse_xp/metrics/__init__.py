"""Scores of predictions: pure functions in ``scores``, and the same as ``evaluate`` modules beside it."""
