"""Structured pruning of attention heads, feed-forward neurons and whole layers, as functions of tensors and models.

A head or a neuron is a *group* of weights. A group is zeroed during training, which changes no shape, and removed at
the end by cutting out its rows and columns. A layer with neither heads nor neurons is switched off by a ``LayerGate``
(``functional/layers.py``) and removed whole. The encoders of ``functional/architectures.py`` are supported.

- ``blocks``: where the groups of a model are,
- ``scores``: what a group is worth,
- ``obs``: removing groups with repair of the weights that stay,
- ``removal``: zeroing groups, and cutting them out,
- ``config``: what config.json records about it,
- ``loading``: building a reduced model from its config.json, and expanding it to its full shape.

``modifiers/structured/`` decides when this happens.
"""
