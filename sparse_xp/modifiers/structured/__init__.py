"""Structured pruning in a run.

``pruning`` has the modifier: schedule, choice and state. ``target`` says what it has to reach, ``gradients`` gathers what
groups are worth, and ``masks`` applies the choice to the model. torch is imported by the last two only.
"""
