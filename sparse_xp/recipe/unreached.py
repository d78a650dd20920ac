"""Arguments of a recipe that some or all modifiers do not see.

An argument replaces a variable. A modifier sees it only if an ``eval(...)`` leads to the variable: SparseML did not
follow aliases (``*name``), which repeat the value in the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import yaml

from sparse_xp.recipe.expressions import names_in
from sparse_xp.recipe.loader import Loader
from sparse_xp.recipe.scope import EVAL, Section


def unreached_arguments(
    name: str,
    loader: Loader,
    root: yaml.Node,
    parts: list[dict[str, yaml.Node]],
    sections: list[Section],
    arguments: dict[str, object],
    anchors: bool,
) -> list[str]:
    """Return a remark for each argument that some or all modifiers do not see.

    ``parts``: the nodes of each section by key. ``anchors``: aliases are replaced too, so that they count as seen.
    """
    used = used_variables(sections)
    links = Counter(id(child) for node in _nodes(root) for child in _children(node))
    remarks = []
    for key in arguments:
        nodes = [id(items[key]) for items in parts if key in items]
        aliased = any(links[node] > 1 and loader.anchor_names.get(node) == key for node in nodes)
        if (anchors and aliased) or (key in used and not aliased):
            continue
        reached = "no modifier"
        if aliased:
            who = "not every modifier: some" if key in used else "no modifier: they"
            reached = f"{who} say it by an anchor (*name), which SparseML does not follow here"
        advice = f"eval({key}) in the recipe{', or add recipe.anchors=true' if aliased else ''}"
        remarks.append(f"{name}: recipe.args changes {key}, which reaches {reached}. Write {advice}.")
    return remarks


def used_variables(sections: list[Section]) -> set[str]:
    """Return the variables to which an eval(...) leads from a modifier, directly or through other variables."""
    definitions: dict[str, list[object]] = defaultdict(list)
    for section in sections:
        for key, value in section.variables.items():
            definitions[key].append(value)
    used: set[str] = set()
    visited: set[int | str] = set()  # each list, mapping and text once: aliases may repeat them many times
    pending: list[object] = [modifier.fields for section in sections for modifier in section.modifiers]
    while pending:
        value = pending.pop()
        identity = value if isinstance(value, str) else id(value)
        if identity in visited:
            continue
        visited.add(identity)
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and (match := EVAL.fullmatch(value)):
            for key in names_in(match[1]) - used:
                used.add(key)
                pending += definitions[key]
    return used


def _nodes(root: yaml.Node) -> Iterable[yaml.Node]:
    """Yield every node once."""
    visited, pending = {id(root)}, [root]
    while pending:
        node = pending.pop()
        yield node
        for child in _children(node):
            if id(child) not in visited:
                visited.add(id(child))
                pending.append(child)


def _children(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes in a mapping (keys and values) or a list."""
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
