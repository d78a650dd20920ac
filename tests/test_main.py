"""The command: what it says without a run, how it refuses a wrong one, and which runs it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from omegaconf.errors import OmegaConfBaseException

import sparse_xp.run
from sparse_xp.__main__ import cli
from sparse_xp.config import Config, result_hash
from sparse_xp.places import GROUPS
from sparse_xp.result import Result
from tests.in_process import Command, command_of
from tests.runs import HANGS
from tests.tiny import make_result

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process."""
    return command_of(monkeypatch, capsys)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path]]:
    """The runs that the command starts, noted down instead of made."""
    calls: list[tuple[Config, Path]] = []

    def note(config: Config, directory: Path, command: str, show: bool, splits: object = None) -> Result:
        calls.append((config, directory))
        return make_result()

    monkeypatch.setattr("sparse_xp.main.run", note)
    for reads in ("load_data", "check_student"):  # the files that these runs name are not there
        monkeypatch.setattr(f"sparse_xp.main.{reads}", lambda *_: None)
    return calls


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, in the current directory."""
    env = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"} | environment
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env, check=False, timeout=HANGS)


# ---- without a run ----


def test_without_arguments_it_says_what_can_be_chosen(command):
    answer = command()
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert len(lines) < 25
    first_words = {line.split()[0] for line in lines if line.strip()}
    assert set(GROUPS) <= first_words
    assert "squad squad_retrieval squad_v2 squadshifts sst2" in answer.out
    [first] = [line.split()[3:] for line in lines if line.strip().startswith("python -m sparse_xp")]
    assert "profile=embedded" in first
    assert yaml.safe_load(command("--cfg", "job", *first).out)["profile"] == "embedded"


def test_without_arguments_in_a_process_of_its_own():
    done = python("-m", "sparse_xp")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m sparse_xp task=squad recipe=pruned80 profile=embedded" in done.stdout


def test_help_names_groups_options_and_keys(command):
    answer = command("--help")
    assert answer.code == 0
    for group in GROUPS:
        assert f"\n{group}: " in answer.out
    assert "[dense], file, gradual80" in answer.out
    assert "\n  train.warmup (time, 0.0)  The length of the warm-up" in answer.out
    assert command("-h").out == command("task=squad", "--help").out == answer.out


def test_help_about_a_word(command):
    answer = command("--help", "train.warmup")
    assert answer.code == 0
    assert (
        "  train.warmup (time, 0.0)  The length of the warm-up of the learning rate. Recipes refer to it." in answer.out
    )
    assert "init_sparsity" in command("--help", "sparsity").out
    assert "train.learning_rate" in command("--help", "learning").out
    wrong = command("--help", "quantisation")
    assert (wrong.code, wrong.out) == (1, "")
    assert "Did you mean --help quantization" in wrong.message


def test_a_command_of_the_old_scripts_is_answered(command, started):
    answer = command("--dataset_name", "squad", "--do_train", "--num_train_epochs", "5")
    assert (answer.code, started) == (1, [])
    assert "\npython -m sparse_xp task=squad recipe=dense train.epochs=5\n" in answer.message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("--cfg job recipe=gradual80 profile=embedded", 0),
        ("task=sqad", 1),
        ("recipe=gradual80 sparsity.final_sparsity=1.5", 1),
    ],
)
def test_answers_and_refuses_without_importing_torch(line, code):
    script = f"""
import sys
from sparse_xp.__main__ import cli
sys.argv = ["sparse_xp", *{line.split()!r}]
code = 0
try:
    cli()
except SystemExit as stop:
    code = 1 if isinstance(stop.code, str) else stop.code or 0
