"""Prepare a run: rows and features, the student, the ``Run`` object, the teacher. ``run.execute`` calls these in order.

Rank 0 fills the cache and the other processes read from it (``main_process_first``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.clock import Clock
from sparse_xp.config import Config
from sparse_xp.console import say
from sparse_xp.data.batches import lengths_of, steps_per_epoch
from sparse_xp.data.table import to_dataset
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import json_digest
from sparse_xp.files.reading import resolve_model_dir
from sparse_xp.functional.architectures import dropout_keys
from sparse_xp.history import History
from sparse_xp.models.config_files import read_config
from sparse_xp.models.embedding_model import prompt_remark
from sparse_xp.models.heads import describe_new_heads
from sparse_xp.models.loading import load_model, load_teacher_model
from sparse_xp.models.positions import check_text_length
from sparse_xp.models.sentence_modules import read_sentence_head
from sparse_xp.models.source import resolve_checkpoint
from sparse_xp.models.tokenizers import (
    add_lower_case,
    check_vocabulary,
    drop_token_types,
    load_tokenizer,
    padding_remark,
)
from sparse_xp.modifiers.context import TeacherModel
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.recipe.inherit import removed_layers
from sparse_xp.tasks import Task
from sparse_xp.tasks.features import make_features
from sparse_xp.tasks.rows import LoadedSplit, Splits, load_splits
from sparse_xp.training.reference import add_reference
from sparse_xp.training.state import Run
from sparse_xp.training.teacher import choose_teacher

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class PreparedData:
    """The rows and features of a run.

    ``task``: the task with the labels of the data. ``source``: the checkpoint that training starts from.
    """

    task: Task
    source: str
    tokenizer: PreTrainedTokenizerBase
    train: LoadedSplit
    evaluation: LoadedSplit
    train_features: Dataset
    eval_features: Dataset
    unlabeled: LoadedSplit | None = None
    unlabeled_features: Dataset | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of where the rows come from."""
        further = [self.unlabeled.fingerprint] if self.unlabeled else []
        return json_digest([self.train.fingerprint, self.evaluation.fingerprint, *further])


def prepare_data(config: Config, accelerator: Accelerator, splits: Splits | None) -> PreparedData:
    """Tokenize the rows. Prints warnings about the data. ``splits``: None to fetch them from the hub."""
    with accelerator.main_process_first():
        source, tokenizer = resolve_student(config)
    with accelerator.main_process_first():
        splits = splits or load_splits(config.task, config.data)
    task = splits.task
    train, evaluation = (replace(part, rows=to_dataset(part.rows)) for part in (splits.train, splits.evaluation))
    with accelerator.main_process_first():
        train_features = make_features(task, train.rows, train.fingerprint, tokenizer, config.data, train=True)
        eval_features = make_features(
            task, evaluation.rows, evaluation.fingerprint, tokenizer, config.data, train=False
        )
        unlabeled = splits.unlabeled
        unlabeled_features = unlabeled and make_features(
            task, to_dataset(unlabeled.rows), unlabeled.fingerprint, tokenizer, config.data, True, labelled=False
        )
    for features in filter(None, (train_features, unlabeled_features)):
        check_longest_row(features, config.train.tokens)
    warnings = [*train.warnings, *evaluation.warnings, *(unlabeled.warnings if unlabeled else [])]
    warnings += [*task.warnings(train_features, True), *task.warnings(eval_features, False)]
    for warning in warnings:
        say(warning)
    return PreparedData(
        task, source, tokenizer, train, evaluation, train_features, eval_features, unlabeled, unlabeled_features
    )


def check_longest_row(features: Dataset, tokens: int | None) -> None:
    """Raise UserError if a training row alone has more tokens than ``train.tokens`` allows a micro-batch."""
    if tokens is not None and (longest := max(lengths_of(features))) > tokens:
        raise UserError(
            f"train.tokens={tokens}: the longest training row has {longest} tokens, and a micro-batch has whole rows. "
            f"Write train.tokens={longest} or more, or cut the rows with task.max_length={max(tokens, 8)}."
        )


