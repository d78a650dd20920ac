"""Reading SparseML recipes: what its 1.5.4 read (the numbers are its own), and what is wrong, and where."""

from __future__ import annotations

import time
from math import inf, isnan
from pathlib import Path

import pytest

from sparse_xp.errors import UserError
from sparse_xp.recipe.loader import MAX_BYTES, TaggedMapping
from sparse_xp.recipe.text import parse_args, read_recipe

DATA = Path(__file__).parent / "data"
PRUNED70, PRUNED90, TEACHER = (
    DATA / name
    for name in ("bert-base-12layers_prune70_quant.md", "obert_pruned90_quant_squad.yaml", "squad_teacher.yaml")
)
SECONDS = 2.0  # of one core; on an idle machine everything takes less than half of one
ONE = "\nmodifiers:\n  - !X {a: 1}\n"


def said(source: str | Path, args=None, **options) -> list[tuple[str, dict]]:
    return [(each.name, each.fields) for each in read_recipe(str(source), args, **options).modifiers]


def fields(text: str, args=None, **options) -> dict:
    """Of the one modifier."""
    [(_, found)] = said(text, args, **options)
    return found


def wrong(source: str, args=None, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_recipe(source, args, **options)
    return str(caught.value)


# Recipes as they were published

LAYER = "re:bert.encoder.layer.*."
PRUNED70_SAID = [
    ("EpochRangeModifier", {"end_epoch": 40, "start_epoch": 0.0}),
    (
        "LearningRateFunctionModifier",
        {"start_epoch": 0.0, "end_epoch": 30.0, "lr_func": "linear", "init_lr": 5e-5, "final_lr": 0.0},
    ),
    (
        "LearningRateFunctionModifier",
        {"start_epoch": 30.0, "end_epoch": 40, "lr_func": "linear", "init_lr": 5e-5, "final_lr": 0.0},
    ),
    (
        "GMPruningModifier",
        {
            "params": [
                f"{LAYER}{name}.weight"
                for name in (
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                    "intermediate.dense",
                    "output.dense",
                )
            ],
            "start_epoch": 2,
            "end_epoch": 20,
            "init_sparsity": 0.0,
            "final_sparsity": 0.7,
            "inter_func": "cubic",
            "update_frequency": 0.01,
            "leave_enabled": True,
            "mask_type": [1, 4],
        },
    ),
    (
        "QuantizationModifier",
        {
            "start_epoch": 30.0,
            "disable_quantization_observer_epoch": 35.0,
            "freeze_bn_stats_epoch": 35.0,
            "submodules": ["bert.embeddings", "bert.encoder", "qa_outputs"],
        },
    ),
    (
        "DistillationModifier",
        {"hardness": 1.0, "temperature": 2.0, "distill_output_keys": ["start_logits", "end_logits"]},
    ),
]


def pruned90(epochs) -> list[tuple[str, dict]]:
    return [
        ("EpochRangeModifier", {"end_epoch": epochs, "start_epoch": 0.0}),
        (
            "LearningRateFunctionModifier",
            {"start_epoch": 0, "end_epoch": epochs, "lr_func": "linear", "init_lr": 1.75e-4, "final_lr": 0},
        ),
        (
            "QuantizationModifier",
            {
                "start_epoch": 8.0,
                "disable_quantization_observer_epoch": 12.0,
                "freeze_bn_stats_epoch": 12.0,
                "quantize_embeddings": 1,
                "quantize_linear_activations": 0,
                "exclude_module_types": ["LayerNorm"],
                "submodules": ["bert.embeddings", "bert.encoder", "qa_outputs"],
            },
        ),
        (
            "DistillationModifier",
            {"hardness": 1.0, "temperature": 5.0, "distill_output_keys": ["start_logits", "end_logits"]},
        ),
        ("ConstantPruningModifier", {"start_epoch": 0.0, "params": "__ALL_PRUNABLE__"}),
        ("SetWeightDecayModifier", {"start_epoch": 0.0, "weight_decay": 0.0}),
    ]


def test_pruned70():
    found = read_recipe(str(PRUNED70))
    assert [(each.name, each.fields) for each in found.modifiers] == PRUNED70_SAID
    assert found.variables == {
        "num_epochs": 40,
        "init_lr": 5e-5,
        "init_sparsity": 0.0,
        "final_sparsity": 0.7,
        "pruning_start_epoch": 2,
        "pruning_end_epoch": 20,
        "update_frequency": 0.01,
        "quantization_start_epoch": 30.0,
        "qat_freeze_epoch": 35.0,
        "distill_hardness": 1.0,
        "distill_temperature": 2.0,
    }
    assert found.remarks == []
    lines = PRUNED70.read_text().splitlines()
    for each in found.modifiers:
        line, column = each.positions[""]
        assert lines[line - 1][column - 1 :] == f"!{each.name}"
    assert lines[found.modifiers[3].positions["mask_type"][0] - 1] == "    mask_type: [1,4]"


def test_pruned70_and_the_anchor_trap():
    args = '{"num_epochs": 50}'
    found = read_recipe(str(PRUNED70), args)
    assert [(each.name, each.fields) for each in found.modifiers] == PRUNED70_SAID
    assert found.variables["num_epochs"] == 50
    [remark] = found.remarks
    assert "recipe.args changes num_epochs, which reaches no modifier: they say it by an anchor (*name)" in remark
    assert "recipe.anchors=true" in remark
    assert wrong(str(PRUNED70), args, strict=True) == remark
    for strict in (False, True):
        reached = read_recipe(str(PRUNED70), args, anchors=True, strict=strict)
        assert reached.remarks == []
        ends = [each.fields.get("end_epoch") for each in reached.modifiers]
        assert ends == [50, 30.0, 50, 20, None, None]


def test_pruned70_and_an_unknown_name():
    assert wrong(str(PRUNED70), {"nope": 1}).startswith(
        f"{PRUNED70}: recipe.args names nope, and the recipe has no such variable. Known: num_epochs, init_lr, "
    )
    assert "Did you mean 'num_epochs'?" in wrong(str(PRUNED70), "num_epoch=3")
    assert "no such variable" in wrong(str(PRUNED70), {"training_modifiers": []})


def test_pruned90():
    assert said(PRUNED90) == pruned90(13)
    assert said(PRUNED90, {"num_epochs": 20}, strict=True) == pruned90(20)
    found = read_recipe(str(PRUNED90), '{"num_epochs":8, "qat_start_epoch":4.0, "observer_epoch":7.0}', strict=True)
    quantization = found.modifiers[2].fields
    assert (quantization["start_epoch"], quantization["freeze_bn_stats_epoch"]) == (4.0, 7.0)


def test_teacher():
    rates = [
        {"start_epoch": 0, "end_epoch": 0.033, "lr_func": "linear", "init_lr": 0.0, "final_lr": 5e-5},
        {"start_epoch": 0.033, "end_epoch": 3, "lr_func": "linear", "init_lr": 5e-5, "final_lr": 0},
    ]
    assert said(TEACHER) == [
        ("EpochRangeModifier", {"end_epoch": 3, "start_epoch": 0.0}),
        *(("LearningRateFunctionModifier", rate) for rate in rates),
    ]
    found = read_recipe(str(TEACHER), '{"num_epochs":5, "init_lr":0.0002}', strict=True).modifiers
    assert (found[0].fields["end_epoch"], found[1].fields["final_lr"], found[2].fields["init_lr"]) == (5, 2e-4, 2e-4)


CI = """
num_epochs: 3
qat_epochs: 1
modifiers:
  - !EpochRangeModifier
    end_epoch: eval(num_epochs)
    start_epoch: 0.0
  - !LearningRateFunctionModifier
    end_epoch: 2
  - !QuantizationModifier
    start_epoch: eval(num_epochs - qat_epochs)
    disable_quantization_observer_epoch: eval(num_epochs - 1.0)
"""


def test_ci_recipe():
    epochs, rate, quantization = (found for _, found in said(CI, '{"num_epochs": 5, "qat_epochs": 2}', strict=True))
    assert epochs["end_epoch"] == 5
    assert rate["end_epoch"] == 2
    assert quantization == {"start_epoch": 3, "disable_quantization_observer_epoch": 4.0}
    assert [type(each) for each in quantization.values()] == [int, float]


# One modifier !X, and what is in it

READ = {
    "mask_type twice": ("modifiers:\n- !X\n  mask_type: unstructured\n  a: 1\n  mask_type: [1, 4]\n", [1, 4]),
    "variable twice": ("a: 1\nmodifiers:\n- !X {e: eval(a)}\na: 3\n", 3),
    "group twice": ("modifiers:\n- !Y {e: 1}\nmodifiers:\n- !X {e: 2}\n", 2),
    "merge": ("x: &b {start_epoch: 0, end_epoch: 3}\nmodifiers:\n- !X\n  <<: *b\n", 3),
    "merge, and a value of its own": ("x: &b {end_epoch: 3}\nmodifiers:\n- !X\n  end_epoch: 4\n  <<: *b\n", 4),
    "merge of two": ("x: &b {e: 3}\ny: &c {e: 5, f: 6}\nmodifiers:\n- !X\n  <<: [*b, *c]\n", 3),
    "merge of another modifier": ("m_modifiers:\n- &b !X {e: 3}\nmodifiers:\n- !X\n  <<: *b\n", 3),
    "deeper than the tag": ("modifiers:\n  - !X\n      e: 1\n", 1),
    "as deep as the tag": ("modifiers:\n  - !X\n    e: 1\n", 1),
    "the list as deep as its name": ("modifiers:\n- !X\n  e: 1\n", 1),
    "comment with a dot": ("modifiers:\n- !X # v1.0\n  e: 1\n", 1),
    "flow with a dot": ("modifiers:\n- !X {e: 0.5}\n", 0.5),
    "colon": ("modifiers:\n- !X:\n    e: 1\n", 1),
    "framework": ("modifiers:\n- !pytorch.X\n    e: 1\n", 1),
    "exclamation in a text": ("modifiers:\n- !X\n    e: what a !Y\n", "what a !Y"),
    "any name": ("foo_modifiers_2:\n- !X {e: 1}\n", 1),
    "null group": ("pruning_modifiers:\nmodifiers:\n- !X {e: 1}\n", 1),
    "empty group": ("pruning_modifiers: []\nmodifiers:\n- !X {e: 1}\n", 1),
    "bare modifier": ("!X\ne: 1\n", 1),
    "modifier without a list": ("modifiers: !X\n  e: 1\n", 1),
    "int": ("a: 2\nmodifiers:\n- !X {e: eval(a)}\n", 2),
    "text": ("a: 'linear'\nmodifiers:\n- !X {e: eval(a)}\n", "linear"),
    "list": ("a: [b, 1]\nmodifiers:\n- !X {e: eval(a)}\n", ["b", 1]),
    "null": ("a:\nmodifiers:\n- !X {e: eval(a)}\n", None),
    "bool": ("a: true\nmodifiers:\n- !X {e: eval(a + 1)}\n", 2),
    "in a list": ("a: 2\nmodifiers:\n- !X {e: [eval(a), [eval(a * 2)]]}\n", [2, [4]]),
    "in a mapping, not its keys": ("a: 2\nmodifiers:\n- !X {e: {eval(a): eval(a)}}\n", {"eval(a)": 2}),
    "not the whole": ("a: 2\nmodifiers:\n- !X {e: eval(a) * 2}\n", "eval(a) * 2"),
    "any order": ("c: eval(b + 1)\nb: eval(a * 2)\na: 2\nmodifiers:\n- !X {e: eval(c)}\n", 5),
    "text at the top": ("g: eval(f)\nf: x\nmodifiers:\n- !X {e: eval(g)}\n", "x"),  # SparseML raises
    "name of another alphabet": ("é: 2\nmodifiers:\n- !X {e: eval(é * 2)}\n", 4),
    "5e-5": ("a: 5e-5\nmodifiers:\n- !X {e: eval(a * 2)}\n", 1e-4),  # SparseML raises
    "1e-2": ("modifiers:\n- !X {e: 1e-2}\n", 0.01),  # SparseML hands on a text
    "5e-05": ("modifiers:\n- !X {e: 5e-05}\n", 5e-5),
    "a text stays one": ("modifiers:\n- !X {e: '5e-05'}\n", "5e-05"),
    "a text is calculated with": ("a: '5e-05'\nmodifiers:\n- !X {e: eval(a * 2)}\n", 1e-4),
    "1.": ("modifiers:\n- !X {e: 1.e+3}\n", 1000.0),
    "document marker": ("---\nmodifiers:\n- !X {e: 1}\n", 1),
    "front matter": ("<!-- licence -->\n\n  ---\nmodifiers:\n- !X {e: 1}\n---\n# {[\n", 1),
    "+++": ("+++\nmodifiers:\n- !X {e: 1}\n+++\n", 1),
    "--- in a comment": ("---\n# --- pruning ---\nmodifiers:\n- !X {e: 1}\n---\n", 1),  # SparseML stops there
    "line ends of Windows": ("---\r\na: 2\r\nmodifiers:\r\n- !X {e: eval(a)}\r\n---\r\nText\r\n", 2),
    "metadata": ("version: 1.1.0\n__metadata__: {a: [1]}\nmetadata: {b: c}\nmodifiers:\n- !X {e: 1}\n", 1),
    "stage": ("a: 1\ns1:\n  a: 2\n  m_modifiers:\n  - !X {e: eval(a)}\n", 2),
    "the recipe's in a stage's": ("a: 1\ns1:\n  b: eval(a)\n  m_modifiers:\n  - !X {e: eval(b + a)}\n", 2),
    "the recipe's know no stage": ("a: 1\nb: eval(a * 2)\ns1:\n  a: 5\n  m_modifiers:\n  - !X {e: eval(b)}\n", 2),
    "of the same name": ("a: 1\ns1:\n  a: eval(a)\n  m_modifiers:\n  - !X {e: eval(a)}\n", 1),
    "no number to the base of 60": ("modifiers:\n- !X {e: 1:30}\n", "1:30"),
    "octal": ("modifiers:\n- !X {e: 010}\n", 8),
    "inf": ("modifiers:\n- !X {e: .inf}\n", inf),
    "long text": ("modifiers:\n- !X {e: " + "x" * 100_000 + "}\n", "x" * 100_000),
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=list(READ))
def test_read(text, expected):
    *_, (name, found) = said(text)
    assert name == "X"
    value = found["end_epoch" if "end_epoch" in found else "mask_type" if "mask_type" in found else "e"]
    assert value == expected
    assert type(value) is type(expected)


def test_a_modifier_without_parameters():
    found = read_recipe("modifiers:\n  - !DistillationModifier\n  - !X {}\n").modifiers
    assert found == [TaggedMapping("DistillationModifier", {}, {"": (2, 5)}), TaggedMapping("X", {}, {"": (3, 5)})]


def test_nan_and_dates_are_values():
    found = fields("modifiers:\n- !X {a: .nan, b: 2001-12-14}\n")
    assert isnan(found["a"])
    assert str(found["b"]) == "2001-12-14"
    assert "not a number" in wrong("a: .nan\nmodifiers:\n- !X {e: eval(a * 1)}\n")


def test_groups_and_stages_in_order():
    assert [name for name, _ in said("b_modifiers:\n- !B\n- !A\na_modifiers:\n- !C\n")] == ["B", "A", "C"]
    stages = "s2:\n  modifiers:\n  - !B {a: eval(lr)}\n  lr: 2\nlr: 1\ns1:\n  x_modifiers:\n  - !A {a: eval(lr)}\n"
    assert said(stages) == [("B", {"a": 2}), ("A", {"a": 1})]
    assert read_recipe(stages).variables == {"lr": 1}
    assert said(stages, "lr=7") == [("B", {"a": 7.0}), ("A", {"a": 7.0})]


def test_stages_beside_modifiers_are_not_run():
    text = "modifiers:\n- !A\nstage:\n  modifiers:\n  - !B\n"
    [remark] = read_recipe(text).remarks
    assert [name for name, _ in said(text)] == ["A"]
    assert "modifiers at the top as well as stages (stage): the stages are not run" in remark
    assert wrong(text, strict=True) == remark


def test_yml_and_a_byte_order_mark(tmp_path):  # SparseML refuses .yml
    path = tmp_path / "recipe.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 1" + ONE.encode())
    assert said(path) == [("X", {"a": 1})]


