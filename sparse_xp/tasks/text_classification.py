"""Text classification: one sentence (or a pair), one of several classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.tasks.base import Rows, Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(kw_only=True)
class TextClassification(Task):
    """Give ``text`` (with ``text_pair`` if there is one) one of ``classes``, in the order of the label numbers."""

    max_length: int = 128
    metric: str = "accuracy"
    text: str = "sentence"
    text_pair: str | None = None
    label: str = "label"
    classes: list[str] = field(default_factory=list)

    model_class: ClassVar[str] = "AutoModelForSequenceClassification"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) < 2:
            raise ValueError("task.classes: name at least two classes, in the order of the label numbers.")
        if self.metric != "accuracy":
            raise ValueError(f"task.metric={self.metric!r}: want accuracy.")

    @property
    def label_names(self) -> list[str]:
        return list(self.classes)

    def columns(self) -> list[str]:
        return [self.text, *([self.text_pair] if self.text_pair else []), self.label]

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        wrong = [i for i, label in enumerate(rows[self.label]) if label not in range(len(self.classes))]
        if wrong:
            raise UserError(
                f"task {self.name}: row {first + wrong[0]} has {self.label}={rows[self.label][wrong[0]]}, but "
                f"task.classes names {len(self.classes)}: {', '.join(self.classes)}."
            )
        pairs = (rows[self.text_pair],) if self.text_pair else ()
        encoded = tokenizer(rows[self.text], *pairs, truncation=True, max_length=self.max_length)
        features: Rows = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        return {**features, "labels": rows[self.label]}

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        from sparse_xp.metrics.scores import accuracy

        return accuracy([int(logits.argmax()) for logits in outputs["logits"]], list(features["labels"]))

    def embedded(self, split: str, rows: int) -> Rows:
        from sparse_xp.embedded import text_classification_rows

        made = text_classification_rows(split, rows)
        if self.text_pair is None:
            return {self.text: made["sentence"], self.label: made["label"]}
        halves = [(words[: len(words) // 2], words[len(words) // 2 :]) for words in map(str.split, made["sentence"])]
        return {
            self.text: [" ".join(first) for first, _ in halves],
            self.text_pair: [" ".join(second) for _, second in halves],
            self.label: made["label"],
        }
