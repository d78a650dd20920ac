"""Structured pruning in a run.

``pruning`` has the modifier: schedule, choice and state. ``target`` has the goal, ``gradients`` the scores of each
step, ``obs`` removal with repair. ``masks`` applies the choice to the model. Only the last three import torch.
"""