# recipe.args

ARGS = {
    "none": (None, {}),
    "empty": ("", {}),
    "mapping": ({"num_epochs": 5, "lr": "x"}, {"num_epochs": 5, "lr": "x"}),
    "JSON": (
        '{"num_epochs": 5, "init_lr": 5e-5, "f": "linear"}',
        {"num_epochs": 5, "init_lr": 5e-5, "f": "linear"},
    ),
    "CSV": ("num_epochs=8, init_lr = 1e-4", {"num_epochs": 8.0, "init_lr": 1e-4}),
    "CSV with colons": ("num_epochs:8", {"num_epochs": 8.0}),
    "CSV of texts": ("flag=True,f=linear,g=", {"flag": "True", "f": "linear", "g": ""}),
}


@pytest.mark.parametrize(("args", "expected"), ARGS.values(), ids=list(ARGS))
def test_args(args, expected):
    found = parse_args(args)
    assert found == expected
    assert [type(each) for each in found.values()] == [type(each) for each in expected.values()]


@pytest.mark.parametrize(
    "args", ["5", "[1]", '{"a": 1', "{a}=1", "a", "!a=1", "=1", "a=1,,b=2", "[" * 100_000, "a=1, b c=2", '"' * 50]
)
def test_wrong_args(args):
    assert wrong("a: 1" + ONE, args).startswith("recipe.args")
    assert len(wrong("a: 1" + ONE, args)) < 300


