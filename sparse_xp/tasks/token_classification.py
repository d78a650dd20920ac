"""Token classification: named entities and whatever else is tagged word by word in the BIO scheme."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparse_xp.data.table import Table
from sparse_xp.errors import UserError
from sparse_xp.metrics.scores import entity_scores
from sparse_xp.synthetic.entities import KINDS, entity_rows, tagged_words
from sparse_xp.tasks.answers import EncodedRow, NamedText, Outputs, brief, check_characters, checked_text, softmax
from sparse_xp.tasks.base import IGNORED, NOT_IN_FEATURES, Rows, Task
from sparse_xp.tasks.bio import BIO, begins, check_classes, classes_of, entity_words
from sparse_xp.tasks.columns import TAGS, TEXTS, ColumnType, check_roles
from sparse_xp.tasks.labels import check_class_names, class_names
from sparse_xp.tasks.tagged_rows import check_untagged, normalize_tags, words_only
from sparse_xp.tasks.values import check_header

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedTokenizerBase

#: words of running text: letters and digits, with single signs between them (``Jean-Paul``, ``3.5``); other signs alone
WORD = re.compile(r"\w+(?:[^\w\s]\w+)*|[^\w\s]")


@dataclass(kw_only=True)
class TokenClassification(Task):
    """Give each word one of the tags ``O``, ``B-X`` for the first word of an X, ``I-X`` for the next.

    The prediction for a word is the one for its first sub-word; no other token is trained on. Words beyond
    ``max_length`` tokens are not seen, and are scored as if tagged ``O``.

    Attributes:
        tokens: The column of the words.
        tags: The column of the tags: one tag per word, as a number (its index in ``classes``) or by name.
        classes: The names of the tags. Empty: as the data name them.
    """

    max_length: int = 512
    metric: str = field(default="f1", metadata=NOT_IN_FEATURES)
    tokens: str = "tokens"
    tags: str = "ner_tags"
    classes: list[str] = field(default_factory=list)

    model_class: ClassVar[str] = "AutoModelForTokenClassification"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    purpose: ClassVar[str] = "named entities"
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "accuracy")
    per_token: ClassVar[bool] = True
    has_own_loss: ClassVar[bool] = True
    version: ClassVar[int] = 2
    list_name: ClassVar[str] = "entities"
    padding: ClassVar[dict[str, int]] = {"labels": IGNORED}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_roles({"task.tokens": self.tokens, "task.tags": self.tags})
        if self.classes:
            check_classes(self.classes, "task.classes")

    @property
    def label_names(self) -> list[str]:
        return list(self.classes)

    def columns(self) -> list[str]:
        return [self.tokens, self.tags]

    def column_types(self) -> list[tuple[str, ColumnType]]:
        return [(self.tokens, TEXTS), (self.tags, TAGS)]

    def normalize(
        self, rows: Table | Dataset, source: str, strict: bool, numbered: bool
    ) -> tuple[Table | Dataset, list[str]]:
        if not {self.tokens, self.tags} <= set(rows.column_names):
            return rows, []
        check_header(rows, self.columns(), source)
        names = class_names(rows, self.tags) or []
        if self.classes and all(map(BIO.fullmatch, names)):  # those of another scheme are converted
            check_class_names(self.name, self.classes, rows, self.tags)
        return normalize_tags(rows, self.tokens, self.tags, source, strict, self.classes, numbered)

    def inputs_of(self, rows: Table) -> Table:
        """Return the words of each row: its list of words, or those of its running text, as a deployed model sees them.

        Raises UserError, with the place, for words that are none, and a row without a word.
        """
        if not {self.tokens, "tokens"} & set(rows.column_names):
            check_untagged(rows, "text")
            texts = [text if isinstance(text, str) else "" for text in rows["text"]]
            return words_only(rows, self.tokens, "text", [WORD.findall(text) for text in texts])
        return words_only(rows, self.tokens, self.tokens if self.tokens in rows.column_names else "tokens")

    def with_labels_from(self, rows: Table | Dataset) -> Self:
        """Return the task with classes: its own, else the names that come with the data, else those of its tags."""
        if self.classes:
            return self
        tags = {tag for row in rows[self.tags] for tag in row}
        classes = class_names(rows, self.tags) or classes_of(tags, self.tags, self.name)
        return self._with_checked(classes, f"column {self.tags} of the data")

    def with_classes(self, names: list[str]) -> Self:
        return self if self.classes else self._with_checked(names, "the labels of the model")

    def _with_checked(self, classes: list[str], whose: str) -> Self:
        try:
            check_classes(classes, f"task {self.name}: {whose}")
        except ValueError as error:
            raise UserError(str(error)) from error
        return replace(self, classes=classes)

    def check_labels(self, rows: Table | Dataset) -> None:
        check_class_names(self.name, self.classes, rows, self.tags)

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        """Return one feature a row; training leaves out rows without a word, which have no target.

        ``words``: for each token the word that it begins, -1 for the others; ``unseen``: how many words have no token.
        """
        golds = [self.tag_numbers(rows, i, first) for i in range(len(rows[self.tokens]))]
        joined = [joined_words(words) for words in rows[self.tokens]]
        encoded = self.encoded([text for text, _ in joined], tokenizer)
        words_begun = [
            first_tokens(text, spans, offsets)
            for (text, spans), offsets in zip(joined, encoded["offset_mapping"], strict=True)
        ]
        features: Rows = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        features["labels"] = [
            [IGNORED if word < 0 else gold[word] for word in words]
            for words, gold in zip(words_begun, golds, strict=True)
        ]
        features["words"] = words_begun
        features["unseen"] = [
            len(gold) - sum(word >= 0 for word in words) for words, gold in zip(words_begun, golds, strict=True)
        ]
        if train:
            trainable = [i for i, words in enumerate(words_begun) if max(words, default=-1) >= 0]
            features = {name: [values[i] for i in trainable] for name, values in features.items()}
        return features

    def input_features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> Rows:
        encoded = self.encoded([joined_words(words)[0] for words in rows[self.tokens]], tokenizer)
        return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}

    def encoded(self, texts: list[str], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
        """Return the tokens of each text, with the characters that they stand for."""
        encoded: BatchEncoding = tokenizer(
            texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True
        )
        return encoded

    def tag_numbers(self, rows: Rows, i: int, first: int) -> list[int]:
        """Return the tags of row ``i`` as indices of ``classes``.

        Raises UserError for an unknown tag, or another number of tags than of words.
        """
        tags, words = rows[self.tags][i], rows[self.tokens][i]
        if len(tags) != len(words):
            raise UserError(
                f"task {self.name}: row {first + i} has {len(words)} {self.tokens} and {len(tags)} {self.tags}; "
                "expected one tag for each."
            )
        numbers = {name: number for number, name in enumerate(self.classes)}
        row = [numbers.get(tag, -1) if isinstance(tag, str) else tag for tag in tags]
        for tag, number in zip(tags, row, strict=True):
            if number not in range(len(self.classes)):
                raise UserError(
                    f"task {self.name}: row {first + i} has the tag {tag!r} in {self.tags}, but task.classes names "
                    f"{len(self.classes)}: {', '.join(self.classes)}."
                )
        return [int(number) for number in row]

    def warnings(self, features: Dataset, train: bool) -> list[str]:
        unseen = [number for number in features["unseen"] if number]
        if not unseen:
            return []
        rows, words = len(unseen), sum(unseen)
        return [
            f"task {self.name}: {rows} of {len(features)} {'training' if train else 'evaluation'} rows have words "
            f"without a token within task.max_length={self.max_length}, {words} in all; these "
            + ("are not learnt from" if train else "count as tagged O")
        ]

    def own_loss(self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        from sparse_xp.functional.chunked_loss import cross_entropy

        return cross_entropy(outputs["logits"], batch["labels"])  # 0 without a label, where transformers has NaN

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"].bool()

    def loss_counts(self, batch: dict[str, Tensor]) -> tuple[int, ...]:
        return (int((batch["labels"] != IGNORED).sum()),)

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        golds = self.gold_tags(rows)
        predictions = [["O"] * len(gold) for gold in golds]
        for tags, words, logits in zip(predictions, features["words"], outputs["logits"], strict=True):
            for word, number in zip(words, logits.argmax(-1), strict=True):
                if word >= 0:
                    tags[word] = self.classes[number]
        return entity_scores(predictions, golds)

    def gold_tags(self, rows: Dataset) -> list[list[str]]:
        """Return the tags of each row's words."""
        table = {name: list(rows[name]) for name in self.columns()}
        return [[self.classes[number] for number in self.tag_numbers(table, i, 0)] for i in range(len(rows))]

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        golds = self.gold_tags(rows)
        if metric == "accuracy":
            return sum(map(len, golds))
        starts = (begins(tag, before) for tags in golds for tag, before in zip(tags, ["O", *tags], strict=False))
        return sum(starts)  # entities

    def text_names(self) -> list[tuple[str, ...]]:
        return [(self.tokens, "tokens", "text")]

    def example(self) -> dict[str, str]:
        return {"tokens": "John lives in Paris"}

    def encode_row(self, texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
        """Return the tokens of a list of words, of words with blanks between them, or of running text (``text``)."""
        [(name, value)] = texts
        if isinstance(value, str):
            checked_text(name, value)
        if name == "text" and isinstance(value, str):
            text, spans = value, [match.span() for match in WORD.finditer(value)]
        else:
            words = value.split() if isinstance(value, str) else value
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise UserError(f"{name}={brief(value)}: expected words.")
            for number, word in enumerate(words):
                check_characters(word, f"word {number} of {name}")
            text, spans = joined_words(words)
        tokenizer.enable_truncation(max_length)
        # As in training: single blanks between the words, whatever is between them in ``text``.
        encoding = tokenizer.encode(joined_words([text[begin:end] for begin, end in spans])[0])
        return EncodedRow(text, [encoding], bool(encoding.overflowing), spans)

    def accepts_logits(self, name: str, shape: tuple[int, ...], tokens: int) -> bool:
        return len(shape) == 2 and shape[0] >= tokens and shape[1] == len(self.classes)

    def decode(self, row: EncodedRow, outputs: Outputs, tokenizer: Tokenizer, top: int | None) -> list[dict[str, Any]]:
        """Return the entities with their characters of the text; ``score`` is the mean probability of their tags."""
        import numpy as np

        tags = self.word_tags(row, outputs)
        entities = []
        for kind, words in entity_words([tag for tag, _ in tags]):
            begin, end = row.word_spans[words[0]][0], row.word_spans[words[-1]][1]
            score = float(np.mean([tags[word][1] for word in words]))
            entities.append({"entity": kind, "score": score, "word": row.text[begin:end], "start": begin, "end": end})
        return entities

    def word_tags(self, row: EncodedRow, outputs: Outputs) -> list[tuple[str, float]]:
        """Return for each word its tag and the tag's probability, those of its first token; ``O`` if it has none."""
        [logits], [encoding] = outputs["logits"], row.encodings
        tags = [("O", 1.0)] * len(row.word_spans)
        text, spans = joined_words([row.text[begin:end] for begin, end in row.word_spans])
        for word, values in zip(first_tokens(text, spans, encoding.offsets), logits, strict=True):
            if word >= 0:
                tags[word] = (self.classes[int(values.argmax())], float(softmax(values).max()))
        return tags

    @classmethod
    def generated_words(cls) -> list[str]:
        return tagged_words()

    def generated_rows(self, split: str, rows: int) -> Rows:
        """Return invented rows. Kinds of entity that ``classes`` lacks stand for its own, in order, or are ``O``."""
        generated = entity_rows(split, rows)
        tags: list[list[Any]] = generated["ner_tags"]
        if self.classes:
            own = list(dict.fromkeys(name[2:] for name in self.classes if name != "O"))
            stands_for = dict(zip(KINDS, KINDS if set(KINDS) <= set(own) else own, strict=False))
            renamed = [[tag[:2] + stands_for.get(tag[2:], "") for tag in row] for row in tags]
            numbers = {name: number for number, name in enumerate(self.classes)}
            tags = [[numbers.get(tag, numbers["O"]) for tag in row] for row in renamed]
        return {self.tokens: generated["tokens"], self.tags: tags}


def first_tokens(text: str, spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each token the word that it begins, -1 for special tokens, blanks and further sub-words.

    ``spans``: the characters [from, to) of each word in ``text``, ascending; ``offsets``: those of each token. A
    token's characters may begin with the blank before the word, as in SentencePiece and byte-level BPE.
    """
    starts, begun = [begin for begin, _ in spans], -1
    words = []
    for begin, end in offsets:
        begin += len(text[begin:end]) - len(text[begin:end].lstrip(" "))
        word = bisect_right(starts, begin) - 1
        begins_word = begin < end and begun < word and begin < spans[word][1]
        words.append(word if begins_word else -1)
        begun = max(begun, words[-1])
    return words


def joined_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the words with single blanks between them, and the characters [from, to) of each."""
    spans, begin = [], 0
    for word in words:
        spans.append((begin, begin + len(word)))
        begin += len(word) + 1
    return " ".join(words), spans
