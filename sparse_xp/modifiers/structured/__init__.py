"""Structured pruning in a run: ``pruning`` has the modifier, ``target`` what it has to reach."""
