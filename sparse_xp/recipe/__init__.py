"""The dialect of SparseML: recipes as text become modifiers, and modifiers become text again.

What a recipe passes on its way to modifiers, in order, with the type that each file hands on:

===================  ================================================================  ===========================
type                 what it is                                                        file
===================  ================================================================  ===========================
``yaml.Node``        the syntax tree, within bounds, each node with its line           ``loader``
``TaggedMapping``    ``!NameModifier`` with its fields: one modifier as it is written  ``loader``
``Section``          the recipe outside of stages, or a stage: tags and variables      ``sections`` (type: ``scope``)
``Document``         all tags in order, every variable and ``eval(...)`` resolved      ``text`` (by ``scope``)
``Fields``           the fields of one tag while they are read and checked             ``fields``
``TagRow``           the row of the table that says what a tag means                   ``tag_row``, ``tags*``
``ParsedRecipe``     the modifiers by name, the length of the run, remarks             ``parsed``
``ModifierList``     the modifiers on the clock of a run (``modifiers/``)              ``modifier_list``
===================  ================================================================  ===========================

``check.load_recipe`` goes through all of them up to ``ParsedRecipe``, and ``check.in_order`` makes the last step. Who
calls them: ``check`` (can it run?), ``file`` (``recipe=file``), ``inherit`` (the recipe in a checkpoint), ``convert``
(to groups of ``conf/``) and ``view`` (time line and picture, of our own recipes too). ``saved`` goes the other way: it
writes the modifiers of a run as ``model/recipe.yaml``, by the same ``TagRow`` table. ``zoo`` knows where recipes and
models of the SparseZoo are now; ``expressions`` is the arithmetic in ``eval(...)``; ``unreached`` finds arguments that
change nothing.

A recipe is untrusted text: nothing in it is executed, and its size, depth and expansion are bounded.
"""
