"""The house stands: every room imports only from the floors below it, nothing goes in circles, a name means one thing.

The graph is computed from the sources, with imports under TYPE_CHECKING and inside functions. A *room* is a wing (a
package of ``sparse_xp``) or a module at the top of the package.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sparse_xp"

#: from the ground up; docs/architecture.md says what the rooms are
FLOORS: dict[str, tuple[str, ...]] = {
    "ground": ("clock", "console", "errors", "metrics", "places", "schema", "text", "chart"),
}


def modules() -> dict[str, Path]:
    """The dotted name of each module, and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("sparse_xp", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree: ast.AST) -> list[tuple[str, str]]:
    """Each module of the package that a file imports, and the name it takes."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where a name comes from"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.append((module, "the module") if module in MODULES else (str(node.module), alias.name))
        elif isinstance(node, ast.Import):
            found += [(alias.name, "the module") for alias in node.names]
    return [(module, name) for module, name in found if module in MODULES]


ARROWS: dict[str, dict[str, list[str]]] = {name: defaultdict(list) for name in MODULES}
for _importer, _tree in TREES.items():
    for _imported, _name in imports(_tree):
        if _imported != _importer:
            ARROWS[_importer][_imported].append(_name)


def room(module: str) -> str:
    """The wing of a module, or the module itself if it stands at the top of the package."""
    return module.split(".")[1] if "." in module else module


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """A shortest circle through each node that lies on one."""
    found = []
    for start in arrows:
        paths, seen = [[start]], {start}
        while paths:
            path = paths.pop(0)
            for after in sorted(arrows.get(path[-1], ())):
                if after == start:
                    found.append([*path, start])
                    paths = []
                    break
                if after not in seen:
                    seen.add(after)
                    paths.append([*path, after])
    return found


def test_the_sources_are_really_read():
    assert len(MODULES) > 120
    assert len({room(module) for module in MODULES}) > 35
    assert sum(len(imported) for imported in ARROWS.values()) > 500
    assert "sparse_xp.training.loop" in ARROWS["sparse_xp.run"]  # inside a function
    assert "sparse_xp.tasks" in ARROWS["sparse_xp.modifiers.context"]  # under TYPE_CHECKING


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"], ["c", "b", "c"]]


def test_no_module_imports_itself_on_a_detour():
    assert circles({module: set(imported) for module, imported in ARROWS.items()}) == []


def test_every_room_has_a_floor():
    listed = [name for rooms in FLOORS.values() for name in rooms]
    assert sorted(listed) == sorted({room(module) for module in MODULES})


def test_every_room_imports_only_from_the_floors_below():
    number = {name: i for i, rooms in enumerate(FLOORS.values()) for name in rooms}
    upward = [
        f"{MODULES[importer].relative_to(PACKAGE)} takes {', '.join(names)} from {MODULES[imported].relative_to(PACKAGE)}"
        for importer, taken in ARROWS.items()
        for imported, names in taken.items()
        if room(importer) != room(imported) and number[room(imported)] >= number[room(importer)]
    ]
    assert upward == []


def test_modifiers_see_the_protocol_and_not_the_loop():
    forbidden = ("sparse_xp.training", "sparse_xp.data", "sparse_xp.evaluation", "sparse_xp.run")
    taken = {
        (importer, imported)
        for importer, imports_of in ARROWS.items()
        if room(importer) == "modifiers"
        for imported in imports_of
    }
    assert len(taken) > 40
    assert [pair for pair in taken if pair[1].startswith(forbidden)] == []


def test_a_name_at_the_top_of_a_module_means_one_thing():
    owners = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:  # type: ignore[attr-defined]
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                owners[node.name].append(module)
    assert len(owners) > 800
    alike = {name: places for name, places in owners.items() if len(places) > 1 and name not in ("main",)}
    assert alike == {}


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") == 1])
def test_modules_say_what_they_are(module):
    assert ast.get_docstring(TREES[module]) or not TREES[module].body  # type: ignore[arg-type, attr-defined]
