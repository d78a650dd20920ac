"""Arithmetic of recipes: what SparseML calculated, what it refused; nothing takes long or is run."""

from __future__ import annotations

import contextlib
import math
import random
import time

import pytest

from sparse_xp.recipe.expressions import FUNCTIONS, ExpressionError, evaluate_expression, names_in

VARIABLES = {"a": 2, "n": 3, "b": True, "num_epochs": 5, "qat_epochs": 2, "huge": 10**4000, "inf": math.inf}


def value(text: str) -> int | float:
    return evaluate_expression(text, VARIABLES.__getitem__)


CASES = {
    "sparseml num_epochs - qat_epochs": 3,
    "sparseml max(a, 1) * 2": 4,
    "sparseml round(0.5 * 1)": 0,
    "sparseml round(0.5 * n)": 2,
    "sparseml 2 ** 3 // 3": 2,
    "sparseml round(0.5*n)": 2,
    "sparseml n % 2 + a": 3,
    "sparseml int(7 / a)": 3,
    "sparseml b + a": 3,
    "sparseml a / n": 2 / 3,
    "sparseml min(a,n,5)": 2,
    "sparseml 0 - a + n": 1,
    "sparseml num_epochs - 1.0": 4.0,
    "sign -a": -2,
    "sign +a": 2,
    "sign -a ** 2": -4,
    "sign 2 ** -1": 0.5,
    "sign a--n": 5,
    "order 2 ** 3 ** 2": 512,
    "order 10 - 4 - 3": 3,
    "order -7 // 2": -4,
    "order 2 + 3 * 4": 14,
    "order (2 + 3) * 4": 20,
    "number .5 + 5. + 1e-1 + 5E+1": 55.6,
    "function float(3)": 3.0,
    "function abs(-1.5)": 1.5,
    "function round(2.345, 1)": 2.3,
    "function max(a, min(n, 9), 1)": 3,
    "space \t a\n+ n ": 5,
}


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=str)
def test_value(text, expected):
    found = value(text.partition(" ")[2])
    assert found == pytest.approx(expected, abs=1e-12)
    assert type(found) is type(expected)


WRONG = {
    "sparseml a if b else c": "found 'if' at character 3, expected an operator",
    "sparseml 'x'": "found \"'\" at character 1, expected a number, a variable or '('",
    "sparseml pow(a,n)": "unknown function pow (character 1). Known: abs, float, int, max, min, round",
    "sparseml sum(a, n)": "unknown function sum (character 1)",
    "sparseml n.real": "found '.' at character 2, expected an operator",
    "sparseml a < n": "found '<' at character 3, expected an operator",
    "sparseml a == n": "found '=' at character 3",
    "sparseml a and n": "found 'and' at character 3",
    "sparseml a) + (b": "found ')' at character 2, expected an operator",
    "sparseml (a, n)": "found ',' at character 3, expected ')'",
    "sparseml math.floor(a)": "found '.' at character 5",  # a variable, and then no operator
    "sparseml a[0]": "found '[' at character 2",
    "empty ": "found the end at character 1, expected a number",
    "end a +": "found the end at character 4, expected a number",
    "end (a": "found the end at character 3, expected ')'",
    "arguments max()": "found ')' at character 5, expected a number",
    "arguments abs(1, 2)": "abs at character 1 takes one number, not 2",
    "arguments round(1, 2, 3)": "round at character 1: ",
    "arguments round(1.5, 0.5)": "round at character 1: ",
    "arguments max(a, c=n)": "found '=' at character 9, expected ')'",
    "function max": "max at character 1 is a function: write max(...)",
    "zero a / (n - 3)": "/ at character 3: division by zero",
    "zero a % 0": "% at character 3: ",
    "zero 0 ** -1": "** at character 3: ",
    "complex (-8) ** 0.5": "** at character 6: the result is not a number up to 1e+15",
    "size 9**9**9": "the result is not a number up to 1e+15",
    "size 9**9**9**9**9": "the result is not a number",
    "size round(1, -10**9)": "expected -15 to 15 digits, not -1000000000",
    "size 10**8 * 10**8": "the result is not a number up to 1e+15",
    "size -huge": "the expression: the result is not a number",
    "size huge * huge": "the result is not a number",
    "size (inf)": "the expression: the result is not a number",
    "size inf - inf": "the result is not a number",
    "size int(inf)": "int at character 1: the result is not a number",
    "size 1e999": "1e999 at character 1: the result is not a number",
    "size " + "9" * 900: "at character 1: the result is not a number",
    "length " + "1+" * 501 + "1": "an expression of 1003 characters; 1000 are allowed",
    "length " + "a" * 1_000_000: "an expression of 1000000 characters",
    "depth " + "(" * 200 + "a" + ")" * 200: "nested deeper than 50",
    "depth " + "-" * 400 + "a": "nested deeper than 50",
    "depth " + "1**" * 300 + "1": "nested deeper than 50",
    "depth " + "abs(" * 150 + "a" + ")" * 150: "nested deeper than 50",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=lambda text: text[:40])