def test_long_args_are_read_at_once():
    started = time.process_time()
    assert parse_args("a=" + " " * 1_000_000 + "x") == {"a": "x"}
    assert parse_args("a=x" + " " * 1_000_000) == {"a": "x"}
    wrong("a: 1" + ONE, "a" + " " * 1_000_000)
    assert time.process_time() - started < SECONDS


ANCHORED = "x: &x 1\ny: *x\nmodifiers:\n- !X {a: *x, b: eval(y)}\n"


def test_an_alias_is_not_the_home_of_a_value():
    # y says x's value by an alias: to change y is not to change x.
    assert fields(ANCHORED, "y=5", anchors=True, strict=True) == {"a": 1, "b": 5}
    assert fields(ANCHORED, "y=5", strict=True) == {"a": 1, "b": 5}
    assert fields(ANCHORED, "x=5", anchors=True, strict=True) == {"a": 5, "b": 5}
    assert fields(ANCHORED, "x=5") == {"a": 1, "b": 1}
    assert "reaches no modifier: they say it by an anchor" in wrong(ANCHORED, "x=5", strict=True)


def test_an_anchor_beside_an_eval():
    text = "x: &x 1\nmodifiers:\n- !X {a: *x, b: eval(x)}\n"
    assert fields(text, "x=5") == {"a": 1, "b": 5}
    assert "reaches not every modifier: some say it by an anchor" in wrong(text, "x=5", strict=True)
    assert fields(text, "x=5", anchors=True, strict=True) == {"a": 5, "b": 5}


