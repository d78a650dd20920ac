"""Sentence embedding: a vector for each text, near those of texts that mean the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparse_xp.data.limits import Limits
from sparse_xp.data.table import Table
from sparse_xp.data.text_lines import read_text_lines
from sparse_xp.errors import UserError, check_one_of
from sparse_xp.files.text_format import TextFormat
from sparse_xp.synthetic.sentences import question_answering_rows, review_words, text_classification_rows
from sparse_xp.tasks.answers import Answer, EncodedRow, NamedText, Outputs, checked_text, encode_texts
from sparse_xp.tasks.base import NOT_IN_FEATURES, Rows, Task, teacher_column
from sparse_xp.tasks.columns import TEXT, ColumnType, check_roles
from sparse_xp.tasks.embedding_scores import agreement, pair_scores, retrieval_scores, unit_vectors
from sparse_xp.tasks.values import check_texts, normalize_numbers

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: the metrics of each kind of rows, the first is the default
METRICS = {
    "texts": ("teacher_cosine", "teacher_overlap_10"),
    "scored_pairs": ("spearman", "pearson", "teacher_overlap_10", "teacher_cosine"),
    "pairs": ("mrr_10", "recall_10", "ndcg_10", "teacher_overlap_10", "teacher_cosine"),
}
TEACHER = teacher_column("sentence_embedding")
OTHER_SIZE = (
    "embeddings have no cosine with those of a teacher that have another size. Write task.metric=teacher_overlap_10."
)


@dataclass(kw_only=True)
class SentenceEmbedding(Task):
    """Embed texts so that cosines tell how much alike they are.

    Rows are texts, which the teacher alone teaches; pairs with a score of how alike they are (``label``); or pairs that
    belong together, such as a question and the passage that answers it. For these, the passages of the other rows of a
    batch are wrong answers. A row may have a further wrong answer (``negative``).

    Attributes:
        metric: The score that picks the best checkpoint. Pairs with scores: ``spearman`` or ``pearson``, the
            correlation of cosines and scores. Pairs: ``mrr_10``, ``recall_10`` or ``ndcg_10`` of each ``text`` against
            the ``text_pair`` of all rows. Any rows: ``teacher_overlap_10``, the share of the ten texts that are nearest
            by the teacher and also by the model, or ``teacher_cosine``, the mean cosine with the teacher's embeddings.
            In a run without a teacher these two compare with the model that training starts from. Empty: the first
            that the rows allow; for texts alone ``teacher_cosine``, with ``dimensions`` ``teacher_overlap_10``.
        text: The column of the texts, or of the first texts of pairs.
        text_pair: The column of the second texts of pairs. None: single texts.
        negative: The column of texts that do not fit ``text``. None: there are none.
        label: The column of the scores of pairs, on any scale. None: pairs belong together.
        pooling: How the vectors of tokens become one: ``mean``, ``cls`` or ``max``. None: as the checkpoint says, else
            ``mean``.
        normalize_embeddings: Whether embeddings have length 1. None: as the checkpoint says, else true.
        dimensions: Keep the first so many numbers of an embedding. None: all.
        prompt: Stands before each ``text``, such as ``"query: "`` of the E5 models.
        prompt_pair: Stands before each ``text_pair`` and ``negative``, such as ``"passage: "``.
    """

    max_length: int = 128
    metric: str = field(default="", metadata=NOT_IN_FEATURES)
    text: str = "text"
    text_pair: str | None = None
    negative: str | None = None
    label: str | None = None
    pooling: str | None = field(default=None, metadata=NOT_IN_FEATURES)
    normalize_embeddings: bool | None = field(default=None, metadata=NOT_IN_FEATURES)
    dimensions: int | None = field(default=None, metadata=NOT_IN_FEATURES)
    prompt: str = ""
    prompt_pair: str = ""

    model_class: ClassVar[str] = "AutoModel"
    outputs: ClassVar[tuple[str, ...]] = ("sentence_embedding",)
    further_outputs: ClassVar[tuple[str, ...]] = ("last_hidden_state",)  # sentence-transformers pools it by itself
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    purpose: ClassVar[str] = "sentence embeddings"
    metric_units: ClassVar[str] = "correlations and cosines times 100"
    has_own_loss: ClassVar[bool] = True
    embeds: ClassVar[bool] = True
    compares_with_teacher: ClassVar[bool] = True
    default_teacher: ClassVar[str] = "self"
    list_name: ClassVar[str] = "embedding"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, needs in (("label", "text_pair"), ("negative", "text_pair")):
            if getattr(self, key) is not None and getattr(self, needs) is None:
                raise ValueError(f"task.{key}={getattr(self, key)} is for pairs of texts: add task.{needs}=COLUMN.")
        if self.label is not None and self.negative is not None:
            raise ValueError("task.label and task.negative: pairs have scores or wrong answers. Leave one of them out.")
        columns = {f"task.{key}": getattr(self, key) for key in ("text", "text_pair", "negative", "label")}
        check_roles(columns)
        cut = self.dimensions is not None  # the teacher's are not
        usual = "teacher_overlap_10" if cut and self.rows_are == "texts" else METRICS[self.rows_are][0]
        self.metric = self.metric or usual
        check_one_of("task.metric", self.metric, METRICS[self.rows_are])
        if cut and self.metric == "teacher_cosine":
            raise ValueError(f"task.metric=teacher_cosine: {OTHER_SIZE}")
        if self.pooling is not None:
            check_one_of("task.pooling", self.pooling, ("mean", "cls", "max"))
        if self.dimensions is not None and self.dimensions < 1:
            raise ValueError(f"task.dimensions={self.dimensions}: expected at least 1, or null for all.")
        if "+" in self.eval_split:
            raise ValueError(f"task.eval_split={self.eval_split}: embeddings are scored on one split. Name one.")

    @property
    def rows_are(self) -> str:
        """What a row is: ``texts``, ``scored_pairs`` or ``pairs``."""
        if self.text_pair is None:
            return "texts"
        return "pairs" if self.label is None else "scored_pairs"

    @property
    def text_columns(self) -> list[str]:
        """The columns of texts, in the order of the features of a row."""
        return [name for name in (self.text, self.text_pair, self.negative) if name is not None]

    @property
    def features_per_row(self) -> int:
        return len(self.text_columns)

    @property
    def problem_type(self) -> str:
        return "embedding"

    @property
    def needs_teacher(self) -> bool:
        return self.text_pair is None

    @property
    def head_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "pooling": self.pooling,
            "normalize": self.normalize_embeddings,
            "dimensions": self.dimensions,
            "max_length": self.max_length,
        }
        if self.prompt or self.prompt_pair:  # under the names of encode_query and encode_document
            options["prompts"] = {"query": self.prompt, "document": self.prompt_pair}
        # A text without a name has the prompt here, and so it has in sentence-transformers.
        return {name: value for name, value in options.items() if value is not None} | {
            "default_prompt": "query" if self.prompt else None
        }

    def for_teacher(self) -> Self:
        """Return the task as the teacher computes it: its embeddings are whole."""
        return replace(self, dimensions=None)

    # Rows

    def columns(self) -> list[str]:
        return [*self.text_columns, *([self.label] if self.label else [])]

    def column_types(self) -> list[tuple[str, ColumnType]]:
        return [(name, TEXT) for name in self.text_columns]

    def read(self, path: Path, cache: Path, limits: Limits, text_format: TextFormat) -> Table | Dataset:
        """Return the rows of a local file; those of a .txt file are its lines."""
        if path.suffix.lower() == ".txt" and self.rows_are == "texts":
            return read_text_lines(path, self.text, limits, text_format)
        return super().read(path, cache, limits, text_format)

    def normalize(
        self, rows: Table | Dataset, source: str, strict: bool, numbered: bool
    ) -> tuple[Table | Dataset, list[str]]:
        remarks = [
            remark
            for name in self.text_columns
            if name in rows.column_names
            for remark in check_texts(rows, name, source, strict)
        ]
        if self.label is not None and self.label in rows.column_names:
            rows = normalize_numbers(rows, self.label, source)
        return rows, remarks

    def holdout_groups(self, rows: Table | Dataset) -> tuple[list[Any], bool]:
        """Return a key for each row: an answer is on one side only."""
        return (list(rows[self.text_pair]), False) if self.text_pair else super().holdout_groups(rows)

    @classmethod
    def generated_words(cls) -> list[str]:
        return review_words()

    def generated_rows(self, split: str, rows: int) -> Rows:
        """Return invented reviews; pairs of them, alike as their ratings are; or questions with contexts."""
        if self.rows_are == "pairs":
            asked = question_answering_rows(split, rows)
            contexts = asked["context"]
            columns = [asked["question"], contexts, [*contexts[1:], *contexts[:1]]]
            return dict(zip(self.text_columns, columns, strict=False))
        reviews = text_classification_rows(split, 2 * rows)
        texts, ratings = reviews["sentence"], reviews["rating"]
        if self.text_pair is None:
            return {self.text: texts[:rows]}
        alike = [float(5 - abs(one - other)) for one, other in zip(ratings[:rows], ratings[rows:], strict=True)]
        return {self.text: texts[:rows], self.text_pair: texts[rows:], str(self.label): alike}

    # Features: one for each text

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        """Turn each text of the rows into a feature; those of a row follow each other.

        ``row`` and ``part`` say which text it is: 0 for ``text``, 1 for ``text_pair``, 2 for ``negative``. For an
        evaluation by retrieval, a document that several rows have is embedded once.
        """
        once = self.rows_are == "pairs" and not train
        seen: set[str] = set()
        texts, places = [], []
        for i in range(len(rows[self.text])):
            for part, column in enumerate(self.text_columns):
                text = rows[column][i]
                if not isinstance(text, str):
                    raise UserError(f"task {self.name}: row {first + i} has {column}={text!r}, expected a text.")
                if part and once and text in seen:
                    continue
                seen.update([text] if part else [])
                texts.append((self.prompt_pair if part else self.prompt) + text)
                places.append((i, part))
        encoded = tokenizer(texts, truncation=True, max_length=self.max_length)
        features: Rows = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        features |= {"row": [first + i for i, _ in places], "part": [part for _, part in places]}
        if self.label is not None:
            features["labels"] = [float(rows[self.label][i]) for i, _ in places]
        return features

    def input_features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> Rows:
        encoded = tokenizer(
            [self.prompt + text for text in rows[self.text]], truncation=True, max_length=self.max_length
        )
        return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}

    # Training

    @property
    def batch_columns(self) -> tuple[str, ...]:
        return () if self.label is None else self.targets

    def own_loss(self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Return CoSENT for pairs with scores, in-batch negatives for other pairs, and 0 for texts alone."""
        from sparse_xp.functional.embedding_losses import cosent_loss, equal_rows, ranking_loss

        vectors, parts = outputs[self.outputs[0]], self.features_per_row
        if self.rows_are == "texts":
            return 0.0 * vectors.sum()
        first, second = vectors[0::parts], vectors[1::parts]
        if self.rows_are == "scored_pairs":
            return cosent_loss(first, second, batch["labels"][0::parts])
        tokens = [batch["input_ids"][part::parts] for part in range(1, parts)]
        documents = [vectors[part::parts] for part in range(1, parts)]
        return ranking_loss(first, _joined(documents), equal_rows(tokens[0], _joined(tokens)))

    def curvature_loss(self, model: Callable[..., Any], batch: dict[str, Tensor]) -> Tensor:
        """Return a random projection of the embeddings.

        The gradients of such projections have the Fisher matrix of the embeddings as their mean square. They say what
        the embeddings depend on, also where the loss of training is at its minimum.
        """
        import torch

        vectors: Tensor = self.forward(model, batch)[self.outputs[0]]
        generator = torch.Generator().manual_seed(int(batch["input_ids"].sum()))
        signs = torch.randint(0, 2, vectors.shape, generator=generator).to(vectors) * 2 - 1
        return (vectors * signs).sum(-1).mean()

    def loss_counts(self, batch: dict[str, Tensor]) -> tuple[int, ...]:
        return (len(batch["input_ids"]) // self.features_per_row,)

    # Scores

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        import numpy as np

        vectors = unit_vectors(np.stack(outputs[self.outputs[0]]))
        part = np.asarray(features["part"])
        metrics: dict[str, float] = {}
        if self.rows_are == "scored_pairs":
            scores = list(features["labels"])[::2]
            metrics |= pair_scores(vectors[part == 0], vectors[part == 1], scores)
        ask, find = part == 0, part > 0
        if self.rows_are == "pairs":
            columns, row = [list(rows[name]) for name in self.text_columns], np.asarray(features["row"])
            wanted = [columns[1][i] for i in row[ask]]
            there = [columns[of][i] for of, i in zip(part[find], row[find], strict=True)]
            metrics |= retrieval_scores(vectors[ask], vectors[find], wanted, there)
        if TEACHER in features.column_names:
            theirs = unit_vectors(np.asarray(features.with_format("numpy")[TEACHER][:]))
            metrics |= agreement(vectors, theirs, (ask, find) if self.rows_are == "pairs" else None)
        if self.metric == "teacher_cosine" and TEACHER in features.column_names and self.metric not in metrics:
            raise UserError(f"task.metric=teacher_cosine: {OTHER_SIZE}")
        return metrics

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        if metric in ("spearman", "pearson", "teacher_cosine"):
            return None
        return 10 * len(features) if metric == "teacher_overlap_10" else len(rows)

    # Answers

    def text_names(self) -> list[tuple[str, ...]]:
        return [tuple(dict.fromkeys((self.text, "text", "query", "document", *self.text_columns)))]

    def example(self) -> dict[str, str]:
        return {"text": "How do I reset my password?"}

    def encode_row(self, texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
        """Return the tokens of a text. ``prompt`` stands before it, ``prompt_pair`` before a ``document``."""
        [(name, value)] = texts
        is_document = name == "document" or name in self.text_columns[1:]
        text = (self.prompt_pair if is_document else self.prompt) + checked_text(name, value)
        return encode_texts([NamedText(name, text)], tokenizer, max_length)

    def accepts_logits(self, name: str, shape: tuple[int, ...], tokens: int) -> bool:
        return len(shape) == 1 and shape[0] > 0

    def decode(self, row: EncodedRow, outputs: Outputs, tokenizer: Tokenizer, top: int | None) -> Answer:
        """Return the embedding of the text, [size]."""
        [vector] = outputs[self.outputs[0]]
        return vector


def _joined(parts: list[Tensor]) -> Tensor:
    """Return tensors of one width below each other."""
    import torch

    return torch.cat(parts)
