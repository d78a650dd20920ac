"""Text classification: one sentence or a pair; one class of several, any number of labels, or a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.tasks.base import Rows, Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

#: what can be measured for each problem, the first of which is the default
METRICS = {
    "single_label": ("accuracy", "f1", "f1_macro"),
    "multi_label": ("f1_micro", "f1_macro", "accuracy"),
    "regression": ("pearson", "spearman"),
}
#: transformers' names for them
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(kw_only=True)
class TextClassification(Task):
    """Say of ``text`` (with ``text_pair`` if there is one) what ``label`` says.

    ``problem``: ``single_label``, one of ``classes``, by its number or name; ``multi_label``, a list of them;
    ``regression``, a number. ``classes``: in the order of the label numbers; empty: as the data name them.
    ``metric``: the one that counts (empty: accuracy, f1_micro or pearson, by the problem), ``metrics``: all that are
    reported (empty: that one). ``accuracy`` is of whole rows; ``f1`` of the second of two classes, as GLUE has it;
    ``f1_macro``, ``f1_micro`` over all classes; ``pearson``, ``spearman``: correlations. With several evaluation splits
    (``eval_split: a+b``) the metrics of the first keep their names, those of another end in its name.
    """

    max_length: int = 128
    problem: str = "single_label"
    metric: str = ""
    metrics: list[str] = field(default_factory=list)
    text: str = "sentence"
    text_pair: str | None = None
    label: str = "label"
    classes: list[str] = field(default_factory=list)

    model_class: ClassVar[str] = "AutoModelForSequenceClassification"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.problem not in METRICS:
            raise ValueError(
                f"task.problem={self.problem}: want one of {', '.join(METRICS)}.{did_you_mean(self.problem, METRICS)}"
            )
        known = METRICS[self.problem]
        self.metric = self.metric or known[0]
        for name in (self.metric, *self.metrics):
            if name not in known:
                raise ValueError(
                    f"task.metric={name!r}: want one of {', '.join(known)} for task.problem={self.problem}."
                    f"{did_you_mean(name, known)}"
                )
        if self.metric not in self.metrics:
            self.metrics = [self.metric, *self.metrics]
        if self.problem == "regression" and self.classes:
            raise ValueError("task.classes: a task of regression has none.")
        if twice := {name for name in self.classes if self.classes.count(name) > 1}:
            raise ValueError(f"task.classes: {min(twice)} is named twice.")
        if len(self.classes) == 1:
            raise ValueError("task.classes: name at least two classes, in the order of the label numbers, or none.")
        if "f1" in self.metrics and len(self.classes) > 2:
            raise ValueError(f"task.metric=f1 is for two classes, and there are {len(self.classes)}: take f1_macro.")

    @property
    def label_names(self) -> list[str] | None:
        return list(self.classes) or None

    @property
    def logits_are(self) -> str:
        return {"single_label": "classes", "multi_label": "labels", "regression": "values"}[self.problem]

    @property
    def model_options(self) -> dict[str, Any]:
        # Without it transformers guesses from the dtype of the labels.
        options: dict[str, Any] = {"problem_type": PROBLEM_TYPES[self.problem]}
        return {**options, "num_labels": 1} if self.problem == "regression" else options

    def columns(self) -> list[str]:
        return [self.text, *([self.text_pair] if self.text_pair else []), self.label]

    def groups(self, rows: Dataset) -> tuple[list[Any], bool]:
        if self.problem == "single_label":
            return list(rows[self.label]), True
        return super().groups(rows)

    def resolved(self, rows: Dataset) -> Self:
        """The task with its classes: its own, else the names that come with the data, else the labels in the rows.

        Raises UserError if the data name other classes, or in another order, than the task.
        """
        if self.problem == "regression":
            return self
        named = class_names(rows, self.label)
        if self.classes:
            if named and named != self.classes:
                raise UserError(
                    f"task {self.name}: task.classes is {self.classes}, but column {self.label} of the data has "
                    f"{named}. Write them as the data have them, in their order, or leave task.classes out."
                )
            return self
        try:
            return replace(self, classes=named or self.found_classes(rows))
        except ValueError as error:  # a metric that does not fit so many
            raise UserError(f"task {self.name}: {error}") from error

    def found_classes(self, rows: Dataset) -> list[str]:
        """The distinct labels of the rows, in the order of the alphabet or of the numbers. Raises UserError for one."""
        column = rows[self.label]
        labels = {one for row in column for one in row or []} if self.problem == "multi_label" else set(column)
        where = f"task {self.name}: column {self.label} of the data"
        if other := [label for label in labels if not isinstance(label, (str, int))]:
            raise UserError(f"{where} has {other[0]!r}, which is neither a whole number nor the name of a class.")
        found = [str(label) for label in sorted(labels)]
        if len(found) < 2:
            raise UserError(f"{where} has {found[0] if found else 'no label'} only: there is nothing to tell apart.")
        return found

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        labels = [self.target(label, first + i) for i, label in enumerate(rows[self.label])]
        names = [self.text, self.text_pair] if self.text_pair else [self.text]
        for name in names:
            for i, text in enumerate(rows[name]):
                if not isinstance(text, str):
                    raise UserError(f"task {self.name}: row {first + i} has {name}={text!r}, want a text.")
        encoded = tokenizer(*(rows[name] for name in names), truncation=True, max_length=self.max_length)
        features: Rows = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        return {**features, "labels": labels}

    def target(self, label: Any, row: int) -> Any:
        """What the model's loss wants: a class number; one 0.0 or 1.0 per class; a float. Raises UserError."""
        if self.problem == "regression":
            if isinstance(label, bool) or not isinstance(label, (int, float)) or label != label:
                raise UserError(f"task {self.name}: row {row} has {self.label}={label!r}, want a number.")
            return float(label)
        if self.problem == "single_label":
            return self.number(label, row)
        if not isinstance(label, list):
            raise UserError(f"task {self.name}: row {row} has {self.label}={label!r}, want a list of labels.")
        numbers = {self.number(one, row) for one in label}
        return [float(number in numbers) for number in range(len(self.classes))]

    def number(self, label: Any, row: int) -> int:
        """The place of ``label`` in ``classes``, of which it is the name or the number. Raises UserError for another.

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
        golds, logits = list(features["labels"]), outputs["logits"]
        splits = list(rows["split"]) if "split" in rows.column_names else [None] * len(golds)
        scores: dict[str, float] = {}
        for number, split in enumerate(dict.fromkeys(splits)):
            here = [i for i, name in enumerate(splits) if name == split]
            ending = f"_{str(split).removeprefix('validation_')}" if number else ""
            found = self.score_split([logits[i] for i in here], [golds[i] for i in here])
            scores |= {f"{name}{ending}": value for name, value in found.items()}
        return scores

    def score_split(self, logits: list[np.ndarray], golds: list[Any]) -> dict[str, float]:
        """The metrics of one split: logits [classes] and targets by row."""
        from sparse_xp.metrics import scores

        if self.problem == "regression":
            values = [float(value[0]) for value in logits]
            return {name: getattr(scores, name)(values, golds)[name] for name in self.metrics}
        if self.problem == "multi_label":
            said = [[int(logit > 0) for logit in row] for row in logits]
            whole = scores.label_set_scores(said, [[int(one) for one in gold] for gold in golds])
            return {name: whole[name] for name in self.metrics}
        classes = [int(row.argmax()) for row in logits]
        found = scores.accuracy(classes, golds)
        if {"f1", "f1_macro"} & set(self.metrics):
            found |= scores.class_f1(classes, golds, len(self.classes))
        return {name: found[name] for name in self.metrics}

    def counted(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        if self.problem == "regression":
            return None  # a correlation
        golds = list(features["labels"])
        if "split" in rows.column_names:
            splits = list(rows["split"])
            first, *others = dict.fromkeys(splits)
            here = next((name for name in others if metric.endswith(f"_{name.removeprefix('validation_')}")), first)
            golds = [gold for gold, split in zip(golds, splits, strict=True) if split == here]
        if self.problem == "multi_label" or not metric.startswith("f1"):
            return len(golds)
        # F1 of class 1 is a share of its rows, and their mean over classes moves most with the rarest.
        counts = [golds.count(number) for number in range(len(self.classes))]
        return len(counts) * min(filter(None, counts)) if metric.startswith("f1_macro") else counts[1]

    def embedded(self, split: str, rows: int) -> Rows:
        """Generated rows: reviews, or pairs of which the second sentence follows from the first or not.

        A review has one of six ratings, from blame with emphasis to praise with emphasis: a number for regression, and
        divided evenly among the classes. With several labels the first says that it blames, the second that it praises,
        the third that it does so with emphasis. Pairs have the three relations of MNLI where the task
        names three classes, else two: the second follows (class 1) or does not.
        """
        from sparse_xp.synthetic.pairs import pair_rows
        from sparse_xp.synthetic.sentences import text_classification_rows

        if self.text_pair is None:
            made = text_classification_rows(split, rows)
            told = zip(made["label"], made["rating"], strict=True)
            return {self.text: made["sentence"], self.label: [self.told(*review) for review in told]}
        made = pair_rows(split, rows, 3 if len(self.classes) == 3 else 2)
        as_asked: dict[str, Callable[[int], Any]] = {
            "single_label": int,
            "multi_label": lambda label: [label],
            "regression": float,
        }
        return {
            self.text: made["first"],
            self.text_pair: made["second"],
            self.label: [as_asked[self.problem](label) for label in made["label"]],
        }

    def told(self, label: int, rating: int) -> Any:
        """What this problem has to say about a generated review."""
        if self.problem == "regression":
            return float(rating)
        if self.problem == "single_label":
            return label if len(self.classes) <= 2 else rating * len(self.classes) // 6
        holds = (not label, bool(label), rating in (0, 5))
        return [number for number, true in enumerate(holds[: len(self.classes) or 3]) if true]


def class_names(rows: Dataset, column: str) -> list[str] | None:
    """The names that a ClassLabel column, or one of lists of ClassLabel, comes with; None for another column."""
    from datasets import ClassLabel

    feature = rows.features[column]
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, ClassLabel) else None