@pytest.mark.parametrize("value", [7, 2.5, True, "text", "5e-5", [1, 2], None, inf])
def test_an_anchor_takes_any_value(value):
    text = "x: &x 1\nmodifiers:\n- !X {a: *x}\n"
    assert fields(text, {"x": value}, anchors=True, strict=True) == {"a": value}


def test_an_argument_that_nothing_asks_for():
    assert "reaches no modifier. Write eval(x) in the recipe." in wrong("x: 1" + ONE, "x=5", strict=True)
    assert "and recipe.args names x" in wrong("!X\na: 1\n", "x=5")


# Mistakes: each with the place that a person has to look at

WRONG = {
    "indentation": ("a: 1\nmodifiers:\n  - !X\n    a: 1\n   b: 2\n", "5:4", "expected <block end>"),
    "indentation of a name": ("a: 1\n b: 2\n", "2:3", "mapping values are not allowed here"),
    "tab": ("modifiers:\n\t- !X\n", "2:1", "found character '\\t' that cannot start any token"),
    "colon": ("modifiers:\n  - !X\n    a 1\n    b: 2\n", "4:6", "mapping values are not allowed here"),
    "unclosed bracket": ("a: 1\nb: [1, 2\nc: 3\n", "3:2", "got ':' (while parsing a flow sequence of line 2)"),
    "unclosed quote": ("a: 'x\n", "2:1", "found unexpected end of stream (while scanning a quoted scalar of line 1)"),
    "unknown alias": ("modifiers:\n- !X {a: *b}\n", "2:10", "found undefined alias 'b'"),
    "anchor twice": ("a: &x 1\nb: &x 2\n", "2:4", "found duplicate anchor 'x'; first occurrence"),
    "two documents": ("modifiers:\n- !X\n---\na: 1\n", "3:1", "expected a single document"),
    "control character": ("a: 1\nb: \x07\n", "2:4", "a character that YAML does not allow (number 7)"),
    "surrogate": ("a: 1\nbc: \ud800\n", "2:5", "a character that YAML does not allow"),
    "unknown variable": ("num: 1\nmodifiers:\n- !X\n  a: eval(nim)\n", "4:6", "nim. Did you mean 'num'?"),
    "unknown in an expression": ("n: 1\nmodifiers:\n- !X\n  a: eval(n + nn)\n", "4:6", "unknown variable nn"),
    "unknown in a variable": ("a: 1\nb: eval(c)" + ONE, "2:4", "unknown variable c. Known: a, b."),
    "unknown in a stage": ("a: 1\ns:\n  b: eval(c)\n  modifiers:\n  - !X\n", "3:6", "unknown variable c"),
    "cycle": ("c: eval(a)\na: eval(b)\nb: eval(a + 1)" + ONE, "3:4", "variables that need each other: a -> b -> a"),
    "cycle of one": ("a: eval(a)" + ONE, "1:4", "a -> a"),
    "cycle in a stage": ("s:\n  a: eval(b)\n  b: eval(a)\n  modifiers:\n  - !X\n", "3:6", "a -> b -> a"),
    "arithmetic with a text": ("a: x\nmodifiers:\n- !X {b: eval(a * 2)}\n", "3:10", "a is 'x', not a number"),
    "ternary": ("a: 1\nmodifiers:\n- !X {b: eval(a if a else 2)}\n", "3:10", "found 'if' at character 3"),
    "two evals": ("a: 1\nmodifiers:\n- !X {b: eval(a) + eval(a)}\n", "3:10", "found ')' at character 2"),
    "a list of another name": ("pruning:\n- !X {a: 1}\n", "2:1", "modifiers under 'pruning'"),
    "a modifier of another name": ("pruning: !X {a: 1}\n", "1:10", "modifiers under 'pruning'"),
    "a tagged stage": ("s: !S\n  modifiers:\n  - !X\n", "1:4", "modifiers under 's'"),
    "no tag": ("modifiers:\n- X:\n    a: 1\n", "2:3", "modifiers holds {'X': {'a': 1}}; expected '- !NameModifier'"),
    "text": ("modifiers: foo\n", "1:12", "modifiers holds 'foo'"),
    "empty text": ("modifiers: ''\n", "1:12", "modifiers holds ''"),
    "null in the list": ("modifiers:\n- !X\n-\n", "3:2", "modifiers holds None"),
    "bare list": ("- !X {a: 1}\n", "1:1", "expected 'name: value' lines at the top"),
    "a text": ("just\ntext\n", "1:1", "expected 'name: value' lines at the top"),
    "tag with a list": ("modifiers:\n- !X [1]\n", "2:3", "!X needs 'name: value' lines"),
    "tag with a text": ("modifiers:\n- !X foo\n", "2:3", "!X needs 'name: value' lines"),
    "modifier in a modifier": ("modifiers:\n- !X {a: [!Y {b: 1}]}\n", "2:10", "!Y in a value"),
    "modifier in a variable": ("a: {b: [!Y {b: 1}]}" + ONE, "1:4", "!Y in a value"),
    "newer dialect": ("pruning_modifiers:\n  Magnitude: {a: 1}\n", "2:3", "the later dialect of SparseML 1.6"),
    "newer stages": ("s:\n  run_type: train\n  p_modifiers:\n    M: {a: 1}\n", "4:5", "the later dialect"),
    "list as a name": ("? [a, b]\n: c\n", "1:3", "a sequence as a name"),
    "list as a name inside": ("a:\n  ? [a, b]\n  : c" + ONE, "2:5", "a sequence as a name"),
    "modifier as a name": ("? !X {a: 1}\n: c\n", "1:3", "a mapping as a name"),
    "list in itself": ("a: &a [*a]" + ONE, "1:4", "found unconstructable recursive node"),
    "python": ("a: !!python/object/apply:os.getcwd []" + ONE, "1:4", "could not determine a constructor"),
    "python at the top": ("!!python/object:os.x {modifiers: [!X {a: 1}]}\n", "1:1", "expected 'name: value' lines"),
    "binary": ("a: !!binary =\n" + ONE, "1:4", "no recipe has a !!binary"),
    "set": ("a: !!set {b, c}\n" + ONE, "1:4", "no recipe has a !!set"),
    "omap": ("a: !!omap [b: c]\n" + ONE, "1:4", "no recipe has a !!omap"),
    "date": ("a: 2001-13-45" + ONE, "1:4", "cannot be read as timestamp"),
    "!!timestamp": ("a: !!timestamp x" + ONE, "1:4", "cannot be read as timestamp"),
    "!!int": ("a: !!int ''" + ONE, "1:4", "cannot be read as int"),
    "!!float": ("a: !!float x" + ONE, "1:4", "cannot be read as float"),
    "!!bool": ("a: !!bool x" + ONE, "1:4", "cannot be read as bool"),
    "!!bool of a mapping": ("a: !!bool {=: x}" + ONE, "1:4", "cannot be read as bool"),
    "int of 5000 digits": ("a: " + "7" * 5000 + ONE, "1:4", "a number of 5000 digits"),
    "hexadecimal": ("a: 0x" + "f" * 100_000 + ONE, "1:4", "a number of 100002 digits"),
    "sexagesimal": ("a: 1" + ":1" * 60_000 + ONE, "1:4", "a number of 120001 digits"),
    "sexagesimal float": ("a: 1" + ":1" * 60_000 + ".0" + ONE, "1:4", "a number of 120003 digits"),
    "merge of a text": ("modifiers:\n- !X\n  <<: foo\n", "3:7", "expected a mapping or list of mappings for merging"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), WRONG.values(), ids=list(WRONG))
