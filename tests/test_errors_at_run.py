"""Errors that only show when a run starts: each is one short message, and nothing passes for finished."""

from __future__ import annotations

import errno
import gc
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from transformers import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

import sparse_xp.run
from sparse_xp.data import hub
from sparse_xp.modifiers import Modifier
from sparse_xp.run_directory import claim_run
from tests.in_process import Answer, Command, command_of
from tests.runs import HANGS, configure
from tests.tiny import WORDS, make_bert, make_tokenizer

SENTENCES = ["the dog sat", "the cat sat", "a red mat", "who sat on the mat ?"]
#: A local mirror and a local model, the smallest of each: everything a run needs, and no hub.
LOCAL = [
    *("task=sst2", "data.root=mirror", "model=tiny", "model.checkpoint=encoder", "task.max_length=16"),
    *("task.classes=[bad,good]", "train.batch_size=2", "train.epochs=2", "train.precision=fp32", "log=none"),
]

#: generated data, as little as runs
EMBEDDED = ["profile=embedded", "log=none", "data.embedded_train_rows=16", "data.embedded_eval_rows=16"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process."""
    # The command may set them when it finds no hub; this way they are put back.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")

    return command_of(monkeypatch, capsys)


def write_rows(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def save_checkpoint(path: str, model: torch.nn.Module | None = None, words: list[str] | None = None) -> None:
    (model or BertModel(make_bert().config)).save_pretrained(path)  # type: ignore[operator]
    make_tokenizer(words).save_pretrained(path)


def classifier(*classes: str) -> BertForSequenceClassification:
    config = make_bert().config
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: i for i, name in config.id2label.items()}
    return BertForSequenceClassification(config)


@pytest.fixture(scope="module", autouse=True)
def _quick_garbage_collection() -> Iterator[None]:
    """Each run ends with a collection, which would look through all of the imported libraries every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _mirror_and_encoder(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_rows(tmp_path / "mirror" / "sst2" / f"{split}.parquet", sentence=SENTENCES, label=[0, 1, 0, 1])
    save_checkpoint("encoder")


def assert_refused(answer: Answer, *parts: str) -> None:
    """One short message with all ``parts`` in it, a failure for the shell, and no result."""
    assert answer.code == 1
    for part in parts:
        assert part in answer.message
    lines = [line for line in answer.message.splitlines() if line.strip()]
    assert len(lines) <= 4, answer.message
    assert "Traceback" not in answer.message
    assert list(Path().rglob("result.json")) == []


def short(task: str) -> list[str]:
    """Return overrides for texts that the tiny checkpoint can read."""
    return ["task.max_length=16", *(["task.doc_stride=4"] if task == "squad" else [])]


class Reached(Exception):
    """The run has got as far as attaching its modifiers."""


def reach(*_: Any) -> None:
    raise Reached


# ---- data ----


def test_missing_mirror_file(command, tmp_path):
    (tmp_path / "mirror" / "sst2" / "validation.parquet").unlink()
    answer = command(*LOCAL)
    assert_refused(answer, "mirror/sst2/validation.parquet", "data.root=DIR", "train.parquet")


def test_missing_mirror_directory(command):
    answer = command(*LOCAL, "data.root=miror")
    assert_refused(answer, "data.root=miror: there is no such directory. Did you mean 'mirror'?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.root=null", "data.train=fiel.csv"],
            "data.train=fiel.csv: there is no such file. Did you mean 'file.csv'?",
        ),
        (["model.checkpoint=./nowhere"], "No directory ./nowhere"),
        (["recipe=gradual80", "teacher=checkpoint", "teacher.path=./nowhere"], "No directory ./nowhere"),
    ],
)
def test_a_place_that_is_not_there_is_refused_before_the_work_begins(words, message, command, monkeypatch):
    Path("file.csv").write_text("sentence,label\n")
    monkeypatch.setattr(sparse_xp.run, "execute", None)
    assert_refused(command(*LOCAL, *words), message)