def resolve_student(config: Config) -> tuple[str, PreTrainedTokenizerBase]:
    """Return the checkpoint that training starts from, and its tokenizer. Raises UserError if they do not fit."""
    source = resolve_checkpoint(config.model, Path(config.data.cache) / "models")
    where = resolve_model_dir(config.model.tokenizer) if config.model.tokenizer else source
    tokenizer = load_tokenizer(where, None if config.model.tokenizer else config.model.revision)
    if config.task.embeds and (head := read_sentence_head(source, config.model.revision)) and head.lower_case:
        add_lower_case(tokenizer)
    stored = read_config(source, config.model.revision)
    rows = getattr(stored, "vocab_size", None)
    check_vocabulary(tokenizer, f"The tokenizer of {where}", rows, f"the model {source}")
    drop_token_types(tokenizer, stored)
    return source, tokenizer


def read_student(config: Config, task: Task, source: str) -> tuple[PreTrainedModel, list[str]]:
    """Return the model in the checkpoint ``source``, and the names of its weights that the checkpoint lacks.

    Raises UserError if it cannot be loaded, or reads shorter texts than those of ``task``.
    """
    stored = read_config(source, config.model.revision)
    check_text_length(source, stored.to_dict(), task, config.export.sequence)
    dropout = config.model.dropout
    if dropout is None and task.needs_teacher and dropout_keys(stored):
        dropout = 0.0  # it would keep the student away from a teacher that has none
    return load_model(
        task,
        source,
        revision=config.model.revision,
        dropout=dropout,
        attn_implementation=config.model.attn_implementation,
        new_head=config.model.new_head,
        removed_layers=removed_layers(source),
    )


def load_student(config: Config, data: PreparedData) -> tuple[PreTrainedModel, list[str]]:
    """Return the model to train, and the names of its weights that the checkpoint lacks."""
    model, new_weights = read_student(config, data.task, data.source)
    if remark := padding_remark(data.tokenizer, model):
        say(remark)
    if data.task.embeds and (remark := prompt_remark(model, data.task.head_options)):
        say(remark)
    if data.task.is_language_model and (heads := describe_new_heads(new_weights)):
        say(
            f"{data.source} has no head for {', '.join(heads)}: a new one is trained (its matrix over the vocabulary "
            "is that of the embeddings); prune only what was prepared so (recipe=teacher_preparation)"
        )
    return model, new_weights


def assemble(
    config: Config, directory: Path, data: PreparedData, model: PreTrainedModel, accelerator: Accelerator
) -> Run:
    """Return the ``Run``: its length in steps, its modifiers, its history. No modifier is attached yet."""
    train = config.train
    rows = len(data.train_features) // data.task.features_per_row
    # The other rows of a batch have no label; an epoch is over those that have one.
    labelled = replace(train, batch_size=train.labelled_rows) if data.unlabeled else train
    per_epoch = steps_per_epoch(rows, labelled, accelerator.num_processes)
    clock = Clock(per_epoch, train.steps) if train.steps else Clock.of(train.epochs, per_epoch)
    return Run(
        directory=directory,
        cache=Path(config.data.cache),
        source=data.source,
        origin=data.fingerprint,
        seed=config.seed,
        task=data.task,
        train=train,
        eval_batch_size=train.eval_batch_size,
        device=accelerator.device,
        threads=train.threads,
        tokenizer=data.tokenizer,
        model=model,
        accelerator=accelerator,
        clock=clock,
        modifier_list=ModifierList(config.modifiers(), clock),
        history=History(directory / "history.jsonl", config.log.every, active=accelerator.is_main_process),
        eval_rows=data.evaluation.rows,
        num_train_rows=len(data.train.rows),
        train_features=data.train_features,
        eval_features=data.eval_features,
        unlabeled_features=data.unlabeled_features,
        num_unlabeled_rows=data.unlabeled.total if data.unlabeled else 0,
    )


def load_teacher(config: Config, run: Run) -> TeacherModel | None:
    """Return the teacher, live or as stored logits; None if the run has none."""
    teacher = config.teacher
    if not teacher.given:
        if run.task.compares_with_teacher:
            with run.accelerator.main_process_first():
                add_reference(run, run.model, run.cache / "references")
        return None
    # Without a path it is ``teacher=self``: the checkpoint that the student starts from.
    path, revision = (teacher.path, teacher.revision) if teacher.path else (run.source, config.model.revision)
    removed = removed_layers(resolve_model_dir(path))
    model = load_teacher_model(run.task.for_teacher(), path, run.tokenizer, revision, removed)
    if run.task.compares_with_teacher:
        with run.accelerator.main_process_first():
            add_reference(run, model, run.cache / "references")
    return choose_teacher(run, model, teacher, run.cache / "logits")


def with_task(config: Config, data: PreparedData) -> Config:
    """Return the configuration with the task's labels filled in, as config.yaml records it."""
    return replace(config, task=data.task)
