"""The stages of a recipe, what its arguments replace, and which arguments no modifier would see."""

from __future__ import annotations

import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, TypeGuard

import yaml

from sparse_xp.recipe.expressions import names_in
from sparse_xp.recipe.loader import Loader, RecipeError, Tagged
from sparse_xp.recipe.scope import EVAL, Section, nearest


def sections_of(
    name: str, loader: Loader, root: yaml.Node | None, arguments: dict[str, Any], anchors: bool
) -> tuple[list[Section], list[str]]:
    """What stands outside of stages, then the stages that are run; and remarks. Raises RecipeError."""
    if root is None:
        raise RecipeError(name, None, "empty")
    if root.tag.startswith("!"):  # one bare modifier
        if arguments:
            raise RecipeError(name, None, f"it has no variables, and recipe.args names {', '.join(arguments)}")
        return [Section([loader.construct_object(root, deep=True)])], []
    if not _is_mapping(root):
        raise RecipeError(name, loader.place(root), "want 'name: value' lines at the top, modifiers in named lists")
    items = loader.items(root)
    stages = {key: loader.items(node) for key, node in items.items() if _is_mapping(node)}
    stages = {key: own for key, own in stages.items() if any("modifiers" in each for each in own)}
    homes = [{key: node for key, node in items.items() if key not in stages}, *stages.values()]
    for key, value in arguments.items():
        if not any(key in home and "modifiers" not in key for home in homes):
            known = [each for home in homes for each in home if "modifiers" not in each and not each.startswith("__")]
            raise RecipeError(
                name, None, f"recipe.args names {key[:80]}, and the recipe has no such variable.{nearest(key, known)}"
            )
        for home in homes if anchors else ():
            if key in home and loader.homes.get(id(home[key])) == key:
                loader.constructed_objects[home[key]] = value
    sections = [_section(name, loader, home, arguments) for home in homes]
    for section, stage in zip(sections[1:], stages, strict=True):
        section.name = stage
    remarks = _unreached(name, loader, root, homes, sections, arguments, anchors) if arguments else []
    if stages and sections[0].modifiers:
        remarks.append(
            f"{name} has modifiers at the top as well as stages ({', '.join(stages)}): the stages are not run, as in "
            "SparseML. Put the modifiers at the top into a stage of their own."
        )
        return sections[:1], remarks
    return sections, remarks


def _is_mapping(node: yaml.Node) -> TypeGuard[yaml.MappingNode]:
    """Whether this is a mapping without a tag of its own."""
    return isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map"


def _section(name: str, loader: Loader, items: dict[str, yaml.Node], arguments: dict[str, Any]) -> Section:
    found = Section()
    for key, node in items.items():
        value = loader.construct_object(node, deep=True)
        listed = value if isinstance(value, list) else [value]
        if "modifiers" not in key:
            if any(isinstance(each, Tagged) for each in listed):
                message = f"modifiers under {key!r}: the name of their list must contain 'modifiers'"
                raise RecipeError(name, loader.place(node), message)
            if key not in ("__metadata__", "metadata", "version"):
                found.variables[key] = arguments.get(key, value)
                found.places[key] = loader.place(node)
        elif isinstance(value, dict):
            raise RecipeError(
                name,
                loader.place(node),
                f"{key} is a mapping: this is the later dialect of SparseML 1.6 and llm-compressor (stages with "
                "run_type, modifiers without a tag), which no BERT script read. Write a list of '- !NameModifier'.",
            )
        elif value is not None:
            nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
            for each, where in zip(listed, nodes, strict=True):
                if not isinstance(each, Tagged):
                    said = f"{reprlib.repr(each):.60}"
                    raise RecipeError(name, loader.place(where), f"{key} holds {said}; want '- !NameModifier'")
            found.modifiers += listed
    return found


def _unreached(
    name: str,
    loader: Loader,
    root: yaml.Node,
    homes: list[dict[str, yaml.Node]],
    sections: list[Section],
    arguments: dict[str, Any],
    anchors: bool,
) -> list[str]:
    """A remark for each argument that some or all modifiers do not see, because no eval(...) leads to its variable."""
    reached = _reached(sections)
    links = Counter(id(child) for node in _nodes(root) for child in _children(node))
    remarks = []
    for key in arguments:
        nodes = [id(home[key]) for home in homes if key in home]
        aliased = any(links[node] > 1 and loader.homes.get(node) == key for node in nodes)
        if (anchors and aliased) or (key in reached and not aliased):
            continue
        whom = "not every modifier: some" if key in reached else "no modifier: they"
        how = f"{whom} say it by an anchor (*name), which SparseML does not follow here" if aliased else "no modifier"
        way = f"eval({key}) in the recipe{', or add recipe.anchors=true' if aliased else ''}"
        remarks.append(f"{name}: recipe.args changes {key}, which reaches {how}. Write {way}.")
    return remarks


def _reached(sections: list[Section]) -> set[str]:
    """The variables to which an eval(...) leads from a modifier."""
    said: dict[str, list[Any]] = defaultdict(list)
    for section in sections:
        for key, value in section.variables.items():
            said[key].append(value)
    found: set[str] = set()
    seen: set[int | str] = set()  # each list, mapping and text once: many aliases may say the same
    rest: list[Any] = [modifier.fields for section in sections for modifier in section.modifiers]
    while rest:
        each = rest.pop()
        mark = each if isinstance(each, str) else id(each)
        if mark in seen:
            continue
        seen.add(mark)
        if isinstance(each, dict | list):
            rest += each.values() if isinstance(each, dict) else each
        elif isinstance(each, str) and (match := EVAL.fullmatch(each)):
            for key in names_in(match[1]) - found:
                found.add(key)
                rest += said[key]
    return found


def _nodes(root: yaml.Node) -> Iterable[yaml.Node]:
    """Every node once."""
    seen, rest = {id(root)}, [root]
    while rest:
        node = rest.pop()
        yield node
        for child in _children(node):
            if id(child) not in seen:
                seen.add(id(child))
                rest.append(child)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