def test_wrong_columns(command, tmp_path):
    write_rows(tmp_path / "mirror" / "sst2" / "train.parquet", sentences=SENTENCES, label=[0, 1, 0, 1])
    answer = command(*LOCAL)
    assert_refused(answer, "no column 'sentence'", "Did you mean 'sentences'?", "sentences, label", "task.text=COLUMN")


def test_misspelt_column_of_the_task(command):
    assert_refused(command(*LOCAL, "task.text=sentense"), "no column 'sentense'", "Did you mean 'sentence'?")


def test_no_rows(command, tmp_path):
    rows = pyarrow.table({"sentence": pyarrow.array([], "string"), "label": pyarrow.array([], "int64")})
    pyarrow.parquet.write_table(rows, tmp_path / "mirror" / "sst2" / "train.parquet")
    assert_refused(command(*LOCAL), "sst2/train.parquet", "has no rows")


def test_a_label_without_a_class(command, tmp_path):
    write_rows(tmp_path / "mirror" / "sst2" / "train.parquet", sentence=SENTENCES, label=[0, 1, 2, 1])
    assert_refused(command(*LOCAL), "row 2", "the label '2' in column label", "bad, good")


def test_labels_that_are_words(command, tmp_path):
    labels = ["bad", "god", "bad", "good"]
    write_rows(tmp_path / "mirror" / "sst2" / "train.parquet", sentence=SENTENCES, label=labels)
    assert_refused(command(*LOCAL), "row 1", "the label 'god'", "bad, good", "Did you mean 'good'?")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_classes_in_another_order_than_the_data(split, command, tmp_path):
    label = ClassLabel(names=["good", "bad"])
    rows = Dataset.from_dict(
        {"sentence": SENTENCES, "label": [0, 1, 0, 1]}, Features({"sentence": Value("string"), "label": label})
    )
    rows.to_parquet(tmp_path / "mirror" / "sst2" / f"{split}.parquet")
    answer = command(*LOCAL)
    assert_refused(answer, "task.classes is ['bad', 'good']", "['good', 'bad']", "leave task.classes out")


def test_a_metric_of_another_problem(command):
    answer = command(*LOCAL, "task.metric=pearson")
    assert_refused(answer, "task.metric='pearson'", "accuracy, f1, f1_macro", "task.problem=single_label")


def test_not_a_parquet_file(command, tmp_path):
    (tmp_path / "mirror" / "sst2" / "train.parquet").write_text("sentence,label\n", encoding="utf-8")
    assert_refused(command(*LOCAL), "mirror/sst2/train.parquet")


# ---- the hub ----

WAYS_OUT = ("data.root=", "model.checkpoint=", "profile=embedded")


def test_unreachable_hub_is_one_message(tmp_path):
    env = {
        k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HYDRA_FULL_ERROR")
    }
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "empty")}
    words = ["task=sst2", "recipe=dense", "model=minilm", "log=none"]
    done = subprocess.run(
        [sys.executable, "-m", "sparse_xp", *words], capture_output=True, text=True, env=env, check=False, timeout=HANGS
    )
    assert_refused(Answer(done.returncode, "", done.stderr), "hub is unreachable", *WAYS_OUT)
    assert hub.TIMEOUT_SECONDS <= 5  # all that it waits


def test_data_set_that_cannot_be_had(command):
    answer = command(*LOCAL, "data.root=null", "task.dataset=nobody/nothing")
    assert_refused(answer, "data set nobody/nothing", *WAYS_OUT)


def test_checkpoint_that_cannot_be_had(command):
    assert_refused(command(*LOCAL, "model.checkpoint=nobody/nothing"), "nobody/nothing", *WAYS_OUT)


