"""The card says what the result says."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pytest
import torch

from sparse_xp.clock import Clock
from sparse_xp.deployment.model_card import model_card, run_card
from sparse_xp.functional.measured import Sparsity
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.result import Deployment
from sparse_xp.settings import Data
from sparse_xp.training.state import Progress
from tests.runs import configure
from tests.tiny import make_bert, make_result, make_run

SQUAD = configure("task=squad", "profile=embedded")


def test_a_run_of_made_up_numbers():
    text = run_card(SQUAD.task, Data(), make_result(teacher="outputs/dense"))
    for part in (
        "# pruned80 on squad, minilm",
        "`rajpurkar/squad`, validation split; texts of up to 384 tokens",
        "on 384 rows",
        "- exact_match 75.00\n- f1 82.25",
        "80.00% of the prunable weights, 79.00% of the encoder, 41.40% of the whole model",
        "12.35 MB; 4.50 MB under zstd",
        "teacher: outputs/dense",
        "2.5 epochs, 240 steps of 1,536 rows",
        "    python -m sparse_xp task=squad recipe=pruned80\n",
        'python -m sparse_xp.predict model=. question="',
        "They do not make stock onnxruntime or OpenVINO faster",
        "- quantization: none",
    ):
        assert part in text, part
    assert "8-bit" not in text


@pytest.mark.parametrize(("pair", "portable"), [(126, True), (254, False)])
def test_what_a_file_of_integers_computes_elsewhere(pair, portable):
    deployed = Deployment({"f1": 82.0}, 0.1, 3_000_000, 2_000_000, integers=True, largest_pair=pair, portable=portable)
    text = run_card(SQUAD.task, Data(), make_result(deployment=deployed))
    assert f"two factors of one output is {pair}" in text
    assert ("It computes the same on every x86 CPU" in text) == portable
    lines = [line.strip() for line in text.splitlines() if "x64quantprecision" in line]
    assert len(lines) == (0 if portable else 4)  # for three languages, and in the example
    if not portable:
        assert 'options.add_session_config_entry("session.x64quantprecision", "1")' in lines
        assert "{'LP_TRANSFORMS_MODE': 'NO'}" in text
    assert "x64quantprecision" not in run_card(SQUAD.task, Data(), make_result())


def test_generated_data_and_files_are_called_so():
    assert "on generated data;" in run_card(SQUAD.task, SQUAD.data, make_result())
    assert "the user's file mine.csv" in run_card(SQUAD.task, Data(train="a/mine.csv"), make_result())


def test_a_model_without_a_run():
    task = configure("task=qqp", "profile=embedded").task
    deployed = Deployment({"accuracy": 90.0}, 1e-6, 2_000_000, 1_000_000, 500_000)
    text = model_card(task, Data(), "some/model", (100, 40_430), deployed, Sparsity(0.5, 0.4, 0.2, {}))
    for part in ("100 of 40,430 rows", "Exported from `some/model`", "0.50 MB of it not zero", 'second="'):
        assert part in text, part


@pytest.mark.slow
def test_the_calls_of_the_card_work(deployed):
    from sparse_xp import Pipeline

    for kind in ("squad", "pairs", "conll2003"):
        pipeline = Pipeline(deployed(kind))
        pipeline(**pipeline.task.example())


def test_no_file_of_a_run_that_is_passed_on_says_where_somebodys_home_is(tmp_path, monkeypatch, deployed):
    """The command, the teacher, the data: ``result.json``, ``report.md`` and ``model_card.md`` go to others."""
    from sparse_xp.delivery import make_result as of_run
    from sparse_xp.deployment.model_card import model_card, run_card
    from sparse_xp.provenance import record_provenance
    from sparse_xp.report.run_report import report_text
    from sparse_xp.result import Result
    from tests.runs import SHORT, configure

    home = tmp_path / "home" / "alice"
    (home / "runs/dense").mkdir(parents=True)
    config = configure(
        *(*SHORT, "task=custom_classification", "recipe=gradual80", "profile=full", "teacher=checkpoint"),
        *(f"teacher.path={home}/runs/dense", f"data.train={home}/data/rows.csv", f"model.checkpoint={home}/bert"),
    )
    told = Result.read(deployed("sst2") / "result.json")
    words = [f"data.train={home}/data/rows.csv", f"teacher.path='{home}/runs/dense'", f"hydra.run.dir={home}/runs/x"]
    command = shlex.join(["python", "-m", "sparse_xp", *words])
    run = make_run(
        1, 1, directory=home / "runs/x", model=make_bert(), modifier_list=ModifierList({}, Clock(1, 1)),
        accelerator=SimpleNamespace(device=torch.device("cpu"), mixed_precision="no"),
        progress=Progress(seconds=1.0, best_step=1), train_features=[], num_train_rows=1, eval_rows=[],
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.getcwd", lambda: "/elsewhere")  # not above the home, as no project is
    made = of_run(config, run, told.metrics, record_provenance("abc", "def", command), (1, 1))
    made.deployment = told.deployment
    made.sparsity.model, made.sparsity.encoder, made.sparsity.prunable = 0.5, 0.5, 0.5
    assert made.teacher == "../dense"
    made.write(tmp_path / "result.json")
    texts = [
        (tmp_path / "result.json").read_text(),
        report_text(
            made,
            [
                {"step": 1, "epoch": 1.0, "loss": 1.0},
                {"step": 1, "epoch": 1.0, "metrics": {"accuracy": 1.0}, "valid": True},
            ],
        ),
        run_card(config.task, config.data, made),
        model_card(config.task, config.data, f"{home}/bert", (1, 1), told.deployment, told.sparsity),
    ]
    for text in texts:
        assert str(home) not in text
        assert "alice" not in text
    assert "teacher: ../dense" in texts[1]
    assert "data.train=rows.csv" in texts[2]
    assert "Exported from `bert`" in texts[3]
