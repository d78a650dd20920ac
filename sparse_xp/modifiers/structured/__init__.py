"""Structured pruning in a run.

``pruning`` has the modifier: schedule, choice and state. ``target`` says what it has to reach, ``gradients`` what a
group is worth in a step, and ``masks`` applies the choice to the model. Only the last two import torch.
"""
