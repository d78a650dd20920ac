"""Text classification: one sentence or a pair; one class of several, any number of labels, or a number.

A pair of a query and a document, with a number or two classes for how well they fit, makes a reranker: its metrics are
those of ``query_groups``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparse_xp.data.table import Table
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.metrics import scores
from sparse_xp.synthetic.pairs import pair_rows, pair_words, query_rows
from sparse_xp.synthetic.sentences import review_words, text_classification_rows
from sparse_xp.tasks.answers import Answer, EncodedRow, NamedText, Outputs, encode_texts, probability, softmax
from sparse_xp.tasks.base import FOR_TRAINING, NOT_IN_FEATURES, Rows, Task
from sparse_xp.tasks.columns import ONE_CLASS, TEXT, TEXT_OR_INTEGER, ColumnType, check_roles
from sparse_xp.tasks.labels import check_class_names, class_names, normalize_labels, sort_classes, spelled
from sparse_xp.tasks.query_groups import (
    RANKING_METRICS,
    check_relevant,
    check_several_documents,
    score_queries,
    scored_queries,
)
from sparse_xp.tasks.values import check_header, check_range, check_texts, normalize_numbers

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

#: a metric in per cent of predictions and targets, one of each per row, and of the number of classes
Metric = Callable[[list[Any], list[Any], int], float]

#: the metrics of each problem, the first is the default; to add one, write a function in metrics/scores.py and a line
METRICS: dict[str, dict[str, Metric]] = {
    "single_label": {
        "accuracy": lambda predictions, targets, _: scores.accuracy(predictions, targets)["accuracy"],
        "f1": lambda predictions, targets, classes: scores.class_f1(predictions, targets, classes)["f1"],
        "f1_macro": lambda predictions, targets, classes: scores.class_f1(predictions, targets, classes)["f1_macro"],
    },
    "multi_label": {
        "f1_micro": lambda predictions, targets, _: scores.label_set_scores(predictions, targets)["f1_micro"],
        "f1_macro": lambda predictions, targets, _: scores.label_set_scores(predictions, targets)["f1_macro"],
        "accuracy": lambda predictions, targets, _: scores.label_set_scores(predictions, targets)["accuracy"],
    },
    "regression": {
        "pearson": lambda predictions, targets, _: scores.pearson(predictions, targets)["pearson"],
        "spearman": lambda predictions, targets, _: scores.spearman(predictions, targets)["spearman"],
    },
}
#: a class number, a 0.0 or 1.0 for each class, a number, or the numbers of the labels that hold
Target = int | float | list[float] | list[int]

#: transformers' names of the problems
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
#: the losses of a number; the empty one is chosen by the labels
LOSSES = ("", "mse", "bce")


@dataclass(kw_only=True)
class TextClassification(Task):
    """Predict a label from a text or from a pair of texts.

    Attributes:
        problem: ``single_label`` (one of ``classes``), ``multi_label`` (a list of them) or ``regression`` (a number).
        metric: The score that picks the best checkpoint. Empty: accuracy, f1_micro or pearson, by the problem.
        metrics: All scores that are reported. Empty: ``metric`` alone. ``accuracy`` is the share of rows with exactly
            the right labels; ``f1`` that of the second of two classes, as in GLUE; ``f1_macro``, ``f1_micro`` average
            over all classes; ``pearson``, ``spearman``: correlations. With several evaluation splits
            (``eval_split: a+b``) the metrics of the first keep their names, those of another end in its name.
            Of pairs of a query and a document also ``ndcg_10``, ``mrr_10``, ``map`` and ``recall_10``: how the
            documents of each query are ranked by the number (``regression``), or by the probability of the last of two
            classes. The label is the gain of the document: 0, or more for one that answers the query. Queries without
            such a document do not count. The rows of a query are held out together.
        text: The column of the texts.
        text_pair: The column of the second text of a pair. None: single texts.
        group: The column that has the same value in the rows of one query, for these metrics. None: ``text``.
        label: The column of the labels: a class by its number or name, a list of them, or a number, by the problem.
        classes: The names of the classes in the order of the label numbers. Empty: as the data name them, in their
            order if they have one, else by value if all are numbers, else in alphabetical order.
        loss: How a number is learned. ``mse``: by its squared error. ``bce``: by the binary cross entropy of its
            sigmoid, which is then the answer; labels are from 0 to 1. So cross-encoders with one output are trained.
            Empty: ``bce`` if a metric of rankings is asked for and all labels are from 0 to 1, else ``mse``.
    """

    max_length: int = 128
    problem: str = "single_label"
    metric: str = field(default="", metadata=NOT_IN_FEATURES)
    metrics: list[str] = field(default_factory=list, metadata=NOT_IN_FEATURES)
    text: str = "sentence"
    text_pair: str | None = None
    group: str | None = field(default=None, metadata=FOR_TRAINING)
    label: str = "label"
    classes: list[str] = field(default_factory=list)
    loss: str = ""

    model_class: ClassVar[str] = "AutoModelForSequenceClassification"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    purpose: ClassVar[str] = "text classification"
    ranks_answers: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.problem not in METRICS:
            raise ValueError(
                f"task.problem={self.problem}: expected one of {', '.join(METRICS)}."
                f"{did_you_mean(self.problem, METRICS)}"
            )
        known = list(METRICS[self.problem])
        self.metric = self.metric or known[0]
        rankings = [name for name in (self.metric, *self.metrics) if name in RANKING_METRICS]
        if rankings and self.problem != "multi_label":
            if self.text_pair is None:
                raise ValueError(
                    f"task.metric={rankings[0]}: a ranking is of the documents of a query. Name their column with "
                    "task.text_pair, that of the query with task.text."
                )
            known += RANKING_METRICS
        for name in (self.metric, *self.metrics):
            if name not in known:
                raise ValueError(
                    f"task.metric={name!r}: expected one of {', '.join(known)} for task.problem={self.problem}."
                    f"{did_you_mean(name, known)}"
                )
        if self.metric not in self.metrics:
            self.metrics = [self.metric, *self.metrics]
        if self.problem == "regression" and self.classes:
            raise ValueError("task.classes: a task of regression has none.")
        check_roles({"task.text": self.text, "task.text_pair": self.text_pair, "task.label": self.label})
        if twice := {name for name in self.classes if self.classes.count(name) > 1}:
            raise ValueError(f"task.classes: {min(twice)} is named twice.")
        if len(self.classes) == 1:
            raise ValueError("task.classes: name at least two classes, in the order of the label numbers, or none.")
        if "f1" in self.metrics and len(self.classes) > 2:
            raise ValueError(f"task.metric=f1 is for two classes, and there are {len(self.classes)}: take f1_macro.")
        if self.ranks_documents and len(self.classes) > 2:
            raise ValueError(
                f"task.metric={rankings[0]}: a ranking is by the probability of the last of two classes, and there are "
                f"{len(self.classes)}. For labels that are grades, write task.problem=regression."
            )
        if self.group is not None and not self.ranks_documents:
            raise ValueError(
                f"task.group={self.group} is for the metrics of rankings: add one of {', '.join(RANKING_METRICS)} with "
                "task.metric= or task.metrics=[...]."
            )
        check_roles({"task.group": self.group, "task.label": self.label})
        if self.loss not in LOSSES:
            expected = f"expected one of {', '.join(filter(None, LOSSES))}, or none."
            raise ValueError(f"task.loss={self.loss}: {expected}{did_you_mean(self.loss, LOSSES)}")
        if self.loss and self.problem != "regression":
            raise ValueError(f"task.loss={self.loss} is for task.problem=regression: a class has its own loss.")

    @property
    def label_names(self) -> list[str] | None:
        return list(self.classes) or None

    @property
    def ranks_documents(self) -> bool:
        """Whether a metric of rankings is asked for."""
        return not set(RANKING_METRICS).isdisjoint(self.metrics)

    @property
    def query_column(self) -> str | None:
        return (self.group or self.text) if self.ranks_documents else None

    @property
    def problem_type(self) -> str:
        # transformers' name of the binary cross entropy, of as many labels as there are
        return PROBLEM_TYPES["multi_label" if self.loss == "bce" else self.problem]

    @property
    def model_options(self) -> dict[str, Any]:
        # Without a problem_type transformers guesses it from the dtype of the labels.
        options: dict[str, Any] = {"problem_type": self.problem_type}
        return {**options, "num_labels": 1} if self.problem == "regression" else options

    @property
    def config_entries(self) -> dict[str, Any]:
        """The function that ``CrossEncoder`` of sentence-transformers applies to a single output."""
        if self.text_pair is None or self.problem != "regression":
            return {}
        function = "activation.Sigmoid" if self.loss == "bce" else "linear.Identity"
        return {"sentence_transformers": {"activation_fn": f"torch.nn.modules.{function}"}}

    def with_labels_from(self, rows: Table | Dataset) -> Self:
        """Return the task with classes: its own, else the names that come with the data, else the distinct labels.

        A number that ranks documents gets its loss.
        """
        if self.problem == "regression" and self.ranks_documents and not self.loss:
            return replace(self, loss="bce" if all(0 <= label <= 1 for label in rows[self.label]) else "mse")
        if self.problem == "regression" or self.classes:
            return self
        return self.with_classes(class_names(rows, self.label) or self.distinct_labels(rows))

    def with_classes(self, names: list[str]) -> Self:
        if self.problem == "regression" or self.classes:
            return self
        try:
            return replace(self, classes=names)
        except ValueError as error:  # a metric that does not fit so many
            raise UserError(f"task {self.name}: {error}") from error

    def check_labels(self, rows: Table | Dataset) -> None:
        if self.problem != "regression":
            check_class_names(self.name, self.classes, rows, self.label)

    def distinct_labels(self, rows: Table | Dataset) -> list[str]:
        """Return the distinct labels of the rows, by value if all are numbers, else in alphabetical order.

        Raises UserError for only one.
        """
        column = rows[self.label]
        labels = {label for row in column for label in row or []} if self.problem == "multi_label" else set(column)
        where = f"task {self.name}: column {self.label} of the data"
        if odd := [label for label in labels if not isinstance(label, (str, int))]:
            raise UserError(f"{where} has {odd[0]!r}, which is neither a whole number nor the name of a class.")
        names = sort_classes({str(spelled(label)) for label in labels})
        if len(names) < 2:
            raise UserError(f"{where} has {names[0] if names else 'no label'} only: there is nothing to tell apart.")
        return names

    def columns(self) -> list[str]:
        names = [self.text, self.text_pair, self.group, self.label]
        return [name for name in dict.fromkeys(names) if name is not None]

    def column_types(self) -> list[tuple[str, ColumnType]]:
        texts = [(self.text, TEXT), *([(self.text_pair, TEXT)] if self.text_pair else [])]
        groups = [(self.group, TEXT_OR_INTEGER)] if self.group else []
        return [*texts, *groups, *([(self.label, ONE_CLASS)] if self.problem == "single_label" else [])]

    def normalize(
        self, rows: Table | Dataset, source: str, strict: bool, numbered: bool
    ) -> tuple[Table | Dataset, list[str]]:
        remarks = []
        check_header(rows, self.columns(), source)
        for name in filter(None, dict.fromkeys((self.text, self.text_pair, self.group))):
            if name in rows.column_names:
                remarks += check_texts(rows, name, source, strict)
        if self.label not in rows.column_names:
            return rows, remarks
        if self.problem == "regression":
            rows = normalize_numbers(rows, self.label, source)
            if self.ranks_documents:
                check_range(rows, self.label, source, 0, None, "a metric of rankings takes it for a gain")
            if self.loss == "bce":
                check_range(
                    rows,
                    self.label,
                    source,
                    0,
                    1,
                    "task.loss=bce takes it for a probability; for grades, write task.loss=mse",
                )
            return rows, remarks
        several = self.problem == "multi_label"
        rows, spellings = normalize_labels(rows, self.label, source, self.classes, numbered, several)
        return rows, remarks + spellings

    def holdout_groups(self, rows: Table | Dataset) -> tuple[list[Any], bool]:
        if self.query_column:
            return list(rows[self.query_column]), False
        if self.problem == "single_label":
            return list(rows[self.label]), True
        return super().holdout_groups(rows)

    def clean(self, rows: Table | Dataset, train: bool) -> tuple[Table | Dataset, list[str]]:
        """Return all rows, and a warning about queries with one document among those to evaluate on."""
        if not self.query_column or train:
            return super().clean(rows, train)
        return rows, check_several_documents(list(rows[self.query_column]), f"task {self.name}: the evaluation data")

    def warnings(self, features: Dataset, train: bool) -> list[str]:
        if self.ranks_documents and not train:
            check_relevant(self.gains(features["labels"]), f"task {self.name}: the evaluation data")
        return super().warnings(features, train)

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        labels = [self.target(label, first + i) for i, label in enumerate(rows[self.label])]
        return {**self.input_features(rows, tokenizer, first), "labels": labels}

    def input_features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> Rows:
        names = [self.text, self.text_pair] if self.text_pair else [self.text]
        for name in names:
            for i, text in enumerate(rows[name]):
                if not isinstance(text, str):
                    raise UserError(f"task {self.name}: row {first + i} has {name}={text!r}, expected a text.")
        encoded = tokenizer(*(rows[name] for name in names), truncation=True, max_length=self.max_length)
        return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}

    def target(self, label: object, row: int) -> Target:
        """Return the target of a row as the loss takes it: a class number, a 0.0 or 1.0 per class, or a float.

        Raises UserError for a label that is invalid for this problem.
        """
        if self.problem == "regression":
            if isinstance(label, bool) or not isinstance(label, (int, float)) or label != label:
                raise UserError(f"task {self.name}: row {row} has {self.label}={label!r}, expected a number.")
            return [float(label)] if self.loss == "bce" else float(label)
        if self.problem == "single_label":
            return self.class_number(label, row)
        if not isinstance(label, list):
            raise UserError(f"task {self.name}: row {row} has {self.label}={label!r}, expected a list of labels.")
        numbers = {self.class_number(name, row) for name in label}
        return [float(number in numbers) for number in range(len(self.classes))]

    def class_number(self, label: object, row: int) -> int:
        """Return the index in ``classes`` of a label, given by its name or number. Raises UserError for an unknown one.

        A number that is itself a name (stars from 1 to 5) is taken for the name.
        """
        if isinstance(label, (str, int)) and str(label) in self.classes:
            return self.classes.index(str(label))
        if isinstance(label, int) and label in range(len(self.classes)) and not all(map(str.isdecimal, self.classes)):
            return int(label)
        near = did_you_mean(label, self.classes) if isinstance(label, str) else ""
        raise UserError(
            f"task {self.name}: row {row} has {self.label}={label}, but task.classes names {len(self.classes)}: "
            f"{', '.join(self.classes)}.{near}"
        )

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        targets, logits = list(features["labels"]), outputs["logits"]
        splits = list(rows["split"]) if "split" in rows.column_names else [None] * len(targets)
        keys = self.query_keys(rows)
        metrics: dict[str, float] = {}
        for number, split in enumerate(dict.fromkeys(splits)):
            here = [i for i, name in enumerate(splits) if name == split]
            ending = f"_{str(split).removeprefix('validation_')}" if number else ""
            of_split = self.score_split(*([values[i] for i in here] for values in (logits, targets, keys)))
            metrics |= {f"{name}{ending}": value for name, value in of_split.items()}
        return metrics

    def score_split(self, logits: list[np.ndarray], targets: list[Any], keys: list[Any]) -> dict[str, float]:
        """Return the metrics of one split: logits [classes] and targets by row; ``keys``: what names their queries."""
        predictions = [self.prediction(row) for row in logits]
        rankings: dict[str, float] = {}
        if self.ranks_documents:
            gains = self.gains(targets)
            check_relevant(gains, f"task {self.name}")
            rankings = score_queries(keys, [self.number(row) for row in logits], gains)
        if self.problem == "multi_label":
            targets = [[int(holds) for holds in target] for target in targets]
        elif self.problem == "regression":
            targets = self.gains(targets)
        known = METRICS[self.problem]
        return {
            name: rankings[name] if name in rankings else known[name](predictions, targets, len(self.classes))
            for name in self.metrics
        }

    def query_keys(self, rows: Dataset) -> list[Any]:
        """Return what names the query of each row; None of each where queries do not count."""
        return list(rows[self.query_column]) if self.query_column else [None] * len(rows)

    def gains(self, targets: Sequence[Any]) -> list[float]:
        """Return the targets of a number, or of one of two classes, as numbers."""
        return [float(target[0] if self.loss == "bce" else target) for target in targets]

    def number(self, logits: np.ndarray) -> float:
        """Return the number that the logits [classes] of a row stand for, or the probability of the last class."""
        if self.problem == "single_label":
            return probability(float(logits[-1]) - float(logits[0]))
        return probability(logits[0]) if self.loss == "bce" else float(logits[0])

    def prediction(self, logits: np.ndarray) -> Target:
        """Return what the logits [classes] of a row predict: a class number, a 0 or 1 per class, or a float."""
        if self.problem == "regression":
            return self.number(logits)
        return [int(logit > 0) for logit in logits] if self.problem == "multi_label" else int(logits.argmax())

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        ranking = self.ranks_documents and metric.startswith(RANKING_METRICS)
        if self.problem == "regression" and not ranking:
            return None  # a correlation
        targets = list(features["labels"])
        keys = self.query_keys(rows)
        if "split" in rows.column_names:
            splits = list(rows["split"])
            first, *others = dict.fromkeys(splits)
            here = next((name for name in others if metric.endswith(f"_{name.removeprefix('validation_')}")), first)
            targets = [target for target, split in zip(targets, splits, strict=True) if split == here]
            keys = [key for key, split in zip(keys, splits, strict=True) if split == here]
        if ranking:
            return scored_queries(keys, self.gains(targets))
        if self.problem == "multi_label" or not metric.startswith("f1"):
            return len(targets)
        # F1 of class 1 is a share of its rows, and the mean over classes moves most with the rarest.
        counts = [targets.count(number) for number in range(len(self.classes))]
        return len(counts) * min(filter(None, counts)) if metric.startswith("f1_macro") else counts[1]

    def text_names(self) -> list[tuple[str, ...]]:
        return [(self.text, "text"), *([(self.text_pair, "second")] if self.text_pair else [])]

    def example(self) -> dict[str, str]:
        return {"text": "What a film.", **({"second": "It was good."} if self.text_pair else {})}

    def answer_names(self, top: int | None) -> list[str]:
        if self.problem == "regression":
            return ["value"]
        return [self.list_name] if top or self.problem == "multi_label" else ["label", "score"]

    def encode_row(self, texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
        return encode_texts(texts, tokenizer, max_length)

    def accepts_logits(self, name: str, shape: tuple[int, ...], tokens: int) -> bool:
        return shape == (len(self.classes) or 1,)

    def decode(self, row: EncodedRow, outputs: Outputs, tokenizer: Tokenizer, top: int | None) -> Answer:
        """Return the best label with its score, the ``top`` best, the labels that hold of several, or the number."""
        import numpy as np

        [logits] = outputs["logits"]
        if self.problem == "regression":
            return {"value": self.number(logits)}
        multi_label = self.problem == "multi_label"
        probabilities = 1 / (1 + np.exp(-logits)) if multi_label else softmax(logits)
        order = np.argsort(-probabilities, kind="stable")
        ranked = [{"label": self.classes[i], "score": float(probabilities[i])} for i in order]
        if top:
            return ranked[:top]
        if multi_label:
            return [label for label, i in zip(ranked, order, strict=True) if logits[i] > 0]
        return ranked[0]

    def check_reranks(self) -> None:
        if self.text_pair is None or self.problem == "multi_label" or len(self.classes) > 2:
            super().check_reranks()

    def relevance(self, outputs: Outputs) -> float:
        [logits] = outputs["logits"]
        return self.number(logits)

    @classmethod
    def generated_words(cls) -> list[str]:
        return review_words() + pair_words()

    def generated_rows(self, split: str, rows: int) -> Rows:
        """Return invented reviews, or pairs of which the second sentence follows from the first or not.

        A review has one of six ratings, from emphatic blame to emphatic praise: a number for regression, and divided
        evenly among the classes. With several labels the first marks blame, the second praise, the third emphasis.
        Pairs have the three relations of MNLI if the task has three classes, else two: the second follows (class 1) or
        does not. For rankings a sentence has several second ones, of which one or two follow.
        """
        if self.text_pair is None:
            reviews = text_classification_rows(split, rows)
            labels = [self.review_label(*review) for review in zip(reviews["label"], reviews["rating"], strict=True)]
            return {self.text: reviews["sentence"], self.label: labels}
        classes = 3 if len(self.classes) == 3 else 2
        pairs = query_rows(split, rows) if self.ranks_documents else pair_rows(split, rows, classes)
        as_target: dict[str, Callable[[int], Any]] = {
            "single_label": int,
            "multi_label": lambda label: [label],
            "regression": float,
        }
        labels = [as_target[self.problem](label) for label in pairs["label"]]
        columns = {self.text: pairs["first"], self.text_pair: pairs["second"]}
        groups = {self.group: pairs["query"]} if self.group and self.group not in columns else {}
        return {**columns, **groups, self.label: labels}

    def review_label(self, label: int, rating: int) -> Target:
        """Return the label of an invented review in this problem: ``label`` is 0 or 1, ``rating`` is 0 to 5."""
        if self.problem == "regression":
            return float(rating)
        if self.problem == "single_label":
            return label if len(self.classes) <= 2 else rating * len(self.classes) // 6
        holds = (not label, bool(label), rating in (0, 5))
        return [number for number, true in enumerate(holds[: len(self.classes) or 3]) if true]
