"""What a task is: where its rows are, how they become features, and how predictions become scores and answers.

All that is particular to a *kind* of task stands in one subclass of ``Task``. The rest of the package asks it for:

    tasks/rows.py              normalize, columns, column_types, check_rows, add_missing_columns, holdout_groups, clean,
                               query_column
    tasks/sources.py           read, generated_rows
    tasks/unlabeled_rows.py    text_names, inputs_of
    tasks/features.py          features, input_features, feature_fields
    compose.py, config.py      default_teacher, needs_teacher
    preparation.py             with_labels_from, check_labels, warnings, for_teacher, compares_with_teacher
    deploy_model.py            with_classes, accepts_logits
    models/heads.py            model_class, label_names
    models/loading.py          label_names, model_options, embeds, head_options
    training/state.py          batch_columns, features_per_row, apply_dynamic_masking, forward, curvature_loss
    training/loop.py           losses, loss_counts
    training/teacher.py        outputs, fixed_features, per_token
    modifiers/distillation.py  outputs, class_mask, token_mask, problem_type, loss_reduction
    evaluation.py              outputs, padding, unpad, score
    deployment/distance.py     class_mask, token_mask
    deployment/gate.py         answer_count
    deployment/pipeline.py     text_names, encode_row, accepts_logits, decode, check_reranks, relevance
    deployment/bundle.py       training_only_fields
    deployment/model_card.py   purpose, example, metric_units
    predict.py                 text_names, ranks_answers, list_name, answer_names

A configuration is composed of these classes, and composing must be fast: torch, datasets, transformers, pyarrow and
numpy are imported inside the methods that need them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from omegaconf import MISSING

from sparse_xp.data.limits import Limits
from sparse_xp.data.readers import read_rows
from sparse_xp.data.table import Table
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.text_format import TextFormat
from sparse_xp.tasks.columns import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from sparse_xp.tasks.answers import Answer, EncodedRow, NamedText, Outputs

#: columns of a batch of rows or of features, by name
Rows = dict[str, list[Any]]

#: the label of tokens that the loss leaves out, as in PyTorch's cross entropy
IGNORED = -100

#: metadata of a field of a task that takes effect after the features are made: it is not part of their cache key
NOT_IN_FEATURES = {"shapes_features": False}
#: metadata of a field of a task that only training reads: a deployment folder does not carry it
FOR_TRAINING = {"training_only": True}


def teacher_column(output: str) -> str:
    """Return the column of the evaluation features that has the teacher's output of this name."""
    return f"teacher_{output}"