@contextmanager
def silent_server() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def forbidding_server() -> Iterator[str]:
    """A host that answers 403 to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def no_server() -> Iterator[str]:
    yield "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("server", "offline"),
    [(silent_server, "1"), (no_server, "1"), (forbidding_server, None)],
    ids=["silent", "absent", "forbidding"],
)
def test_only_a_hub_that_does_not_answer_is_given_up(server, offline, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.2)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub.go_offline_if_unreachable()
    assert os.environ.get("HF_HUB_OFFLINE") == offline


# ---- model ----


def test_checkpoint_directory_that_is_not_there(command):
    answer = command(*LOCAL, "model.checkpoint=/no/such/dir")
    assert_refused(answer, "/no/such/dir")
    assert "unreachable" not in answer.message  # no hub has a model of that name


def test_checkpoint_directory_without_a_model(command, tmp_path):
    (tmp_path / "empty").mkdir()
    answer = command(*LOCAL, "model.checkpoint=empty")
    assert_refused(answer, "empty")
    assert "unreachable" not in answer.message


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("nobody/nothing", "the hub is unreachable"), ("encoder", "holds NaN"), ("three", "model.new_head=true")],
)
def test_a_student_that_cannot_be_loaded_is_found_before_its_teacher_is_trained(checkpoint, message, command):
    save_checkpoint("three", classifier("bad", "good", "neither"))
    broken = BertModel(make_bert().config)
    torch.nn.init.constant_(broken.embeddings.word_embeddings.weight, float("nan"))
    save_checkpoint("encoder", broken)
    words = ("task=sst2", "task.max_length=16", "recipe=gradual80", *EMBEDDED, f"model.checkpoint={checkpoint}")
    answer = command(*words, "teacher=dense", "teacher.model=tiny")
    assert_refused(answer, checkpoint, message)
    assert not list(Path("outputs").rglob("config.yaml"))  # no run has begun


def test_checkpoint_with_another_head(command):
    save_checkpoint("three", classifier("bad", "good", "neither"))
    answer = command(*LOCAL, "model.checkpoint=three")
    assert_refused(answer, "three", "sst2", "head", "model.new_head=true")


@pytest.mark.parametrize(
    ("kind", "task"),
    [(BertForQuestionAnswering, "sst2"), (BertForTokenClassification, "sst2"), (BertForTokenClassification, "squad")],
)
def test_checkpoint_with_the_head_of_another_kind_of_task(kind, task, command):
    save_checkpoint("other", kind(make_bert().config))
    answer = command(f"task={task}", *EMBEDDED, *short(task), "model.checkpoint=other")
    wanted = {"sst2": "ForSequenceClassification", "squad": "ForQuestionAnswering"}[task]
    assert_refused(answer, "other", f"task {task}", kind.__name__, wanted, "thrown away", "model.new_head=true")


def test_checkpoint_with_the_head_of_another_kind_of_task_than_token_classification(command):
    for name, model in (("answers", BertForQuestionAnswering(make_bert().config)), ("review", classifier("a", "b"))):
        save_checkpoint(name, model)
        answer = command("task=conll2003", *EMBEDDED, *short("conll2003"), f"model.checkpoint={name}")
        assert_refused(answer, name, type(model).__name__, "ForTokenClassification", "model.new_head=true")


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM, BertForPreTraining])
def test_checkpoint_without_a_head_or_with_one_of_pretraining(kind, command, monkeypatch):
    save_checkpoint("encoder", kind(make_bert().config))
    monkeypatch.setattr(Modifier, "attach", reach)
    with pytest.raises(Reached):
        command(*LOCAL)


def test_a_new_head_where_it_is_asked_for(command, monkeypatch):
    save_checkpoint("other", BertForQuestionAnswering(make_bert().config))
    save_checkpoint("three", classifier("bad", "good", "neither"))
    monkeypatch.setattr(Modifier, "attach", reach)
    for name in ("other", "three"):
        with pytest.raises(Reached):
            command(*LOCAL, f"model.checkpoint={name}", "model.new_head=true")


@pytest.mark.parametrize("classes", [("good", "bad"), ("cat", "dog")])
def test_checkpoint_with_other_labels(classes, command):
    save_checkpoint("other", classifier(*classes))
    answer = command(*LOCAL, "model.checkpoint=other")
    same = "another order" if "bad" in classes else "names and order"
    assert_refused(answer, "other", str(list(classes)), "['bad', 'good']", same, "model.new_head=true", "task.classes")


def test_checkpoint_with_other_tags(command):
    task = configure("task=conll2003").task
    tags = [*task.classes[1:], "O"]
    config = make_bert().config
    config.id2label, config.label2id = dict(enumerate(tags)), {name: i for i, name in enumerate(tags)}
    save_checkpoint("tagger", BertForTokenClassification(config))
    answer = command("task=conll2003", *EMBEDDED, *short("conll2003"), "model.checkpoint=tagger")
    assert_refused(answer, "tagger", str(tags), str(task.classes), "another order", "model.new_head=true")


def test_other_labels_need_a_new_head_and_get_one(command, monkeypatch, capsys):
    made = {}

    def attach(modifier, run):
        made["head"] = run.model.classifier.weight.detach().clone()
        made["word"] = run.model.bert.embeddings.word_embeddings.weight.detach().clone()
        made["labels"] = run.model.config.id2label
        raise Reached

    monkeypatch.setattr(Modifier, "attach", attach)
    for classes in (("good", "bad"), ("bad", "good")):
        checkpoint = classifier(*classes)
        save_checkpoint("other", checkpoint)
        with pytest.raises(Reached):
            command(*LOCAL, "model.checkpoint=other", "model.new_head=true")
        # a head that fits is kept, whatever is allowed
        assert torch.equal(made["head"], checkpoint.classifier.weight) == (classes == ("bad", "good"))
        assert torch.equal(made["word"], checkpoint.bert.embeddings.word_embeddings.weight)
        assert made["labels"] == {0: "bad", 1: "good"}


@pytest.mark.parametrize(
    ("checkpoint", "classes", "said"),
    [
        (["LABEL_0", "LABEL_1"], "[bad,good]", True),
        (["bad", "good"], "[]", True),  # the data have numbers
        (["BAD", "Good"], "[bad,good]", False),
        (["bad", "good"], "[bad,good]", False),
    ],
)
def test_labels_without_names_are_taken_in_their_order(checkpoint, classes, said, command, monkeypatch):
    save_checkpoint("other", classifier(*checkpoint))
    monkeypatch.setattr(Modifier, "attach", reach)
    lines: list[str] = []
    monkeypatch.setattr("sparse_xp.models.heads.say", lines.append)
    with pytest.raises(Reached):
        command(*LOCAL, f"task.classes={classes}", "model.checkpoint=other")
    assert [("checkpoint other" in line, "cannot be compared" in line) for line in lines] == [(True, True)] * said


def test_a_new_head_does_not_hide_a_damaged_encoder(command):
    save_checkpoint("damaged", classifier("bad", "good"))
    config = json.loads(Path("damaged/config.json").read_text(encoding="utf-8"))
    Path("damaged/config.json").write_text(json.dumps(config | {"intermediate_size": 24}), encoding="utf-8")
    answer = command(*LOCAL, "model.checkpoint=damaged", "model.new_head=true")
    assert_refused(answer, "damaged", "bert.encoder.layer.0", "another shape", "config.json")


def test_fp16_on_a_cpu(command):
    answer = command(*LOCAL, "train.precision=fp16", "train.device=cpu")
    assert_refused(answer, "train.precision=fp16", "train.precision=auto")


# ---- modifiers ----

#: 20 steps, so that the 5 % of the warm-up are one.
GRADUAL = ["recipe=gradual80", "teacher=none", "train.batch_size=1", "train.epochs=5"]


def test_pattern_that_matches_nothing(command):
    answer = command(*LOCAL, *GRADUAL, "sparsity.params=['re:nothing.*']")
    assert_refused(answer, "re:nothing.*")


@pytest.mark.parametrize(("mask_type", "parts"), [("[3,7]", ["[3, 7]"]), ("1:3", ["1:3", "0.6667"])])
def test_mask_that_does_not_fit(mask_type, parts, command):
    answer = command(*LOCAL, *GRADUAL, f"sparsity.mask_type='{mask_type}'")
    assert_refused(answer, "mask_type", *parts)


def test_overlapping_segments(command):
    answer = command(*LOCAL, *GRADUAL, "recipe.learning_rate.warmup.end=50%")
    assert_refused(
        answer,
        "recipe.learning_rate.warmup (epochs 0 to 2.5)",
        "recipe.learning_rate.decay (epochs 0.25 to 5)",
        "overlap",
    )


def test_two_modifiers_that_prune_the_same_weights(command):
    words = ["+modifier@recipe.modifiers.again=MagnitudePruning", "recipe.modifiers.again.final_sparsity=0.5"]
    answer = command(*LOCAL, *GRADUAL, *words)
    assert_refused(answer, "recipe.modifiers.again", "sparsity", "overlap")


def test_window_behind_the_end(command):
    answer = command(*LOCAL, "recipe.learning_rate.decay.end=3")
    assert_refused(answer, "recipe.learning_rate.decay", "end=3", "train.epochs=3", "'100%'")


def test_empty_window(command):
    answer = command(*LOCAL, *GRADUAL, "sparsity.start=60%", "sparsity.end=2")
    assert_refused(answer, "sparsity", "start=60%", "end=2")


def test_locked_sparsity_on_a_dense_checkpoint(command):
    words = ["recipe=pruned80", "profile=embedded", "teacher=none", "model.sparsity=0", "log=none"]
    answer = command(*words, "data.embedded_train_rows=16", "data.embedded_eval_rows=16", "train.batch_size=4")
    assert_refused(answer, "locked", "0.0% zeros", "80%", "recipe=gradual80")


def test_distilled_output_that_the_task_does_not_have(command):
    save_checkpoint("teacher", classifier("bad", "good"))
    words = ["teacher=checkpoint", "teacher.path=teacher", "teacher.distillation.outputs=[start_logits]"]
    assert_refused(command(*LOCAL, *words), "teacher.distillation.outputs", "start_logits", "has logits")


# ---- teacher ----

TEACHER = ["teacher=checkpoint", "teacher.path=teacher"]


def test_teacher_that_is_not_there(command):
    assert_refused(command(*LOCAL, "teacher=checkpoint", "teacher.path=./teacher"), "No directory ./teacher")


def test_teacher_run_that_is_not_there(command):
    path = "outputs/sst2,tiny,dense,seed=42"
    answer = command(*LOCAL, "teacher=checkpoint", f"teacher.path='{path}'")
    assert_refused(answer, path)
    assert "unreachable" not in answer.message


@pytest.mark.parametrize("classes", [("good", "bad"), ("bad", "good", "neither")])
def test_teacher_with_other_labels(classes, command):
    save_checkpoint("teacher", classifier(*classes))
    assert_refused(command(*LOCAL, *TEACHER), str(list(classes)), "['bad', 'good']")


def test_teacher_whose_labels_have_no_names(command, monkeypatch):
    save_checkpoint("teacher", classifier("LABEL_0", "LABEL_1"))
    monkeypatch.setattr(Modifier, "attach", reach)
    lines: list[str] = []
    monkeypatch.setattr("sparse_xp.models.heads.say", lines.append)
    with pytest.raises(Reached):
        command(*LOCAL, *TEACHER)
    [line] = lines
    assert line.startswith("labels of the teacher teacher: LABEL_0, LABEL_1, of task sst2: bad, good; numbers cannot")


def test_teacher_without_a_trained_head(command):
    config = classifier("bad", "good").config
    save_checkpoint("teacher", BertModel(config))
    assert_refused(command(*LOCAL, *TEACHER), "teacher", "no trained head", "classifier.weight", "teacher=dense")


def test_teacher_of_another_kind_of_task(command):
    config = classifier("bad", "good").config
    save_checkpoint("teacher", BertForQuestionAnswering(config))
    assert_refused(command(*LOCAL, *TEACHER), "no trained head", "BertForQuestionAnswering")


def test_teacher_with_another_vocabulary(command):
    words = [{"cat": "dog", "dog": "cat"}.get(word, word) for word in WORDS]
    save_checkpoint("teacher", classifier("bad", "good"), words)
    answer = command(*LOCAL, *TEACHER)
    cat, dog = WORDS.index("cat"), WORDS.index("dog")
    assert_refused(answer, "reads other tokens", f"'cat' is number {dog} there and number {cat} here")


def test_teacher_with_more_words(command):
    config = classifier("bad", "good").config
    config.vocab_size = len(WORDS) + 1
    save_checkpoint("teacher", BertForSequenceClassification(config), [*WORDS, "bird"])
    answer = command(*LOCAL, *TEACHER)
    assert_refused(
        answer, f"{len(WORDS) + 1} against {len(WORDS)}", f"'bird' is number {len(WORDS)} there and missing here"
    )


# ---- the disk ----


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_while_saving_keeps_the_checkpoint_before(command, monkeypatch):
    saved, save = [], torch.save

    def save_twice(state: Any, path: Path) -> None:
        if path.name != "state.pt":  # of the best model
            return save(state, path)
        if len(saved) == 2:
            path.write_bytes(b"half")
            no_space()
        saved.append(path)
        return save(state, path)

    monkeypatch.setattr("sparse_xp.training.checkpoint.torch.save", save_twice)
    answer = command(*LOCAL, "hydra.run.dir=mine", "train.save_every=1 steps")
    assert_refused(answer, "No space left", "mine/checkpoints/step-00000003", "run the same command again")
    assert sorted(path.name for path in Path("mine/checkpoints").iterdir()) == ["step-00000002"]
    state = torch.load("mine/checkpoints/step-00000002/state.pt", weights_only=True)
    assert state["progress"]["step"] == 2


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("sparse_xp.history.History._write", ["mine", "hydra.run.dir="]),
        ("datasets.Dataset.map", ["cache/features/sst2-train-", "data.cache="]),
    ],
)
def test_full_disk_anywhere_else(place, named, command, monkeypatch):
    monkeypatch.setattr(place, no_space)
    assert_refused(command(*LOCAL, "hydra.run.dir=mine"), "No space left", *named)


# ---- the run directory ----


def test_run_directory_that_holds_another_configuration(command):
    """Another run was interrupted there: its checkpoint is worth keeping."""
    claim_run(Path("mine"))
    Path("mine/checkpoints/step-00000001").mkdir(parents=True)
    Path("mine/config.yaml").write_text(yaml.safe_dump({"config_hash": "0123456789"}), encoding="utf-8")
    answer = command(*LOCAL, "hydra.run.dir=mine")
    assert_refused(answer, "mine", "another configuration", "They differ in task", "hydra.run.dir=")
    assert yaml.safe_load(Path("mine/config.yaml").read_text(encoding="utf-8")) == {"config_hash": "0123456789"}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (["data.root=not/here/mirror"], ["data.root=./mirror"]),
        (["hydra.run.dir=mine", "task.text=sentense"], ["hydra.run.dir=mine"]),
    ],
    ids=["path", "column"],
)
def test_a_run_that_never_started_is_not_in_the_way_of_the_corrected_command(wrong, right, command, monkeypatch):
    assert_refused(command(*LOCAL, *wrong))
    monkeypatch.setattr(Modifier, "attach", reach)
    with pytest.raises(Reached):
        command(*LOCAL, *right)
