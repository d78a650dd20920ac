"""``python -m sparse_xp.recipe``: what it prints, what it refuses and where, and that it does so without torch."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from transformers import BertConfig

from sparse_xp.cli import run_command
from sparse_xp.recipe.__main__ import main
from sparse_xp.recipe.view.matches import abbreviate_names
from sparse_xp.recipe.zoo import FILES
from tests.runs import HANGS
from tests.tiny import make_bert

PRINTED = str(FILES / "bert-base-12layers_prune70_quant.md")
RECIPE = """\
num_epochs: 4
decay: &decay 0.01
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(num_epochs)}
  - !LearningRateFunctionModifier
    start_epoch: 0
    end_epoch: 3
    lr_func: linear
    init_lr: 0.01
    final_lr: 0
  - !LearningRateFunctionModifier {start_epoch: 3, end_epoch: 4, lr_func: linear, init_lr: 0.01, final_lr: 0}
  - !GMPruningModifier
    params: ["re:.*attention.*(query|key).weight"]
    init_sparsity: 0.0
    final_sparsity: 0.5
    start_epoch: 1
    end_epoch: 2
    update_frequency: 0.5
  - !SetWeightDecayModifier {weight_decay: *decay}
"""


OK = "old.yaml: ok, 4 modifiers, 4 epochs\n"


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "old.yaml").write_text(RECIPE)
    return "old.yaml"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command in this process; exit code, output and what it said about an error."""

    def run(*words: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["recipe", *words])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        capsys.readouterr()
        code, said = 0, ""
        try:
            run_command(main)
        except SystemExit as stop:
            code, said = (1, f"{stop.code}\n") if isinstance(stop.code, str) else (stop.code or 0, "")
        printed = capsys.readouterr()
        return code, printed.out, printed.err + said

    return run


# ---- check ----


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_a_good_recipe_is_ok(path, command):
    code, out, said = command("check", str(path))
    assert (code, said) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(path))}: ok, \d modifiers?, \d+ epochs\n", out)


def test_a_stub_of_the_zoo_can_be_checked(command, tmp_path, recipe):
    (tmp_path / "zoo.yaml").write_text(f"recipes: {{my/stub: {tmp_path}/{recipe}}}\n")
    assert command("check", "zoo:my/stub", "--zoo", "zoo.yaml")[0] == 0
    code, out, said = command("check", "zoo:my/stub")
    assert (code, out) == (1, "")
    assert said.startswith("zoo:my/stub: the SparseZoo was switched off")