@dataclass(kw_only=True)
class Task(ABC):
    """One data set and how to learn it. The fields are its configuration; a *kind* of task is a subclass.

    Attributes:
        name: The name in the table of results.
        dataset: The data set on the hub. None: rows come from files of your own (``data.train``).
        subset: The configuration of the data set on the hub, such as ``sst2`` of ``nyu-mll/glue``.
        revision: The branch, tag or commit of the data set on the hub. None: its main branch.
        folder: The name of the data set's folder under ``data.root``. Empty: the name of the task.
        train_split: The split to train on.
        eval_split: The split to evaluate on, or several (``a+b``). If it is the training split, or for ``data.train``
            without ``data.validation``, the ``validation_share`` of the training rows is held out.
        max_length: The number of tokens after which a text is cut, or a long context divided.
        validation_share: The fraction of the training rows that is held out where there is no split to evaluate on.
        max_train_samples: Train on a seeded subset of so many rows. None: all.
        max_eval_samples: Evaluate on a seeded subset of so many rows. None: all.
        metric: The score that picks the best checkpoint and heads the tables. Higher is better.
    """

    name: str
    dataset: str | None = MISSING  # a file of conf/task/ has to say it; in Python it may be left out
    subset: str | None = None
    revision: str | None = field(default=None, metadata=FOR_TRAINING)
    folder: str = ""
    train_split: str = field(default="train", metadata=FOR_TRAINING)
    eval_split: str = "validation"
    max_length: int
    validation_share: float = field(default=0.1, metadata=FOR_TRAINING)
    max_train_samples: int | None = field(default=None, metadata=FOR_TRAINING)
    max_eval_samples: int | None = field(default=None, metadata=FOR_TRAINING)
    metric: str = field(metadata=NOT_IN_FEATURES)

    #: the Auto class of the model, the names of its logits, and the batch entries that hold the targets
    model_class: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    targets: ClassVar[tuple[str, ...]]
    #: outputs of the exported file that other libraries read, and no method here
    further_outputs: ClassVar[tuple[str, ...]] = ()
    #: completes "A BERT-class encoder for ..." in the model card
    purpose: ClassVar[str]
    #: explains units of metrics in the model card, where they are not all per cent
    metric_units: ClassVar[str] = ""
    #: the names that ``metric`` may have; empty where the kind checks them itself
    metric_names: ClassVar[tuple[str, ...]] = ()
    #: whether ``decode`` can give the N best answers
    ranks_answers: ClassVar[bool] = False
    #: the name of the answers of a row in a line of ``predict``, where they are a list
    list_name: ClassVar[str] = "labels"
    #: whether an output has one entry per token (cut to the row's own length) or one per row
    per_token: ClassVar[bool] = False
    #: the padding value of features, where it is not 0
    padding: ClassVar[dict[str, int]] = {}
    #: whether a row has the same tokens in every epoch
    fixed_features: ClassVar[bool] = True
    #: whether one feature combines several rows, so that it depends on how rows are batched for tokenization
    mixes_rows: ClassVar[bool] = False
    #: whether it can learn from rows without labels (``data.unlabeled``)
    takes_unlabeled: ClassVar[bool] = True
    #: whether the task computes its loss itself (``own_loss``), in place of the head of transformers
    has_own_loss: ClassVar[bool] = False
    #: whether outputs are logits over the vocabulary: training does not hold those of all tokens at once
    is_language_model: ClassVar[bool] = False
    #: whether the model's output is one vector for each text (``models/embedding_model.py``)
    embeds: ClassVar[bool] = False
    #: whether ``score`` reads what the teacher answers to the evaluation rows, in columns ``teacher_...`` of features
    compares_with_teacher: ClassVar[bool] = False
    #: the option of ``teacher=`` where the command names none; None: that of the recipe
    default_teacher: ClassVar[str | None] = None
    #: how the loss terms of several outputs combine: ``mean``, or ``sum`` as in pretraining
    loss_reduction: ClassVar[str] = "mean"
    #: raise it when ``features`` changes, so that cached features are made again
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.dataset = None if self.dataset == MISSING else self.dataset
        self.folder = self.folder or self.name
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"task.{name}={value}: expected at least 1, or null for all rows.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"task.validation_share={self.validation_share}: expected a fraction between 0 and 1.")
        if self.max_length < 8:
            raise ValueError(f"task.max_length={self.max_length}: expected at least 8 tokens.")
        if self.metric_names and self.metric not in self.metric_names:
            expected = f"{'one of ' * (len(self.metric_names) > 1)}{', '.join(self.metric_names)}"
            raise ValueError(
                f"task.metric={self.metric!r}: expected {expected}.{did_you_mean(self.metric, self.metric_names)}"
            )

    def feature_fields(self) -> dict[str, Any]:
        """Return the fields that shape the features, and so belong into their cache key."""
        return {
            item.name: getattr(self, item.name) for item in fields(self) if item.metadata.get("shapes_features", True)
        }

    @classmethod
    def training_only_fields(cls) -> set[str]:
        """Return the names of the fields that only training reads."""
        return {item.name for item in fields(cls) if item.metadata.get("training_only", False)}

    # Labels

    @property
    def label_names(self) -> list[str] | None:
        """The classes in the order of the head's outputs, None for a head without classes."""
        return None

    @property
    def problem_type(self) -> str:
        """The problem type of the logits, in transformers' terms; it decides how distillation compares them.

        ``single_label_classification``, ``multi_label_classification`` or ``regression``; ``embedding`` for vectors.
        """
        return "single_label_classification"

    @property
    def model_options(self) -> dict[str, Any]:
        """Settings of the model's configuration that this task needs, beside the label map."""
        return {}

    @property
    def config_entries(self) -> dict[str, Any]:
        """Entries of config.json that another library reads there, beside ``model_options``."""
        return {}

    @property
    def head_options(self) -> dict[str, Any]:
        """Where the task ``embeds``: how texts become vectors, where it is otherwise than the checkpoint says."""
        return {}

    def with_labels_from(self, rows: Table | Dataset) -> Self:
        """Return the task with the label names of these training rows, if it has none of its own.

        Raises UserError for rows that have no labels to be told apart.
        """
        return self

    def with_classes(self, names: list[str]) -> Self:
        """Return the task with the classes of a trained head, if its kind has classes and it names none of its own.

        Raises UserError for names that the kind does not take.
        """
        return self

    def check_labels(self, rows: Table | Dataset) -> None:
        """Raise UserError if the rows name their labels otherwise than the task, or in another order."""
        return

    # Rows

    @abstractmethod
    def columns(self) -> list[str]:
        """Return the columns that a data source must have."""

    def optional_columns(self) -> list[str]:
        """Return the columns that are read if a data source has them."""
        return []

    def column_types(self) -> list[tuple[str, ColumnType]]:
        """Return the type of each column that must have a certain one."""
        return []

    def read(self, path: Path, cache: Path, limits: Limits, text_format: TextFormat) -> Table | Dataset:
        """Return the rows of a local file. ``cache``: where they may be stored in a form that needs no memory."""
        return read_rows(path, limits, text_format, used=[*self.columns(), *self.optional_columns()])

    def normalize(
        self, rows: Table | Dataset, source: str, strict: bool, numbered: bool
    ) -> tuple[Table | Dataset, list[str]]:
        """Return the rows with the values of each column as this kind takes them, and remarks on what was converted.

        ``strict``: the rows are the user's own, whose empty texts are refused. ``numbered``: whether a label may be the
        number of a class. Columns may be missing here. Raises UserError, with the place, for a value of no use.
        """
        return rows, []

    def inputs_of(self, rows: Table) -> Table:
        """Return the texts of rows without labels, under the names of the task's columns, without other columns.

        A text may go by each of its ``text_names``; the rows have one of them.
        """
        found = {names[0]: next(n for n in names if n in rows.column_names) for names in self.text_names()}
        return rows.with_data(rows.data.select(list(found.values())).rename_columns(list(found)))

    def check_rows(self, rows: Table | Dataset, source: str) -> None:
        """Raise UserError if values of the rows contradict each other. ``source``: what the message calls the data."""
        return

    def add_missing_columns(self, rows: Table | Dataset) -> Table | Dataset:
        """Return the rows with the optional columns that they lack."""
        return rows

    @property
    def query_column(self) -> str | None:
        """The column that names the query of a row, if the rows of a query are scored together: a subset keeps them."""
        return None

    def holdout_groups(self, rows: Table | Dataset) -> tuple[list[Any], bool]:
        """Return a key for each row, by which validation rows are held out, and whether to stratify by the keys.

        Stratified, each key gives the same share of its rows. Otherwise rows with the same key stay on the same side.
        """
        return list(range(len(rows))), False

    def clean(self, rows: Table | Dataset, train: bool) -> tuple[Table | Dataset, list[str]]:
        """Return the usable rows, repaired where that is safe, and warnings that say what was done to them."""
        return rows, []

    @abstractmethod
    def generated_rows(self, split: str, rows: int) -> Rows:
        """Return invented rows of this kind for ``profile=embedded``, under this task's column names."""

    @classmethod
    def generated_words(cls) -> list[str]:
        """Return texts that hold every word of ``generated_rows``, for the vocabulary of the tiny model.

        Without a word the tiny model sees its characters.
        """
        return []

    # Features

    @abstractmethod
    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        """Turn a batch of rows, the first of which is row number ``first``, into features for the model.

        Training features hold the model's inputs and ``targets``, each a list of ints per row, or an int.
        """

    def input_features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> Rows:
        """Turn rows without labels into the model's inputs, as ``features`` does with training rows."""
        raise NotImplementedError

    def warnings(self, features: Dataset, train: bool) -> list[str]:
        """Return what a person should know about the features of all rows before training on them."""
        return []

    # Training

    @property
    def features_per_row(self) -> int:
        """The number of training features that follow each other and stay together in a batch."""
        return 1

    @property
    def needs_teacher(self) -> bool:
        """Whether the rows teach nothing without a teacher."""
        return False

    def for_teacher(self) -> Self:
        """Return the task as the teacher computes it."""
        return self

    @property
    def batch_columns(self) -> tuple[str, ...]:
        """The columns of the training features that go into a batch, beside the model's inputs."""
        return self.targets

    def apply_dynamic_masking(
        self, batch: dict[str, Tensor], rows: list[int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Tensor]:
        """Return the training batch with this epoch's random masks: a function of ``rows`` and ``seed`` alone."""
        return batch

    def forward(self, model: Callable[..., Any], batch: dict[str, Tensor]) -> Any:
        """Return the model's outputs for a training batch, the loss among them."""
        if not self.has_own_loss:
            return model(**batch)
        outputs = model(**{name: value for name, value in batch.items() if name not in self.targets})
        outputs["loss"] = self.own_loss(outputs, batch)
        return outputs

    def own_loss(self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a training batch, where the task ``has_own_loss``."""
        raise NotImplementedError

    def curvature_loss(self, model: Callable[..., Any], batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a training batch whose gradients estimate a Fisher matrix: the task's own."""
        loss: Tensor = self.forward(model, batch)["loss"]
        return loss

    def losses(self, outputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the terms whose sum is the loss in the ``outputs`` of ``forward``; each is a mean."""
        return (outputs["loss"],)

    def loss_counts(self, batch: dict[str, Tensor]) -> tuple[int, ...]:
        """Return, for each of the ``losses``, the number of rows or tokens that it averages."""
        return (len(batch["input_ids"]),)

    def class_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return which entries of the outputs' last dimension are real, [rows, classes] bool; None for all of them."""
        return None

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return which tokens have outputs that count, [rows, tokens] bool; None for outputs without tokens."""
        return None

    # Scores

    def unpad(self, name: str, value: np.ndarray, length: int, features: Dataset, row: int) -> np.ndarray:
        """Return what ``score`` needs of output ``name`` for a row of ``length`` tokens: ``value`` without padding."""
        return value[:length] if self.per_token else value

    @abstractmethod
    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        """Return the metrics, in per cent, of ``outputs``: for each output name one array per feature."""

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        """Return about how many answers ``metric`` averages; None if the metric is not an average over answers.

        One answer more or less moves the metric by 100 / count: the check of an exported file allows for that.
        """
        return len(rows)

    # Answers of a deployed model. Neither torch nor transformers is installed where these methods run.

    @abstractmethod
    def text_names(self) -> list[tuple[str, ...]]:
        """Return the texts that a row must have to be answered: for each the names that it may go by."""

    @abstractmethod
    def example(self) -> dict[str, str]:
        """Return a row for the example calls of the model card."""

    def answer_names(self, top: int | None) -> list[str]:
        """Return the names that an answer has in a line of ``predict``; ``top``: as in ``decode``."""
        return [self.list_name]

    @abstractmethod
    def encode_row(self, texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
        """Return the tokens of a row. ``texts``: its values in the order of ``text_names``.

        Raises UserError for values that are no texts, or that do not fit ``max_length`` tokens.
        """

    @abstractmethod
    def accepts_logits(self, name: str, shape: tuple[int, ...], tokens: int) -> bool:
        """Whether ``decode`` can read output ``name`` of this shape for rows of so many tokens.

        ``shape``: without the batch dimension.
        """

    @abstractmethod
    def decode(self, row: EncodedRow, outputs: Outputs, tokenizer: Tokenizer, top: int | None) -> Answer:
        """Return the answer: the ``top`` best where the kind ``ranks_answers``.

        ``outputs``: by name, for each encoding of the row an array [tokens], [tokens, classes] or [classes] without
        padding.
        """

    def check_reranks(self) -> None:
        """Raise UserError unless ``relevance`` can be told from the outputs of the model."""
        raise UserError(
            f"rerank: the task {self.name} does not say how well a document answers a query. That takes a task on "
            "pairs of texts (task.text_pair) with a number (task.problem=regression) or two classes."
        )

    def relevance(self, outputs: Outputs) -> float:
        """Return how well the second text of a pair answers the first; ``outputs``: as of ``decode``."""
        raise NotImplementedError
