"""Text classification: one sentence or a pair; one class of several, any number of labels, or a number."""

from __future__ import annotations

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
    reported (empty: that one). ``accuracy`` is of
    whole rows; ``f1`` of the second of two classes, as GLUE has it; ``f1_macro``, ``f1_micro`` over all classes;
    ``pearson``, ``spearman``: correlations. With several evaluation splits (``eval_split: a+b``) the metrics of the
    first keep their names, those of another end in its name.
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
        """The task with its classes: its own, else the names that come with the data, else the labels in the rows."""
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
        return replace(self, classes=named or self.found_classes(rows))

    def found_classes(self, rows: Dataset) -> list[str]:
        """The distinct labels of the rows: names in the order of the alphabet, or numbers from 0 on."""
        column = rows[self.label]
        labels = {one for row in column for one in row} if self.problem == "multi_label" else set(column)
        where = f"task {self.name}: column {self.label} of the data"
        if all(isinstance(label, str) for label in labels):
            found = sorted(labels)
        elif all(isinstance(label, int) for label in labels):
            if missing := sorted(set(range(max(labels) + 1)) - labels):
                raise UserError(f"{where} has the labels {sorted(labels)}, but not {missing[0]}: name task.classes.")
            found = [str(label) for label in range(max(labels) + 1)]
        else:
            other = next(label for label in labels if not isinstance(label, (str, int)))
            raise UserError(f"{where} has {other!r}, which is neither a number nor a name of a class.")
        if len(found) < 2:
            raise UserError(f"{where} has one label only, {', '.join(found)}: there is nothing to tell apart.")
        return found

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        labels = [self.target(label, first + i) for i, label in enumerate(rows[self.label])]
        pairs = (rows[self.text_pair],) if self.text_pair else ()
        encoded = tokenizer(rows[self.text], *pairs, truncation=True, max_length=self.max_length)
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
        """The place of ``label``, a number or a name, in ``classes``. Raises UserError for another."""
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        if isinstance(label, int) and label in range(len(self.classes)):
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

    def embedded(self, split: str, rows: int) -> Rows:
        """Generated rows: reviews, or pairs of which the second follows from the first or not.

        A review's labels are whether it praises (class 1), for several labels also what it speaks of, and for
        regression how strongly. Pairs have three classes, or two if the task names two, and the middle or the
        second half of a list of more.
        """
        from sparse_xp.embedded import text_classification_rows
        from sparse_xp.generate_pairs import pair_rows

        if self.text_pair is None:
            made = text_classification_rows(split, rows)
            return {self.text: made["sentence"], self.label: self.told(made)}
        classes = 3 if len(self.classes) == 3 else 2
        made = pair_rows(split, rows, classes)
        labels: list[Any] = made["label"]
        if self.problem == "regression":
            labels = [float(label) for label in labels]
        elif self.problem == "multi_label":
            labels = [[label] for label in labels]
        return {self.text: made["first"], self.text_pair: made["second"], self.label: labels}

    def told(self, made: Rows) -> list[Any]:
        """The labels of generated reviews as this problem has them."""
        rows = list(zip(made["label"], made["sentence"], strict=True))
        if self.problem == "regression":
            # Each further word of praise or blame makes it stronger.
            return [(1.0 if label else -1.0) * (1 + sentence.count(" and ")) for label, sentence in rows]
        if self.problem == "multi_label":
            emphatic = len(self.classes) > 2  # the third label: more than one word of praise or blame
            return [[label, *([2] if emphatic and " and " in sentence else [])] for label, sentence in rows]
        return [label for label, _ in rows]


def class_names(rows: Dataset, column: str) -> list[str] | None:
    """The names that a ClassLabel column, or one of lists of ClassLabel, comes with; None for another column."""
    from datasets import ClassLabel

    feature = rows.features[column]
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, ClassLabel) else None
