"""Recipes in a training loop that is not ours: a plain PyTorch loop, a ``Trainer``, a Lightning ``Trainer``.

The hooks are those of ``modifiers/base.py``, and ``ModifierList`` calls them, as in the loop of the command.
``sparsifier`` is the plain loop's side of it, ``context`` what modifiers see there, ``recipes`` turns a name, a file or
objects into modifiers. ``hugging_face`` and ``lightning`` call the same object from the hooks of their loops. ``lock``
keeps the zeros of a sparse model without a recipe.
"""
