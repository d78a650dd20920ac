"""What a task is: where its rows are, how they become features, and how predictions become a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparse_xp.clock import When

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from sparse_xp.data.readers import Limits

Rows = dict[str, list[Any]]


@dataclass(kw_only=True)
class Numbers:
    """What a recipe looks up in the task it is used for: ``train.*`` and ``seed``, unless the user says otherwise."""

    epochs: float
    batch_size: int
    learning_rate: float
    warmup: When
    seed: int


@dataclass(kw_only=True)
class QuantNumbers(Numbers):
    """The same for a recipe that accumulates, distils and ends in 8 bits."""

    gradient_accumulation_steps: int
    temperature: float
    weight_decay: float


@dataclass(kw_only=True)
class Task(ABC):
    """One data set and how to learn it. The fields are its configuration; a *kind* of task is a subclass.

    ``dataset``, ``subset``, ``revision``: its home on the hub. ``folder``: its name under ``data.root``.
    ``metric``: the score that picks the best checkpoint and heads the tables; higher is better.
    ``eval_split``: may be several, ``a+b``; with none of its own (``eval_split`` equal to ``train_split``, or
    ``data.train`` without ``data.validation``) the ``validation_share`` of the rows is held out.
    ``max_train_samples``, ``max_eval_samples``: a seeded subset of the rows, None for all of them.
    ``dense``, ``transfer``, ``quant``: the numbers of the recipe ``dense``, of those that start from a sparse
    checkpoint, and of those that do and end in 8 bits (where a task says nothing: SQuAD's). ``pruneofa``,
    ``pruneofa_quant``: of the transfer of Prune Once for All and of its second stage in 8 bits (where a task says
    nothing: GLUE's).
    """

    name: str
    dataset: str | None
    subset: str | None = None
    revision: str | None = None
    folder: str
    train_split: str = "train"
    eval_split: str = "validation"
    max_length: int
    validation_share: float = 0.1
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    metric: str
    dense: Numbers = field(
        default_factory=lambda: Numbers(epochs=2.0, batch_size=32, learning_rate=5e-5, warmup=0.0, seed=2021)
    )
    transfer: Numbers = field(
        default_factory=lambda: Numbers(epochs=5.0, batch_size=32, learning_rate=5e-5, warmup="5%", seed=42)
    )
    pruneofa: Numbers = field(
        default_factory=lambda: Numbers(epochs=9.0, batch_size=32, learning_rate=1e-4, warmup=0.0, seed=5143)
    )
    pruneofa_quant: Numbers = field(
        default_factory=lambda: Numbers(epochs=3.0, batch_size=32, learning_rate=1e-5, warmup=0.0, seed=5143)
    )
    quant: QuantNumbers = field(
        default_factory=lambda: QuantNumbers(
            epochs=13.0,
            batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=1.75e-4,
            warmup=0.0,
            temperature=5.0,
            weight_decay=0.0,
            seed=42,
        )
    )

    #: the Auto class of the model, its logits, and the batch entries that hold what is to be learnt
    model_class: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    targets: ClassVar[tuple[str, ...]]
    #: whether an output has one entry per token (cut to the row's own length) or one per row
    per_token: ClassVar[bool] = False
    #: what fills up a feature that is shorter than the longest of its batch, where it is not 0
    padding: ClassVar[dict[str, int]] = {}
    #: whether a row has the same tokens in every epoch
    fixed_features: ClassVar[bool] = True
    #: whether a feature is made of several rows, so that it depends on which rows come together
    mixes_rows: ClassVar[bool] = False
    #: whether outputs are logits over the vocabulary, which training does not hold for all tokens at once
    over_vocabulary: ClassVar[bool] = False
    #: whether the loss is the sum of one term for each output, as in pretraining, and not their mean
    sums_outputs: ClassVar[bool] = False
    #: raise it when ``features`` changes, so that cached features are made again
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"task.{name}={value}: want at least 1, or null for all rows.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"task.validation_share={self.validation_share}: want a fraction between 0 and 1.")
        if self.max_length < 8:
            raise ValueError(f"task.max_length={self.max_length}: want at least 8 tokens.")

    @property
    def label_names(self) -> list[str] | None:
        """The classes in the order of the head's outputs, None for a head without classes."""
        return None

    @property
    def logits_are(self) -> str:
        """What distillation compares: ``classes`` (of which one holds), ``labels`` (each holds or not), ``values``."""
        return "classes"

    @property
    def model_options(self) -> dict[str, Any]:
        """What the model's configuration must say beyond the label map."""
        return {}

    def resolved(self, rows: Dataset) -> Self:
        """The task with what it reads from its training rows filled in, labels for one.

        Raises UserError if the rows and the task contradict each other.
        """
        return self

    def completed(self, rows: Dataset) -> Dataset:
        """The rows with columns that may be left out made up for."""
        return rows

    def checked(self, rows: Dataset, train: bool) -> tuple[Dataset, list[str]]:
        """The rows that can be used, mended where that is safe, and what was done to them in words."""
        return rows, []

    def groups(self, rows: Dataset) -> tuple[list[Any], bool]:
        """A key for each row, by which validation rows are held out, and whether each key gives the same share.

        If not, rows with the same key stay on the same side.
        """
        return list(range(len(rows))), False

    @abstractmethod
    def columns(self) -> list[str]:
        """The columns that a data source must have."""

    @abstractmethod
    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        """Turn a batch of rows, the first of which is row number ``first``, into features for the model.

        Training features hold the model's inputs and ``targets``, each a list of ints per row, or an int.
        """

    def read(self, path: Path, cache: Path, limits: Limits) -> Dataset:
        """The rows of a local file. ``cache``: where they may be kept in a form that needs no memory."""
        from sparse_xp.data.readers import read_file

        return read_file(path, limits)

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns of the training features that a batch is made of, beside the model's inputs."""
        return self.targets

    def drawn(
        self, batch: dict[str, Tensor], rows: list[int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Tensor]:
        """The training batch with what is drawn anew in each epoch: a function of ``rows`` and ``seed`` alone."""
        return batch

    def forward(self, model: Any, batch: dict[str, Tensor]) -> Any:
        """The model's outputs for a training batch, the loss among them."""
        return model(**batch)

    def kept(self, name: str, value: np.ndarray, length: int, features: Dataset, row: int) -> np.ndarray:
        """What ``score`` needs of output ``name`` for a row of ``length`` tokens: ``value`` without its padding."""
        return value[:length] if self.per_token else value

    def remarks(self, features: Dataset, train: bool) -> list[str]:
        """What a person should know about the features of all rows before training on them; said once a run."""
        return []

    def loss_weight(self, batch: dict[str, Tensor]) -> int:
        """Over how many terms the model's loss is the mean, with which batches are put together into one step."""
        return len(batch["input_ids"])

    @abstractmethod
    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        """The metrics, in per cent, of ``outputs``: for each output name one array per feature."""

    def counted(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        """Of about how many answers ``metric`` is the share, None for one that is no share of answers.

        It says what one answer is worth when a file is checked.
        """
        return len(rows)

    def class_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Which entries of the outputs' last dimension are real, [rows, classes] bool, None for all of them."""
        return None

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Which tokens have outputs that count, [rows, tokens] bool, None for outputs without a token dimension."""
        return None

    @abstractmethod
    def embedded(self, split: str, rows: int) -> Rows:
        """Generated rows of this kind for ``profile=embedded``, with this task's columns."""