def test_wrong(text, message):
    names = VARIABLES | {"math": 1, "c": 1}
    started = time.process_time()
    with pytest.raises(ExpressionError) as caught:
        evaluate_expression(text.partition(" ")[2], names.__getitem__)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200
    assert time.process_time() - started < 2


def test_names():
    assert names_in("max(a, 1) + round(num_epochs - qat_epochs) * é") == {"a", "num_epochs", "qat_epochs", "é"}
    assert evaluate_expression("é * 2", {"é": 4}.__getitem__) == 8


def test_what_a_variable_raises_comes_through():
    with pytest.raises(KeyError):
        value("a + nope")


def test_is_never_code(tmp_path):
    target = tmp_path / "written"
    for text in (
        f"__import__('os').system('touch {target}')",
        f"open('{target}', 'w')",
        f"(lambda: open('{target}', 'w'))()",
        f"[x for x in [open('{target}', 'w')]]",
        f"a.__class__.__base__.__subclasses__()[0]('{target}')",
        "exec",
    ):
        with pytest.raises((ExpressionError, KeyError)):
            value(text)
    assert not target.exists()


def grown(dice: random.Random, depth: int) -> str:
    """An expression that Python reads too, and of the same meaning."""
    if depth == 0 or dice.random() < 0.2:
        return dice.choice(["a", "n", "b", "num_epochs", "0", "1", "7", "0.5", "2.", ".25", "1e2", "3e-1"])
    one, other = grown(dice, depth - 1), grown(dice, depth - 1)
    return dice.choice(
        [
            f"{one} {dice.choice(['+', '-', '*', '/', '//', '%', '**'])} {other}",
            f"({one})",
            f"-{one}",
            f"+ {one}",
            f"{dice.choice(['max', 'min'])}({one}, {other}, 1)",
            f"{dice.choice(['abs', 'float', 'int', 'round'])}({one})",
        ]
    )


def test_agrees_with_python():
    dice, agreed = random.Random(0), 0
    for _ in range(1500):
        text = grown(dice, 3)
        if text.count("**") > 1:  # Python itself may not come back
            continue
        try:
            found: object = value(text)
        except ExpressionError:
            found = None
        try:
            expected = eval(text, {"__builtins__": FUNCTIONS}, VARIABLES)  # noqa: S307
        except ArithmeticError:
            expected = None
        if expected is None or isinstance(expected, complex) or abs(expected) > 1e15:
            assert found is None, text
        elif found is not None:  # it may have been larger on the way
            assert found == expected, text
            assert type(found) is type(expected), text
            agreed += 1
    assert agreed > 1000


PIECES = [
    *"()+-*/%.,_'\"[]{}<>=!&|~^@:;\\ \n\t0123456789eEjLxob",
    "**",
    "//",
    "a",
    "n",
    "max(",
    "round(",
    "int(",
    "é",
    "²",
    "٣",
]


def test_soup():
    dice = random.Random(1)
    started = time.process_time()
    for _ in range(4000):
        text = "".join(dice.choices(PIECES, k=dice.randrange(30)))
        with contextlib.suppress(ExpressionError):
            assert abs(evaluate_expression(text, lambda name: 2)) <= 1e15
        names_in(text)
    assert time.process_time() - started < 5
