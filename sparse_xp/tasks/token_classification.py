"""Token classification: named entities and whatever else is tagged word by word in the BIO scheme."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.tasks.base import Rows, Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: the label of tokens that the loss leaves out, as PyTorch's cross entropy has it
IGNORED = -100
BIO = re.compile(r"O|[BI]-.+")


@dataclass(kw_only=True)
class TokenClassification(Task):
    """Give each word of ``tokens`` one of ``classes``: ``O``, ``B-X`` for the first word of an X, ``I-X`` for the next.

    ``tags``: one tag per word, as a number (its place in ``classes``) or by name. ``classes`` may be left out where the
    data name them. The model's answer for a word is the one for its first sub-word; no other token is trained on. Words
    beyond ``max_length`` tokens are not seen, and are scored as if tagged ``O``.
    """

    max_length: int = 512
    metric: str = "f1"
    tokens: str = "tokens"
    tags: str = "ner_tags"
    classes: list[str] = field(default_factory=list)

    model_class: ClassVar[str] = "AutoModelForTokenClassification"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    per_token: ClassVar[bool] = True
    padding: ClassVar[dict[str, int]] = {"labels": IGNORED}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes:
            check_classes(self.classes, "task.classes")
        known = ("f1", "precision", "recall", "accuracy")
        if self.metric not in known:
            raise ValueError(
                f"task.metric={self.metric!r}: want one of {', '.join(known)}.{did_you_mean(self.metric, known)}"
            )

    @property
    def label_names(self) -> list[str]:
        return list(self.classes)

    def columns(self) -> list[str]:
        return [self.tokens, self.tags]

    def resolved(self, rows: Dataset) -> Self:
        """The task with its classes: its own, else the names that come with the data, else the tags in the rows.

        Raises UserError if the data name other classes, or in another order, than the task.
        """
        named = class_names(rows, self.tags)
        if self.classes:
            if named and named != self.classes:
                raise UserError(
                    f"task {self.name}: task.classes is {self.classes}, but column {self.tags} of the data has "
                    f"{named}. Write them as the data have them, in their order, or leave task.classes out."
                )
            return self
        classes = named or classes_of({tag for tags in rows[self.tags] for tag in tags}, self)
        try:
            check_classes(classes, f"task {self.name}: column {self.tags} of the data")
        except ValueError as error:
            raise UserError(str(error)) from error
        return replace(self, classes=classes)

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        """One feature a row; training leaves out rows without a word, which teach nothing.

        ``words`` says of each token which word it begins, -1 of the others; ``unseen`` how many words have no token.
        """
        golds = [self.numbers(rows, i, first) for i in range(len(rows[self.tokens]))]
        encoded = tokenizer(
            [list(words) for words in rows[self.tokens]],
            is_split_into_words=True,
            truncation=True,
            max_length=self.max_length,
        )
        begun = [first_tokens(encoded.word_ids(i)) for i in range(len(golds))]
        features: Rows = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        features["labels"] = [
            [IGNORED if word < 0 else gold[word] for word in words] for words, gold in zip(begun, golds, strict=True)
        ]
        features["words"] = begun
        features["unseen"] = [
            len(gold) - sum(word >= 0 for word in words) for words, gold in zip(begun, golds, strict=True)
        ]
        if train:
            kept = [i for i, words in enumerate(begun) if max(words, default=-1) >= 0]
            features = {name: [values[i] for i in kept] for name, values in features.items()}
        return features

    def numbers(self, rows: Rows, i: int, first: int) -> list[int]:
        """The tags of row ``i`` as places in ``classes``. Raises UserError for others, or not one for each word."""
        tags, words = rows[self.tags][i], rows[self.tokens][i]
        if len(tags) != len(words):
            raise UserError(
                f"task {self.name}: row {first + i} has {len(words)} {self.tokens} and {len(tags)} {self.tags}; "
                "want one tag for each."
            )
        numbers = {name: number for number, name in enumerate(self.classes)}
        found = [numbers.get(tag, -1) if isinstance(tag, str) else tag for tag in tags]
        for tag, number in zip(tags, found, strict=True):
            if number not in range(len(self.classes)):
                raise UserError(
                    f"task {self.name}: row {first + i} has the tag {tag!r} in {self.tags}, but task.classes names "
                    f"{len(self.classes)}: {', '.join(self.classes)}."
                )
        return [int(number) for number in found]

    def remarks(self, features: Dataset, train: bool) -> list[str]:
        unseen = [number for number in features["unseen"] if number]
        if not unseen:
            return []
        rows, words = len(unseen), sum(unseen)
        return [
            f"task {self.name}: {rows} of {len(features)} {'training' if train else 'evaluation'} rows have words "
            f"without a token within task.max_length={self.max_length}, {words} in all; these "
            + ("are not learnt from" if train else "count as tagged O")
        ]

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"].bool()

    def loss_weight(self, batch: dict[str, Tensor]) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        from sparse_xp.metrics.scores import entity_scores

        golds = self.golds(rows)
        predictions = [["O"] * len(gold) for gold in golds]
        for said, words, logits in zip(predictions, features["words"], outputs["logits"], strict=True):
            for word, number in zip(words, logits.argmax(-1), strict=True):
                if word >= 0:
                    said[word] = self.classes[number]
        return entity_scores(predictions, golds)

    def golds(self, rows: Dataset) -> list[list[str]]:
        """The tags of each row's words."""
        table = {name: list(rows[name]) for name in self.columns()}
        return [[self.classes[number] for number in self.numbers(table, i, 0)] for i in range(len(rows))]

    def counted(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        golds = self.golds(rows)
        if metric == "accuracy":
            return sum(map(len, golds))
        starts = (begins(tag, before) for tags in golds for tag, before in zip(tags, ["O", *tags], strict=False))
        return sum(starts)  # entities

    def embedded(self, split: str, rows: int) -> Rows:
        """Generated rows. Kinds of entity that ``classes`` does not have stand for its own, in order, or are ``O``."""
        from sparse_xp.synthetic.entities import KINDS, entity_rows

        made = entity_rows(split, rows)
        tags: list[list[Any]] = made["ner_tags"]
        if self.classes:
            own = list(dict.fromkeys(name[2:] for name in self.classes if name != "O"))
            stands_for = dict(zip(KINDS, KINDS if set(KINDS) <= set(own) else own, strict=False))
            told = [[tag[:2] + stands_for.get(tag[2:], "") for tag in row] for row in tags]
            numbers = {name: number for number, name in enumerate(self.classes)}
            tags = [[numbers.get(tag, numbers["O"]) for tag in row] for row in told]
        return {self.tokens: made["tokens"], self.tags: tags}


def begins(tag: str, before: str) -> bool:
    """Whether an entity begins with ``tag``: ``B-X``, or an ``I-X`` that does not go on from an X."""
    return tag.startswith("B-") or (tag.startswith("I-") and before[2:] != tag[2:])


def check_classes(classes: list[str], where: str) -> None:
    """Raise ValueError unless ``classes`` are distinct tags of the BIO scheme, ``O`` among them, and at least two."""
    wrong = [name for name in classes if not BIO.fullmatch(name)]
    if wrong:
        raise ValueError(
            f"{where}: {wrong[0]!r} is no class of the BIO scheme: want O, and B-TYPE and I-TYPE for each type."
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ValueError(f"{where}: the class {twice} is named twice.")
    if "O" not in classes or len(classes) < 2:
        raise ValueError(f"{where}: {', '.join(classes)}; want O, for words outside of entities, and others.")


def class_names(rows: Dataset, column: str) -> list[str] | None:
    """The names that a column of lists of ClassLabel comes with, None for another column."""
    from datasets import ClassLabel

    inner = getattr(rows.features[column], "feature", None)
    return list(inner.names) if isinstance(inner, ClassLabel) else None


def classes_of(tags: set[Any], task: TokenClassification) -> list[str]:
    """``O``, then ``B-X`` and ``I-X`` for each type X among the tags, in the order of the alphabet.

    Both are there for every type, since evaluation rows may have the one that no training row has.
    """
    if numbers := sorted(tag for tag in tags if not isinstance(tag, str)):
        raise UserError(
            f"task {task.name}: column {task.tags} has numbers ({numbers[0]} to {numbers[-1]}) without names: name "
            "them with task.classes, in the order of the numbers."
        )
    if wrong := sorted(tag for tag in tags if not BIO.fullmatch(tag)):
        raise UserError(
            f"task {task.name}: column {task.tags} has the tag {wrong[0]!r}, which is none of the BIO scheme: want O, "
            "and B-TYPE and I-TYPE for each type."
        )
    types = sorted({tag[2:] for tag in tags} - {""})
    return ["O", *(f"{place}-{name}" for name in types for place in "BI")]


def first_tokens(word_ids: list[int | None]) -> list[int]:
    """For each token the word that it begins, -1 for special tokens and further sub-words."""
    before = [None, *word_ids]
    return [-1 if word is None or word == previous else word for previous, word in zip(before, word_ids, strict=False)]
