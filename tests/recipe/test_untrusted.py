"""Recipes as untrusted text: bombs, code and rubbish end in a Document or a UserError, soon and in little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import pytest

from sparse_xp.errors import UserError
from sparse_xp.recipe.text import read_recipe

FIXTURES = [
    Path(__file__).parent / "data" / name
    for name in ("bert-base-12layers_prune70_quant.md", "obert_pruned90_quant_squad.yaml", "squad_teacher.yaml")
]
SECONDS = (
    20.0  # of one core: what grows without bound takes longer on any, and all of it takes half a second on a quick one
)
ONE = "\nmodifiers:\n  - !X {a: 1}\n"


def wrong(source: str, args=None, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_recipe(source, args, **options)
    return str(caught.value)


# Bombs: within a second and a few megabytes


def doubled(first: str, line: str, times: int = 9) -> str:
    return first + "".join(line.format(i=i, j=i - 1) for i in range(1, times))


ALIASES = doubled("a0: &a0 [x, x]\n", "a{i}: &a{i} [*a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}]\n")
MERGES = doubled(
    "a0: &a0 {k: v}\n", "a{i}: &a{i}\n  <<: [*a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}]\n"
)
EVALS = doubled("a0: [x, x]\n", "a{i}: [eval(a{j}), eval(a{j}), eval(a{j}), eval(a{j}), eval(a{j}), eval(a{j})]\n", 30)
BIG = "b: &b [" + "x," * 4000 + "]\n"
LONG = "+".join("1" * 400)
BOMBS = {
    "aliases": ALIASES + ONE,
    "aliases in a modifier": "modifiers:\n- !X\n  " + ALIASES.replace("\na", "\n  a"),
    "aliases as a name": ALIASES + "? [*a8, *a8]\n: c\n",
    "aliases in the group": ALIASES + "modifiers: [*a8, *a8]\n",
    "aliases of a modifier": "m: &m {a: 1}\n" + BIG + "modifiers: [" + "!X {a: *b}," * 900 + "]\n",
    "aliases in stages": BIG + "".join(f"s{i}:\n  modifiers:\n  - !X {{a: *b}}\n" for i in range(900)),
    "aliases of a long expression": f"modifiers:\n- !X {{a: [&e eval({LONG}), " + "*e, " * 5000 + "]}\n",
    "merges": MERGES + ONE,
    "merges in a modifier": MERGES + "modifiers:\n- !X {<<: *a8}\n",
    "merge of many": f"a: &a {dict.fromkeys(range(1000), 1)}\nb:\n  <<: [" + "*a," * 4000 + "]\n" + ONE,
    "merge of itself": "a: &a {<<: *a, b: 1}\n" + ONE,
    "merge of itself in a list": "a: &a {<<: [*a, *a], b: 1}\n" + ONE,
    "evals": EVALS + ONE,
    "evals and arguments": EVALS + "modifiers:\n- !X {a: eval(a29)}\n",
    "evals calculated with": EVALS + "modifiers:\n- !X {a: eval(a29 * 2)}\n",
    "chain": "".join(f"v{i}: eval(v{i + 1} + 1)\n" for i in range(4000)) + "v4000: 1\n" + ONE,
    "chain of deep expressions": "".join(f"v{i}: eval({'(' * 45}v{i + 1}{')' * 45})\n" for i in range(39)) + ONE,
    "block lists": "a:\n" + "- " * 60_000 + "1\n" + ONE,
    "block mappings": "\n".join(" " * i + "a:" for i in range(400)) + ONE,
    "names": "? " * 60_000 + "1\n" + ONE,
    "flow lists": "a: " + "[" * 60_000 + "]" * 60_000 + ONE,
    "flow lists without an end": "a: " + "[" * 120_000 + ONE,
    "flow mappings": "a: " + "{a: " * 30_000 + ONE,
    "tags": "modifiers: " + "!X " * 30_000 + ONE,
    "anchors": "a: " + "&a " * 30_000 + ONE,
    "many values": "a: [" + "1," * 60_000 + "]\n" + ONE,
    "many variables": "".join(f"v{i}: 1\n" for i in range(12_000)) + ONE,
    "a megabyte": "a: " + "x" * 1_000_000 + ONE,
    "a megabyte of lines": "a: 1\n" * 200_000 + ONE,
    "a megabyte of spaces": " " * 1_000_000 + "\n" + ONE,
    "a long expression": "a: eval(" + "1+" * 50_000 + "1)\n" + ONE,
    "a long name": "a: eval(" + "a" * 60_000 + "x)\n? " + "a" * 60_000 + "\n: 1\n" + ONE,
    "many long names": "a: eval(" + "ab" * 30 + "x)\n" + "".join(f"{'ba' * 30}{i}: 1\n" for i in range(1900)) + ONE,
    "powers": "a: eval(9**9**9)\n" + ONE,
    "digits": "a: eval(round(1, -10**9))\n" + ONE,
    "a text that holds itself": "a: &a !!str {=: *a}\n" + ONE,
}  # fmt: skip


@pytest.mark.parametrize("text", BOMBS.values(), ids=list(BOMBS))
def test_bombs(text):
    for args in (None, {"a0": 3}, {"v0": 3}):
        if args is None or f"{next(iter(args))}:" in text:
            started = time.process_time()
            assert len(wrong(text, args, anchors=bool(args))) < 1200
            assert time.process_time() - started < SECONDS


@pytest.mark.parametrize(
    "name",  # one for each way to say much in few words; to trace memory takes long
    ["aliases", "aliases in stages", "aliases of a long expression", "merge of many", "evals and arguments"],
)
def test_bombs_take_no_memory(name):
    tracemalloc.start()
    try:
        wrong(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_metadata_is_not_looked_at():
    text = "metadata:\n  " + ALIASES.replace("\na", "\n  a") + ONE
    started = time.process_time()
    assert read_recipe(text).variables == {}
    assert time.process_time() - started < SECONDS


def test_the_largest_recipes_are_read_in_a_second():
    lists = "a: [" + "1," * 9900 + "]\n"
    lines = "\n".join(f"  m{i}_modifiers:\n  - !X {{a: eval(a), b: [1, 2]}}" for i in range(800)).replace(
        "\n  m", "\nm"
    )
    for text in (lists + ONE, "a: 1\n" + lines.removeprefix("  ") + "\n", "a: '" + "x y " * 31_000 + "'\n" + ONE):
        started = time.process_time()
        assert read_recipe(text, "a=3").modifiers
        assert time.process_time() - started < SECONDS


def test_deep_arguments():
    value: list = []
    for _ in range(5000):
        value = [value]
    text = "a: 1\nmodifiers:\n- !X {a: eval(a)}\n"
    assert "nested too deep" in wrong(text, {"a": value})
    assert "nested too deep" in wrong(text, {"a": value}, anchors=True)
    wrong(text, '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "more than" in wrong(text, {"a": ["x"] * 100_000})


def test_no_code_is_run(tmp_path):
    target = tmp_path / "written"
    call = f"__import__('os').system('touch {target}')"
    for text in (
        f'a: "eval({call})"' + ONE,
        f'modifiers:\n- !X {{a: "eval({call})"}}\n',
        f"a: !!python/object/apply:os.system ['touch {target}']" + ONE,
        f"modifiers:\n- !X\n  a: !!python/object/new:os.system ['touch {target}']\n",
        f"modifiers:\n- !!python/object/apply:os.system ['touch {target}']\n",
        f"!!python/object/apply:os.system ['touch {target}']\n",
        f"a: !!python/name:os.system ''{ONE}",
        f"%TAG ! tag:yaml.org,2002:python/\n---\nmodifiers:\n- !object/apply:os.system ['touch {target}']\n",
        f"%TAG !e! tag:yaml.org,2002:python/\n---\na: !e!object/apply:os.system ['touch {target}']" + ONE,
        f"modifiers:\n- !python/object/apply:os.system ['touch {target}']\n",
    ):
        wrong(text)
    for args in (f'{{"a": "eval({call})"}}', {"a": f"eval({call})"}):
        wrong("a: 1" + ONE, args)
    assert not target.exists()


# Rubbish: a Document or a UserError, and nothing else


def survives(source: str, args=None) -> bool:
    started = time.process_time()
    try:
        read_recipe(source, args, anchors=args is not None)
        return True
    except UserError:
        return False
    finally:
        assert time.process_time() - started < SECONDS


ARGUMENTS = [None, "num_epochs=3,init_lr=1e-4"]
SOUP = [
    *"-:?[]{}!&*#|>%@`,'\"\\ \t\n\r~<=.0123456789abexyz_\0\x07é²\u2028\ufeff",
    *(
        "\n  ",
        "\n- ",
        "\n    ",
        "\n",
        ": ",
        "- ",
        "- !X ",
        "!X\n",
        "modifiers:\n",
        "a: ",
        "b: ",
        "eval(",
        "a)",
        "&a ",
        "*a",
    ),
    *(
        "<<: *a",
        "---\n",
        "+++",
        "...\n",
        "!!int ",
        "!!bool ",
        "!!set ",
        "!!python/name:os.x ",
        "!!timestamp ",
        "%TAG ! x\n",
    ),
    *(
        "stage:\n  x_modifiers:\n  - !Y {a: eval(a)}\n",
        "null",
        "5e-5",
        "1:30",
        "2001-12-14",
        ".nan",
        "=: ",
        "? ",
        "0x",
        "0b",
    ),
]


@pytest.mark.parametrize("suffix", [".md", ".yaml"])
def test_bytes(tmp_path, suffix):
    dice, path = random.Random(2), tmp_path / f"recipe{suffix}"
    for i in range(200):
        data = dice.randbytes(dice.randrange(200))
        path.write_bytes(b"---\n" + bytes(byte & 127 for byte in data) + b"\n---\n" if i % 2 else data)
        survives(str(path))


@pytest.mark.parametrize("seed", range(4))
def test_soup(seed):
    dice = random.Random(seed)
    read = sum(
        survives(
            "".join(dice.choices(SOUP, k=dice.randrange(30))) + dice.choice(["\n", ONE]), dice.choice([None, "a=3"])
        )
        for _ in range(400)
    )
    assert read > 0


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_cut_short(tmp_path, path):
    data, target = path.read_bytes(), tmp_path / f"recipe{path.suffix}"
    for size in range(0, len(data), 70):
        target.write_bytes(data[:size])
        survives(str(target), ARGUMENTS[size // 70 % 2])


def mutated(dice: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    for _ in range(dice.randrange(1, 4)):
        i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
        what = dice.randrange(5)
        if what == 0:
            del lines[i]
        elif what == 1:
            lines.insert(i, lines[j])
        elif what == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif what == 3:
            at = dice.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:at] + dice.choice(SOUP) + lines[i][at + dice.randrange(2) :]
        else:
            lines[i] = dice.choice(["", " ", "  "]) + lines[i].lstrip()
        lines = lines or ["\n"]
    return "".join(lines)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_mutations(path):
    dice = random.Random(path.name)
    text = path.read_text()
    if path.suffix == ".md":  # the words after it are not read
        text = text[text.index("---") : text.index("---\n\n# INT8") + 4]
    else:
        text = text[text.index("version") :]
    read = sum(survives(mutated(dice, text) + "\n", ARGUMENTS[i % 2]) for i in range(80))
    assert 6 < read < 74