@pytest.mark.parametrize(
    ("old", "new", "words", "message"),
    [
        (
            "lr_func: linear\n",
            "lr_func: liner\n",
            [],
            "old.yaml:5:5: !LearningRateFunctionModifier: LearningRate.shape",
        ),
        (
            "GMPruningModifier",
            "GMPruningModifer",
            [],
            "old.yaml:12:5: unknown modifier !GMPruningModifer. Did you mean",
        ),
        (
            "init_lr: 0.01\n",
            "init_lr: high\n",
            [],
            "old.yaml:9:14: !LearningRateFunctionModifier: init_lr: expected a number",
        ),
        (
            "    end_epoch: 3\n",
            "    end_epoch: 3.5\n",
            [],
            "old.yaml:5:5: LearningRateFunction (epochs 0 to 3.5) and Lea",
        ),
        ("final_sparsity: 0.5", "final_sparsity: eval(x)", [], "old.yaml:15:21: eval: unknown variable x."),
        (
            "",
            "",
            ["--args", "num_epoch=5"],
            "old.yaml: recipe.args names num_epoch, and the recipe has no such variable.",
        ),
        ("", "", ["--args", "decay=0.1", "--strict"], "old.yaml: recipe.args changes decay, which reaches no modifier"),
        ("", "", ["--zoo", "none.yaml"], ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(old, new, words, message, command, recipe, tmp_path):
    (tmp_path / recipe).write_text(RECIPE.replace(old, new, 1))
    code, out, said = command("check", recipe, *words)
    assert (code, bool(out)) == (1 if message else 0, not message)
    assert said.startswith(message)
    assert said.count("\n") == bool(message)


def test_anchors_let_an_argument_reach(command, recipe):
    assert command("check", recipe, "--args", "decay=0.1", "--strict", "--anchors")[:2] == (0, OK)
    [decay] = [m for m in shown(command, recipe, "--args", "decay=0.1", "--anchors") if m["kind"] == "WeightDecay"]
    assert decay["weight_decay"] == 0.1


def test_several_files_are_all_checked(command, recipe, tmp_path):
    (tmp_path / "bad.yaml").write_text(RECIPE.replace("GMPruningModifier", "GMPruningModifer", 1))
    code, out, said = command("check", "bad.yaml", recipe, "none.yaml")
    assert (code, out) == (1, OK)
    assert said.splitlines()[0].startswith("bad.yaml:12:5: unknown modifier !GMPruningModifer.")
    assert "none.yaml: No such file" in said


def test_no_such_file(command):
    code, out, said = command("check", "none.yaml")
    assert (code, out) == (1, "")
    assert said.startswith("recipe.path=none.yaml: No such file")


# ---- show ----


def shown(command, *words: str) -> list[dict]:
    code, out, said = command("show", *words, "--json")
    assert (code, said) == (0, "")
    modifiers: list[dict] = json.loads(out)["modifiers"]
    return modifiers


def test_show(command, recipe):
    code, out, said = command("show", recipe, "--epochs-steps", "10")
    assert command("show", recipe, "--steps-per-epoch", "10") == (code, out, said)
    assert command("show", "--steps-per-epoch", "10", recipe) == (code, out, said)
    assert (code, said) == (0, "")
    full, three, one = "=" * 60, "=" * 45, "=" * 15
    expected = f"""\
old: 4 epochs of 10 steps  (= acts, - what it did is held)

                        0{"4":>59}
LearningRateFunction   |{three:60}| 0 to 3  init_lr=0.01 final_lr=0.0
SetWeightDecay         |{full}| 0 to 4  weight_decay=0.01 all_groups=True
GMPruning              |{" " * 15}{one}{"-" * 30}| 1 to 2  params=(1) final_sparsity=0.5 update_frequency=0.5
LearningRateFunction_2 |{" " * 45}{one}| 3 to 4  init_lr=0.01 final_lr=0.0

    epoch  learning rate  GMPruning
        0           0.01      0.00%
        1        0.00667      0.00%
        2        0.00333     50.00%
        3           0.01     50.00%
last step          0.001     50.00%
"""
    assert out == expected


def test_show_as_data(command, recipe):
    code, out, said = command("show", PRINTED, "--json")
    data = json.loads(out)
    assert (code, said, data["epochs"], data["name"]) == (0, "", 40, "bert-base-12layers_prune70_quant")
    assert len(data["remarks"]) == 2
    pruning = next(each for each in data["modifiers"] if each["name"] == "GMPruning")
    assert len(pruning.pop("params")) == 6
    assert pruning == {
        "name": "GMPruning",
        "kind": "MagnitudePruning",
        "tag": "GMPruningModifier",
        "window": [2, 20],
        "start": 2.0,
        "end": 20.0,
        "exclude": [],
        "final_sparsity": 0.7,
        "init_sparsity": 0.0,
        "inter_func": "cubic",
        "update_frequency": 0.01,
        "mask_type": [1, 4],
        "global_sparsity": False,
        "leave_enabled": True,
        "refresh_until": None,
        "regrow": False,
    }


def test_what_a_recipe_leaves_open_is_remarked(command, tmp_path):
    (tmp_path / "short.yaml").write_text("modifiers:\n  - !ConstantPruningModifier {params: __ALL_PRUNABLE__}\n")
    code, out, _ = command("show", "short.yaml")
    assert code == 0
    assert "short sets no length: train.epochs counts, shown here as 3" in out
    assert "short drives no learning rate: train.learning_rate and train.warmup count" in out
    assert "kept" in out


def test_the_text_of_a_recipe(command):
    [only] = shown(command, "# a=b\n!SetWeightDecayModifier\n  weight_decay: 0.5\n")
    assert (only["name"], only["weight_decay"]) == ("SetWeightDecay", 0.5)


def test_a_recipe_of_our_own(command, tmp_path):
    modifiers = {each["name"]: each for each in shown(command, "recipe=pruned80", "task=squad", "train.epochs=7")}
    assert list(modifiers) == [
        "recipe.learning_rate.warmup",
        "recipe.learning_rate.decay",
        "recipe.weight_decay",
        "sparsity",
        "teacher.distillation",
    ]
    assert modifiers["sparsity"]["kind"] == "ConstantPruning"
    assert modifiers["sparsity"]["tag"] is None
    assert modifiers["sparsity"]["window"] == [0, 7]
    words = ["show", "recipe=pruned80", "task=sst2"]  # its warm-up is 2000 steps
    code, _, said = command(*words)
    assert (code, "end=2000 steps is after" in said, "--steps-per-epoch N" in said) == (1, True, True)
    assert command(*words, "--steps-per-epoch", "2105")[0] == 0
    code, out, _ = command("show", "recipe=gradual80")
    assert code == 0
    assert "80.00%" in out


def test_a_converted_recipe_shows_the_same(command, recipe, tmp_path):
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    _, text, _ = command("convert", recipe)
    (tmp_path / "mine" / "recipe" / "old.yaml").write_text(text)
    before = {each["name"]: each for each in shown(command, recipe)}
    after = {each["name"]: each for each in shown(command, "recipe=old", "--config-dir", "mine")}
    assert [f"recipe.modifiers.{name}" for name in before] == list(after)
    for name, each in before.items():
        assert {**each, "name": "", "tag": ""} == {**after[f"recipe.modifiers.{name}"], "name": "", "tag": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=prund80"], "recipe=prund80: there is no such recipe. Did you mean 'pruned80'?"),
        (["recipe=pruned80", "train.epoch=3"], "Unknown key 'train.epoch'. Did you mean 'epochs'?"),
        (["recipe=pruned80", "--args", "a=1"], "--args and --anchors are for a file."),
        (["recipe=pruned80", "--config-dir", "nowhere"], "--config-dir nowhere: there is no such directory."),
        (["old.yaml", "task=squad"], "task=squad: expected one FILE."),
        (["old.md"], "recipe.path=old.md: No such file"),
        (["old.yaml", "--png", "no/such/dir/x.png"], "--png no/such/dir/x.png: No such file or directory."),
        (["old.yaml", "--run", "."], "--run .: its curves go into a picture; add --png OUT.png."),
        (["old.yaml", "--run", ".", "--png", "x.png"], "--run .: it has no history.jsonl with a logged step in it."),
        (["old.yaml", "--model", "./nowhere"], "No directory ./nowhere"),
        (["old.yaml", "--model", "bert", "--task", "sqad"], "task=sqad: there is no such task. Did you mean 'squad'?"),
    ],
)
def test_show_refuses(words, message, command, recipe):
    code, out, said = command("show", *words)
    assert (code, out) == (1, "")
    assert said.startswith(message)
    assert said.count("\n") == 1


def test_usage(command):
    for words in ([], ["shwo", "x"], ["show", "x", "--steps-per-epoch", "0"], ["check"]):
        code, out, said = command(*words)
        assert (code, out) == (2, "")
        assert "usage: python -m sparse_xp.recipe" in said


def test_a_picture(command, recipe, tmp_path):
    for words in ([recipe], [PRINTED], ["recipe=pruned80"]):
        code, out, said = command("show", *words, "--png", "x.png")
        assert (code, said) == (0, "")
        assert out
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "x.png").unlink()


def test_a_picture_with_what_a_run_measured(command, recipe, tmp_path):
    lines = [
        {"step": step, "epoch": step / 7, "loss": 1 / step, "lr": 0.01, "sparsity": 0.5} for step in (1, 10, 20, 28)
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = []
    for more in ([], ["--run", "."]):
        code, out, said = command("show", recipe, "--png", "x.png", *more)
        assert (code, said) == (0, "")
        sizes.append(struct.unpack(">II", (tmp_path / "x.png").read_bytes()[16:24]))
    assert "4 epochs of 7 steps" in out
    assert sizes[1][1] > sizes[0][1]  # the loss has a panel of its own


def test_a_picture_without_matplotlib(command, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert command("show", recipe, "--png", "x.png") == (
        1,
        "",
        "--png needs matplotlib: pip install 'sparse-xp[plot]'.\n",
    )


# ---- against a model ----

LAYERED = """\
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !LayerPruningModifier {layers: ["re:bert.encoder.layer.[13]"]}
  - !GMPruningModifier
    params: ["re:.*attention.self.(query|key).weight", qa_outputs.weight]
    init_sparsity: 0.0
    final_sparsity: 0.5
    start_epoch: 0
    end_epoch: 1
    update_frequency: 0.5
"""


def test_what_patterns_match(command, tmp_path):
    shape = {
        "hidden_size": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 20,
    }
    BertConfig(**shape, max_position_embeddings=16, architectures=["BertForMaskedLM"]).save_pretrained("model")
    (tmp_path / "old.yaml").write_text(LAYERED)
    code, out, _ = command("show", "old.yaml", "--model", "model", "--json")
    assert code == 0
    found = json.loads(out)["model"]
    # A layer: query, key, value, output 4 * (64 + 8), intermediate 128 + 16, output 128 + 8, two LayerNorms 2 * 16.
    layer = 4 * 72 + 144 + 136 + 32
    patterns = [(each["modifier"], each["pattern"], each["tensors"], each["weights"]) for each in found["patterns"]]
    assert patterns == [
        ("LayerPruning", "re:bert.encoder.layer.[13]", 32, 2 * layer),
        ("GMPruning", "re:.*attention.self.(query|key).weight", 4, 4 * 64),
        ("GMPruning", "qa_outputs.weight", 1, 16),
    ]
    assert found["patterns"][1]["names"] == [
        "bert.encoder.layer.{0,2}.attention.self.query.weight",
        "bert.encoder.layer.{0,2}.attention.self.key.weight",
    ]
    assert found["sparsity"] == {"GMPruning": 0.5}
    assert found["encoder"] == pytest.approx(128 / (2 * layer))
    everything = 2 * layer + (20 + 16 + 2) * 8 + 16 + 18  # embeddings with their LayerNorm, head
    assert found["model"] == pytest.approx(136 / everything)
    code, out, _ = command("show", "old.yaml", "--model", "model")
    assert "  GMPruning.params qa_outputs.weight: 1 tensors, 16 weights\n    qa_outputs.weight\n" in out
    code, _, said = command("show", "old.yaml", "--model", "model", "--task", "sst2")
    assert (code, said.startswith("GMPruning: No parameter matches 'qa_outputs.weight'.")) == (1, True)


def test_zeros_that_are_kept_are_counted_in_the_checkpoint(command, tmp_path):
    model = make_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[:4] = 0
    model.save_pretrained("model")
    (tmp_path / "old.yaml").write_text(
        'modifiers:\n  - !ConstantPruningModifier {params: ["re:.*intermediate.dense.weight"]}\n'
    )
    code, out, _ = command("show", "old.yaml", "--model", "model", "--task", "sst2", "--json")
    assert code == 0
    assert json.loads(out)["model"]["sparsity"] == {"ConstantPruning": 0.25}


def test_names_in_short():
    assert abbreviate_names(["l.0.w", "l.1.w", "l.2.w", "l.5.w", "head", "l.7.b"]) == ["l.{0-2,5}.w", "head", "l.{7}.b"]


# ---- a process of its own ----


def test_without_importing_torch():
    commands = [
        (["check", PRINTED], 0),
        (["check", "none.md"], 1),
        (["show", PRINTED, "--json"], 0),
        (["show", PRINTED, "--png", "x.png"], 0),
        (["show", "recipe=gradual80", "sparsity=acdc"], 0),
        (["convert", PRINTED], 0),
    ]
    script = f"""
import sys
from sparse_xp.cli import run_command
from sparse_xp.recipe.__main__ import main
codes = []
for words, _ in {commands!r}:
    sys.argv = ["recipe", *words]
    try:
        run_command(main)
        codes.append(0)
    except SystemExit as stop:
        codes.append(1)
heavy = {{"torch", "transformers", "datasets", "accelerate"}} & set(sys.modules)
print(codes, sorted(heavy), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=HANGS)
    assert done.stderr.splitlines()[-1] == f"{[code for _, code in commands]} []"


def test_as_a_module(tmp_path):
    Path("bad.yaml").write_text(RECIPE.replace("GMPruningModifier", "Pruning"))
    done = subprocess.run(
        [sys.executable, "-m", "sparse_xp.recipe", "check", "bad.yaml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bad.yaml:12:5: unknown modifier !Pruning.")
    assert "Traceback" not in done.stderr
