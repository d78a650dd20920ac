"""The house stands: every room imports only from the floors below it, nothing goes in circles, a name means one thing.

The graph is computed from the sources, with imports under TYPE_CHECKING and inside functions. A *room* is a wing (a
package of ``sparse_xp``) or a module at the top of the package.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sparse_xp"

#: the table of docs/architecture.md, from the ground up: the rooms of each floor
FLOORS: dict[str, set[str]] = {}
for _line in (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8").splitlines():
    if _match := re.fullmatch(r"\| (\d+ [\w ,]+) \| `(\w+)` \| .* \|", _line):
        FLOORS.setdefault(_match[1], set()).add(_match[2])


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
    assert "sparse_xp.clock" in ARROWS["sparse_xp.modifiers.context"]  # under TYPE_CHECKING


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"], ["c", "b", "c"]]


def test_no_module_imports_itself_on_a_detour():
    assert circles({module: set(imported) for module, imported in ARROWS.items()}) == []


def test_every_room_has_a_floor():
    assert len(FLOORS) > 10
    listed = [name for rooms in FLOORS.values() for name in rooms]
    assert sorted(listed) == sorted({room(module) for module in MODULES})


def test_every_room_imports_only_from_the_floors_below():
    number = {name: i for i, rooms in enumerate(FLOORS.values()) for name in rooms}
    files = {module: path.relative_to(PACKAGE) for module, path in MODULES.items()}
    upward = [
        f"{files[importer]} takes {', '.join(names)} from {files[imported]}"
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
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                owners[node.name].append(module)
    assert len(owners) > 800
    alike = {name: places for name, places in owners.items() if len(places) > 1 and name not in ("main",)}
    assert alike == {}


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") == 1])
def test_modules_say_what_they_are(module):
    assert ast.get_docstring(TREES[module]) or not TREES[module].body


#: libraries that take seconds to load, or are extras: only these are reasons for an import inside a function.
#: huggingface_hub reads once, when it is loaded, whether it is offline.
HEAVY = frozenset(
    "accelerate datasets huggingface_hub matplotlib mlflow numpy onnx onnxruntime onnxscript openvino optuna pyarrow "
    "safetensors scipy sentence_transformers seqeval sentencex sklearn sqlalchemy tokenizers torch trackio "
    "transformers wandb".split()
)


def at_the_top(body: list[ast.stmt]) -> list[ast.Import | ast.ImportFrom]:
    """The imports that are executed when a module is loaded."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in body:
        for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.If | ast.Try) and not for_types:
            found += at_the_top(node.body)
    return found


def imported_by(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules of the package that an import loads, their packages among them, or the library."""
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    else:
        names = {full if (full := f"{node.module}.{a.name}") in MODULES else str(node.module) for a in node.names}
    return {name if name in MODULES else name.split(".")[0] for name in names}


def loads() -> dict[str, set[str]]:
    """For each module the heavy libraries that loading it loads."""
    above = {name: set[str]().union(*map(imported_by, at_the_top(tree.body))) for name, tree in TREES.items()}
    for module, names in above.items():
        parents = {".".join(name.split(".")[:i]) for name in {*names, module} for i in range(2, name.count(".") + 1)}
        above[module] = names | (parents & set(MODULES)) - {module}
    heavy = {module: names & HEAVY for module, names in above.items()}
    grew = True
    while grew:
        grew = False
        for module, names in above.items():
            more = heavy[module].union(*(heavy[name] for name in names if name in MODULES))
            grew |= more != heavy[module]
            heavy[module] = more
    return heavy


def test_imports_inside_functions_are_there_for_heavy_libraries_only():
    heavy, light, inside = loads(), [], 0
    assert "torch" in heavy["sparse_xp.training.loop"]
    for module, tree in TREES.items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    inside += 1
                    for name in imported_by(node):
                        if not (heavy[name] if name in MODULES else {name} & HEAVY) - heavy[module]:
                            light.append(f"{module}.{function.name} imports {name}")
    assert inside > 100
    assert light == []


@pytest.mark.parametrize(
    "command",
    ["main", "benchmark_command", "export_command", "latency", "predict", "recipe.__main__", "verify"],
)
def test_a_command_is_checked_before_anything_heavy_is_loaded(command):
    assert loads()[f"sparse_xp.{command}"] - {"numpy", "tokenizers"} == set()


def test_few_parameters_and_returns_are_any():
    """Each is a value of a library that has no better type; a new one needs a reason."""
    dynamic = []
    for module, tree in TREES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
                arguments += [argument for argument in (function.args.vararg, function.args.kwarg) if argument]
                hints = [function.returns, *(argument.annotation for argument in arguments)]
                dynamic += [
                    f"{module}.{function.name}" for hint in hints if isinstance(hint, ast.Name) and hint.id == "Any"
                ]
    assert 0 < len(dynamic) < 32