heavy = {{"torch", "transformers", "datasets", "accelerate", "evaluate", "onnxruntime"}} & set(sys.modules)
print(code, sorted(heavy), file=sys.stderr)
"""
    done = python("-c", script)
    assert done.stderr.splitlines()[-1] == f"{code} []"


# ---- names and values that are wrong ----

MISSPELT = {
    "task": (["task=sqad"], ["task=sqad", "'squad'"]),
    "recipe": (["recipe=prunned80"], ["recipe=prunned80", "'pruned80'"]),
    "modifier": (["+modifier@recipe.modifiers.x=MagnitudePrunin"], ["'MagnitudePruning'"]),
    "group": (["recip=dense"], ["'recip'", "'recipe'"]),
    "top-level key": (["sede=3"], ["'sede'", "'seed'"]),
    "group under --cfg": (["--cfg", "job", "recip=dense"], ["'recip'", "'recipe'"]),
    "option of a sweep": (["-m", "recipe=dense,prunned80"], ["'pruned80'"]),
    "key": (["train.epoch=3"], ["train.epoch", "'epochs'"]),
    "key of a recipe's modifier": (["recipe=gradual80", "sparsity.final_sparsty=0.9"], ["'final_sparsity'"]),
    "key of a segment": (["recipe.learning_rate.decay.shap=cosine"], ["recipe.learning_rate.decay.shap", "'shape'"]),
    "key of Hydra": (["hydra.run.dirr=x"], ["hydra.run.dirr", "'dir'"]),
    "key with a plus": (["+train.epoch=3"], ["train.epoch", "'epochs'"]),
    "top-level key with a plus": (["+sede=3"], ["sede", "'seed'"]),
    "key of a modifier with a plus": (["recipe=gradual80", "+sparsity.parms=[a]"], ["sparsity.parms", "'params'"]),
}

WRONG_TYPE = {
    "words for a number": (["train.epochs=many"], ["train.epochs", "many"]),
    "null for a number": (["train.batch_size=null"], ["train.batch_size"]),
    "per cent for a fraction": (["recipe=gradual80", "recipe.sparsity=80%"], ["recipe.sparsity", "Write 0.8."]),
    "a word for the seed": (["seed=abc"], ["seed", "abc"]),
    "a bare word": (["batch"], ["batch"]),
}

IMPOSSIBLE = {
    "percent for a fraction": (["recipe=pruned80", "recipe.sparsity=80"], ["recipe.sparsity=80", "0.8"]),
    "more than all": (["recipe=gradual80", "sparsity.final_sparsity=1.5"], ["final_sparsity=1.5"]),
    "precision": (["train.precision=fp61"], ["train.precision=fp61", "'fp16'"]),
    "teacher without a path": (["teacher=checkpoint"], ["teacher=checkpoint", "teacher.path="]),
    "inter_func": (["recipe=gradual80", "sparsity.inter_func=cubik"], ["inter_func='cubik'", "'cubic'"]),
    "shape": (["recipe.learning_rate.decay.shape=cosin"], ["shape='cosin'", "'cosine'"]),
    "mask type": (["recipe=gradual80", "sparsity.mask_type=blok4"], ["mask_type", "'block4'"]),
    "more kept than there are": (["recipe=gradual80", "sparsity.mask_type='5:4'"], ["mask_type", "5:4"]),
    "2:4 at 80 percent": (["recipe=gradual80", "sparsity.mask_type='2:4'"], ["2:4", "0.5"]),
    "nothing to prune to": (["recipe=dense", "sparsity=gradual"], ["recipe.sparsity=0.0: expected a fraction"]),
    "a time": (["recipe=gradual80", "sparsity.start=10%%"], ["start='10%%'", "500 steps"]),
    "number of a modifier that is not there": (["sparsity.final_sparsity=0.5"], ["sparsity", "gradual"]),
    "number of no quantization": (["quantization.bits=8"], ["quantization"]),
}

REFUSED = [
    pytest.param(words, parts, id=f"{kind}: {what}")
    for kind, table in (("misspelt", MISSPELT), ("wrong type", WRONG_TYPE), ("impossible", IMPOSSIBLE))
    for what, (words, parts) in table.items()
]


@pytest.mark.parametrize(("words", "parts"), REFUSED)
def test_refuses_in_one_short_message(words, parts, command, started):
    answer = command(*words)
    assert answer.code == 1
    assert started == []
    for part in parts:
        assert part in answer.message
    assert_short(answer.message)


def assert_short(message: str) -> None:
    lines = [line for line in message.splitlines() if line.strip()]
    assert len(lines) <= 4, message
    assert "Traceback" not in message
    assert "HYDRA_FULL_ERROR=1" in lines[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["task=sqad"],
        ["train.epoch=3"],
        ["train.epochs=many"],
        ["train.precision=fp61"],
        ["recipe=gradual80", "sparsity.final_sparsity=1.5"],
        ["recipe=gradual80", "sparsity.inter_func=cubik", "profile=embedded"],
    ],
    ids=" ".join,
)
def test_a_refused_command_writes_nothing(words, command, started, tmp_path):
    assert command(*words).code == 1
    assert {path.name for path in tmp_path.rglob("*")} <= {"outputs"}


def test_a_refused_command_leaves_the_directory_of_a_finished_run_as_it_was(command, started):
    kept = Path("mine/.hydra/overrides.yaml")
    kept.parent.mkdir(parents=True)
    kept.write_text("- seed=1\n", encoding="utf-8")
    Path("mine/result.json").write_text("{}", encoding="utf-8")
    assert command("hydra.run.dir=mine", "train.precision=fp61").code == 1
    assert kept.read_text(encoding="utf-8") == "- seed=1\n"


def test_the_message_says_which_segment_is_wrong(command, started):
    message = command("recipe=gradual80", "recipe.learning_rate.warmup.init_lr=3").message
    assert "recipe.learning_rate.warmup" in message
    assert "decay" not in message


def test_refused_in_a_process_of_its_own():
    done = python("-m", "sparse_xp", "task=sqad")
    assert done.returncode == 1
    assert "Did you mean 'squad'?" in done.stderr
    assert_short(done.stderr)
    assert list(Path.cwd().iterdir()) == []


def test_full_error_shows_the_traceback():
    done = python("-m", "sparse_xp", "train.precision=fp61", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "train.precision=fp61: expected one of auto, fp32, bf16, fp16." in done.stderr


def test_full_error_raises_the_error_itself(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sparse_xp", "train.epoch=3"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match=r"train\.epoch") as caught:
        cli()
    assert isinstance(caught.value.__cause__, OmegaConfBaseException)


# ---- files of one's own that are wrong ----

OWN_FILES = {
    "misspelt key": (
        "defaults: [kind@_here_: QuestionAnswering, _self_]\nname: own\ndataset: a/b\nfolder: own\nmax_lenght: 9\n",
        ["max_lenght", "'max_length'"],
    ),
    "misspelt kind": (
        "defaults: [kind@_here_: QuestionAnswerin, _self_]\nname: own\ndataset: a/b\nfolder: own\n",
        ["QuestionAnswerin", "'QuestionAnswering'"],
    ),
    "wrong type": (
        "defaults: [kind@_here_: QuestionAnswering, _self_]\nname: own\ndataset: a/b\nfolder: own\nmax_length: long\n",
        ["task.max_length", "long"],
    ),
    "missing value": (
        "defaults: [kind@_here_: QuestionAnswering, _self_]\nname: own\nfolder: own\n",
        ["task.dataset"],
    ),
    "no kind": (
        "name: own\ndataset: a/b\nfolder: own\nmax_length: 64\nmetric: f1\n",
        ["QuestionAnswering", "TextClassification"],
    ),
    "not YAML": ("name: [own\n", ["own.yaml"]),
}


@pytest.mark.parametrize("wrong", OWN_FILES)
def test_a_wrong_file_of_ones_own_is_explained(wrong, command, started, tmp_path):
    text, parts = OWN_FILES[wrong]
    path = tmp_path / "own" / "task" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    answer = command("--config-dir", "own", "task=own")
    assert answer.code == 1
    assert started == []
    for part in parts:
        assert part in answer.message
    assert_short(answer.message)


# ---- the runs that a command starts ----


def test_one_run_without_a_teacher(command, started):
    answer = command("task=sst2", "recipe=dense", "profile=embedded", "train.epochs=1")
    assert (answer.code, answer.message) == (0, "")
    [(config, directory)] = started
    assert config.train.epochs == 1
    assert directory.resolve() == Path("outputs/sst2,tiny,dense,embedded,train.epochs=1,seed=42").resolve()


def test_the_name_of_a_run_is_taken_as_it_is(command, started):
    """For it holds ``,`` and ``=``, which mean something else to Hydra."""
    run = Path("outputs/sst2,tiny,dense,embedded,train.epochs=1,seed=42")
    (run / "model").mkdir(parents=True)
    words = ("task=sst2", "recipe=gradual80", "profile=embedded", f"model.checkpoint={run}/model", "log=none")
    answer = command(*words, "teacher=checkpoint", f"teacher.path={run}", "hydra.run.dir=outputs/new,seed=1")
    assert (answer.code, answer.message) == (0, "")
    [(config, directory)] = started
    assert (config.model.checkpoint, config.teacher.path) == (f"{run}/model", str(run))
    assert directory.resolve() == Path("outputs/new,seed=1").resolve()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=sst2", "--profile=embedded"], "--profile=embedded: values are given without dashes: profile=embedded"),
        (["--task", "sst2"], "--task: values are given without dashes: task=sst2"),
        (["-m", "task", "sst2"], "task: expected KEY=VALUE, as in task=sst2."),
        (
            ["--multirun", "--config-dir", str(ROOT / "sweeps"), "--config-name", "dmo"],
            f"--config-name dmo: there is no {ROOT / 'sweeps'}/dmo.yaml. Did you mean 'demo'?",
        ),
    ],
)
def test_words_of_a_wrong_form(words, message, command, started):
    assert message in command(*words).message
    assert not started


@pytest.mark.parametrize(("saved", "where"), [((), "from the beginning"), ((50, 100), "at step 100")])
def test_an_interrupted_run_says_where_it_continues(saved, where, command, monkeypatch):
    def interrupt(config, directory, command, show, splits):
        for step in saved:
            (directory / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_xp.main.run", interrupt)
    answer = command("task=sst2", "recipe=dense", "profile=embedded")
    assert answer.code == 130
    assert f"interrupted: the same command continues {where}" in answer.out


def test_it_says_which_teacher_is_meant(command, started):
    answer = command("task=sst2", "recipe=gradual80", "profile=embedded")
    assert "teacher: the dense run of sst2 in outputs/sst2,tiny,dense,embedded,seed=42 (" in answer.out


@pytest.mark.parametrize(
    ("recipe", "extra"),
    [
        ("gradual80", ["profile=embedded"]),
        ("pruned80", []),
        ("gradual80", ["data.root=mirror", "model=minilm"]),
        ("gradual80", ["profile=embedded", "model.checkpoint=DIR"]),
    ],
    ids=["embedded", "hub", "mirror", "checkpoint"],
)
def test_the_teacher_is_the_run_that_recipe_dense_would_make(recipe, extra, command, started):
    """Else it would be trained again, or refused because its directory holds another configuration."""
    command("task=sst2", f"recipe={recipe}", "log=none", "seed=7", "train.epochs=1", *extra)
    command("task=sst2", "recipe=dense", *extra)
    teacher, student, direct = started
    assert teacher[1].resolve() == direct[1].resolve()
    assert result_hash(teacher[0]) == result_hash(direct[0])
    assert (student[0].teacher.source, student[0].teacher.path) == ("checkpoint", str(teacher[1]))
    seed = 42 if "profile=embedded" in extra else 2021  # that of the tutorial's teachers
    assert (student[0].seed, student[0].train.epochs, teacher[0].seed) == (7, 1, seed)


def test_the_teacher_takes_over_task_data_and_model_of_the_student(command, started):
    command(
        *("task=squad", "recipe=gradual80", "model=minilm", "model.checkpoint=local", "task.max_train_samples=5"),
        *("data.root=mirror", "log=none", "teacher.overrides=['train.epochs=9']", "teacher.seed=3"),
    )
    (teacher, _), (student, _) = started
    assert (teacher.model, teacher.task, teacher.data, replace(teacher.log, job_type=None)) == (
        student.model,
        student.task,
        student.data,
        student.log,
    )
    assert (teacher.recipe.name, teacher.sparsity, teacher.train.epochs, teacher.seed) == ("dense", None, 9, 3)


def test_the_teacher_learns_from_rows_with_labels_alone(command, started):
    """It has no teacher that could answer the others: it is the run that a student without them has, too."""
    words = ("task=sst2", "recipe=gradual80", "profile=embedded", "log=none")
    Path("u.csv").write_text("text;note\nfine;-\nbad;-\n")
    more = ("data.unlabeled=u.csv", "data.separator=semicolon", "train.unlabeled_share=0.25")
    answer = command(*words, *more)
    assert (answer.code, answer.message) == (0, "")
    command(*words)
    (teacher, place), (student, _), (other, other_place), _ = started
    assert (teacher.data.unlabeled, student.data.unlabeled) == (None, "u.csv")
    assert (teacher.data.separator, teacher.train.unlabeled_share) == (None, 0.5)
    assert (result_hash(teacher), place.resolve()) == (result_hash(other), other_place.resolve())


def test_the_teacher_of_a_sparse_model_starts_from_its_own_checkpoint(command, started):
    command("recipe=pruned80", "model.checkpoint=sparse")
    (teacher, _), (student, _) = started
    assert (teacher.model.name, teacher.model.checkpoint) == ("bert_base", "google-bert/bert-base-uncased")
    assert student.model.checkpoint == "sparse"


@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_the_teacher_of_a_task_of_ones_own(way, command, started, tmp_path):
    path = tmp_path / "own" / "task" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "defaults: [kind@_here_: QuestionAnswering, _self_]\nname: own\ndataset: a/b\nfolder: own\n", encoding="utf-8"
    )
    place = ["--config-dir", "own"] if way == "--config-dir" else [f"hydra.searchpath=[file://{tmp_path / 'own'}]"]
    answer = command(*place, "task=own", "recipe=gradual80", "profile=embedded")
    assert (answer.code, answer.message) == (0, "")
    assert [(config.task.name, config.recipe.name) for config, _ in started] == [("own", "dense"), ("own", "gradual80")]


def test_the_runs_of_a_sweep_share_the_teacher_that_the_sweep_makes(command, started):
    answer = command("-m", "task=sst2", "recipe=dense,gradual80,pruned80", "profile=embedded", "log=none")
    assert answer.code == 0
    dense, *others = started
    teachers, students = others[0::2], others[1::2]
    assert [config.recipe.name for config, _ in students] == ["gradual80", "pruned80"]
    assert len({directory.resolve() for _, directory in students}) == 2
    for config, directory in teachers:
        assert directory.resolve() == dense[1].resolve()
        assert result_hash(config) == result_hash(dense[0])


def test_make_run_trains_the_dense_model_once(command, started):
    """The sweep has a directory of its own; its teacher is its own dense run."""
    sweeps = Path(sparse_xp.run.__file__).parents[1] / "sweeps"
    assert command("--multirun", "--config-dir", str(sweeps), "--config-name", "demo").code == 0
    dense, *others = started
    assert dense[0].recipe.name == "dense"
    assert {directory.resolve() for config, directory in others if config.recipe.name == "dense"} == {
        dense[1].resolve()
    }
