"""``KEY=VALUE``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sparse_xp.cli import parse_key_values, parse_list, positive_integer, quote_paths, require_keys, run_command
from sparse_xp.errors import UserError
from tests.runs import configure


def test_values_may_hold_anything():
    assert parse_key_values(["question=Is a=b?", "out="]) == {"question": "Is a=b?", "out": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "run: expected KEY=VALUE. Did you mean 'run'"),
        (["ran=x"], "Unknown option 'ran='. Did you mean 'run'"),
    ],
)
def test_other_words(words, message):
    with pytest.raises(UserError, match=message):
        parse_key_values(words, ("run", "out"))


def test_lists_and_numbers():
    assert parse_list("[1, 32]") == parse_list("1,32") == ["1", "32"]
    assert positive_integer("batch", "32") == 32
    for value in ("0", "-1", "x", "1.5", ""):
        with pytest.raises(UserError, match=r"batch=.*: expected a whole number"):
            positive_integer("batch", value)


def test_paths_that_exist_are_taken_quote_paths(tmp_path, monkeypatch):
    """The directory of a run has ``,`` and ``=`` in its name, which Hydra would read as a sweep or not at all."""
    monkeypatch.chdir(tmp_path)
    for name in ("squad,tiny,seed=42", "plain", "it's (here)"):
        Path(name).mkdir()
    words = ["teacher.path=squad,tiny,seed=42", "+teacher.path=it's (here)", "teacher.path=plain", "seed=1,2", "-m"]
    assert quote_paths(words) == ["teacher.path='squad,tiny,seed=42'", r"+teacher.path='it\'s (here)'", *words[2:]]


def test_a_run_directory_may_be_new():
    assert quote_paths(["hydra.run.dir=new,seed=1", "hydra.run.dir='a=b'"]) == [
        "hydra.run.dir='new,seed=1'",
        "hydra.run.dir='a=b'",
    ]


def test_a_missing_key_is_named():
    require_keys({"model": "a", "out": "b"}, "model", "out")
    with pytest.raises(UserError, match=r"^out= is missing\.$"):
        require_keys({"model": "a"}, "model", "out")


@pytest.mark.parametrize(
    ("argv", "needs_arguments", "shown"),
    [
        ([], True, "help"),
        (["-h"], True, "help"),
        (["--help", "a=b"], False, "help"),
        ([], False, "ran []"),
        (["a=b", "-h"], True, "ran ['a=b', '-h']"),
    ],
)
def test_a_command_runs_or_prints_its_help(monkeypatch, capsys, argv, needs_arguments, shown):
    monkeypatch.setattr(sys, "argv", ["command", *argv])
    run_command(lambda argv: print("ran", argv), "help", needs_arguments=needs_arguments)
    assert capsys.readouterr().out == f"{shown}\n"


def fail(argv):
    raise UserError(f"no such thing: {argv[0]}")


@pytest.mark.parametrize("hint", [False, True])
def test_an_error_of_the_user_is_one_short_message(monkeypatch, hint):
    monkeypatch.setattr(sys, "argv", ["command", "a"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as stopped:
        run_command(fail, hint=hint)
    assert str(stopped.value.code).splitlines()[0] == "no such thing: a"
    assert ("HYDRA_FULL_ERROR=1" in str(stopped.value.code)) == hint
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError):
        run_command(fail)


def test_a_home_directory_in_a_value_is_expanded(monkeypatch):
    """Shells expand ``~`` where a word begins, and Hydra cannot read it."""
    monkeypatch.setenv("HOME", "/home/somebody")
    words = ["model.checkpoint=~/models/x", "~data", "task=sst2"]
    assert quote_paths(words) == ["model.checkpoint=/home/somebody/models/x", "~data", "task=sst2"]


def test_quote_paths_keeps_names_of_classes_and_separators_as_they_are_written():
    words = [
        "task.classes=[01, 1_1,true,1.50,a b]",
        "task.classes=[0,-1,no]",
        "task.classes=['1',b]",
        "data.separator=;",
    ]
    assert quote_paths(words) == ["task.classes=['01','1_1','true','1.50',a b]", *words[1:3], "data.separator=';'"]
    options = [
        configure("data.train=t.csv", *quote_paths([word])).data.separator
        for word in ("data.separator=,", "data.separator=tab")
    ]
    assert options == [",", "tab"]
    task = configure("task=custom_classification", *quote_paths(["task.classes=[007,1_1,true,1e3,null]"])).task
    assert task.label_names == ["007", "1_1", "true", "1e3", "null"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.separator=ab", r"data\.separator='ab': expected comma, semicolon, tab"),
        ("data.quoting=maybe", r"data\.quoting=maybe: expected one of minimal, all, none"),
        ("data.encoding=rot13", r"data\.encoding=rot13: expected an encoding of texts"),
        ("data.encoding=utf-16", r"data\.encoding='utf-16' is for files of your own: it needs data\.train=FILE"),
    ],
)
def test_options_of_text_files_are_checked(word, message):
    words = [word] if "utf" in word else ["data.train=t.csv", word]
    with pytest.raises(UserError, match=message):
        configure(*words)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ('{"num_epochs": 8, "qat_start_epoch": 4.0}', {"num_epochs": 8, "qat_start_epoch": 4.0}),
        (
            '{"a": "it\'s", "b": [1, {"c": null}], "d": true, "e": 1e-5}',
            {"a": "it's", "b": [1, {"c": None}], "d": True, "e": 1e-5},
        ),
        ("{num_epochs: 8}", {"num_epochs": 8}),
        ("{name: 'x y'}", {"name": "x y"}),
        ("{}", {}),
    ],
)
def test_objects_may_be_json_or_hydras(typed, read):
    [word] = quote_paths([f"recipe.args={typed}"])
    assert OverridesParser.create().parse_override(word).value() == read


def test_objects_of_a_sweep_are_several():
    [word] = quote_paths(['recipe.args={"a": 1}, {"a": 2}'])
    assert OverridesParser.create().parse_override(word).value().list == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ('{"num_epochs": 8', "this is no JSON: Expecting ',' delimiter at character 17. Write recipe.args="),
        ('{"num_epochs": 8,}', "this is no JSON: "),
        ("{'num_epochs': 8}", "this is no JSON: "),
        ('{"num epochs": 8}', "'num epochs': a name consists of letters, digits and _."),
    ],
)
def test_a_broken_object_is_refused(typed, said):
    with pytest.raises(UserError) as error:
        quote_paths([f"recipe.args={typed}"])
    assert said in str(error.value)