def test_wrong(tmp_path, text, place, message):
    assert wrong(text).startswith(f"recipe:{place}: ")
    assert message in wrong(text)
    assert len(wrong(text)) < 500
    if "\ud800" in text:
        return
    path = tmp_path / "recipe.md"  # nine lines further down
    path.write_text("\n" * 8 + "---\n" + text.removesuffix("\n") + "\n...\n---\n", encoding="utf-8")
    if text.endswith(ONE):
        line, column = place.split(":")
        assert wrong(str(path)).startswith(f"{path}:{int(line) + 9}:{column}: ")


FILES = {
    "recipe.md": [
        (b"# Title\n", "recipe.md: no front matter: expected the recipe between two lines '---'"),
        (b"", "recipe.md: no front matter"),
        (b"# Title\n\n ---\na: 1\n", "recipe.md:3:2: front matter that never ends"),
        (b"---\n---\n", "recipe.md: empty"),
        (b"---\na: 1\n---\n", "recipe.md: no modifiers: expected a list such as 'modifiers:'"),
    ],
    "recipe.yaml": [
        (b"", "recipe.yaml: empty"),
        (b"# only a comment\n", "recipe.yaml: empty"),
        (b"a: 1\nb: \xe9t\xe9\n", "recipe.yaml:2:4: not UTF-8 (byte 8)"),
        ("a: é\nbé: é\0".encode("utf-16"), "recipe.yaml:1:1: not UTF-8 (byte 0)"),
        (b"a: 1\n" + b"#" * MAX_BYTES, f"recipe.yaml: a recipe may have {MAX_BYTES} bytes"),
        (b"modifiers: []\n", "recipe.yaml: no modifiers"),
    ],
}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [(name, *case) for name, cases in FILES.items() for case in cases],
    ids=lambda x: str(x)[:40],
)
def test_wrong_files(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)  # which is the working directory
    assert wrong(name).startswith(message)


@pytest.mark.parametrize("name", ["recipe", "recipe.json", "recipe.txt", "recipe.MD", "", "md", "x" * 5000, "zoo:a/b"])
def test_wrong_suffix(name):
    assert "expected a file ending in .md, .yaml or .yml" in wrong(name)


@pytest.mark.parametrize("name", ["no.yaml", "a\0.yaml", "x" * 5000 + ".md", "\ud800.yml"])
def test_no_such_file(name):
    assert wrong(name).startswith("recipe.path=")


def test_a_folder(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    assert "Is a directory" in wrong("a.yaml")
