"""Extractive question answering as in SQuAD v1.1 (Rajpurkar et al. 2016) and v2 (Rajpurkar et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.data.table import Table, number_of, place_of, with_values
from sparse_xp.errors import UserError
from sparse_xp.metrics import scores
from sparse_xp.synthetic.sentences import question_answering_rows, question_words
from sparse_xp.tasks.answers import EncodedRow, NamedText, Outputs, checked_text, softmax
from sparse_xp.tasks.base import NOT_IN_FEATURES, Rows, Task
from sparse_xp.tasks.columns import SQUAD_ANSWERS, TEXT, TEXT_OR_INTEGER, ColumnType, check_roles
from sparse_xp.tasks.gold_answers import gold_answers, says_impossible
from sparse_xp.tasks.spans import answer_position, best_span, context_span, nearest_occurrence, without_blanks
from sparse_xp.tasks.values import check_header

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(kw_only=True)
class QuestionAnswering(Task):
    """Find the answer to a question in a context: one start and one end logit per token.

    Long contexts are cut into windows of ``max_length`` tokens that overlap by ``doc_stride``. The answer of a question
    is the best of the ``n_best_size`` starts times ``n_best_size`` ends of all its windows.

    Attributes:
        doc_stride: The number of tokens that two windows over a long context share.
        version_2_with_negative: Whether a question may have no answer (SQuAD v2, arXiv:1806.03822). The model then
            points at [CLS].
        null_score_diff_threshold: The answer is empty if [CLS] scores more than this above the best span. It is for
            ``version_2_with_negative``.
        n_best_size: The number of start and end logits of a window that are combined to answers.
        max_answer_length: The most tokens that an answer may have.
        question: The column of the questions.
        context: The column of the contexts.
        answers: The column of the answers, in one of the layouts of ``gold_answers``. Positions count characters (code
            points). A training answer that does not stand at its position is moved to the nearest place with its text,
            and a warning says so.
        id: The column of the questions' ids.
    """

    max_length: int = 384
    doc_stride: int = 128
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = field(default=0.0, metadata=NOT_IN_FEATURES)
    n_best_size: int = field(default=20, metadata=NOT_IN_FEATURES)
    max_answer_length: int = field(default=30, metadata=NOT_IN_FEATURES)
    metric: str = field(default="f1", metadata=NOT_IN_FEATURES)
    question: str = "question"
    context: str = "context"
    answers: str = "answers"
    id: str = "id"

    model_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    targets: ClassVar[tuple[str, ...]] = ("start_positions", "end_positions")
    purpose: ClassVar[str] = "questions answered from a text"
    version: ClassVar[int] = 2
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "exact_match")
    per_token: ClassVar[bool] = True
    has_own_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.doc_stride < self.max_length:
            raise ValueError(f"task.doc_stride={self.doc_stride}: expected 0 to task.max_length={self.max_length}.")
        if self.n_best_size < 1 or self.max_answer_length < 1:
            raise ValueError("task.n_best_size and task.max_answer_length: expected at least 1.")
        names = ("question", "context", "answers", "id")
        check_roles({f"task.{name}": getattr(self, name) for name in names})

    def columns(self) -> list[str]:
        return [self.id, self.question, self.context, self.answers]

    def optional_columns(self) -> list[str]:
        return ["answer_start", "is_impossible"]

    def column_types(self) -> list[tuple[str, ColumnType]]:
        # ``normalize`` checks the answers, which files have in many layouts.
        return [(self.question, TEXT), (self.context, TEXT), (self.id, TEXT_OR_INTEGER)]

    def normalize(
        self, rows: Table | Dataset, source: str, strict: bool, numbered: bool
    ) -> tuple[Table | Dataset, list[str]]:
        """Return the rows with their answers in one layout (``gold_answers``), and no remarks.

        Raises UserError, with row and column, for answers that cannot be read, for a question without one unless the
        task has such questions (``version_2_with_negative``), and with ``strict`` for an empty question or context.
        """
        import pyarrow

        columns, schema = rows.column_names, rows.data.schema
        check_header(rows, [self.question, self.context, self.answers], source)
        texts = [
            name for name in (self.question, self.context) if name in columns and TEXT.matches(schema.field(name).type)
        ]
        for column in texts if strict else ():
            for i, text in enumerate(rows[column]):
                if text is not None and not text.strip():
                    raise UserError(
                        f"task {self.name}: {place_of(rows, source, i)} has an empty text in column {column}."
                    )
        if self.answers not in columns or self.context not in texts:
            return rows, []  # ``tasks/rows.py`` names the column
        given = list(rows[self.answers])
        found = self.read_answers(rows, given, source)
        if found == given and SQUAD_ANSWERS.matches(schema.field(self.answers).type):
            return rows, []
        kind = pyarrow.struct({"text": pyarrow.list_(pyarrow.string()), "answer_start": pyarrow.list_(pyarrow.int64())})
        return with_values(rows, self.answers, pyarrow.array(found, kind) if isinstance(rows, Table) else found), []

    def read_answers(self, rows: Table | Dataset, given: list[Any], source: str) -> list[dict[str, list[Any]]]:
        """Return the answers of each row. ``given``: the column as it is. Raises UserError, see ``normalize``."""
        nothing = [None] * len(given)
        starts, flags = (
            list(rows[name]) if name in rows.column_names else nothing for name in ("answer_start", "is_impossible")
        )
        found, column = [], self.answers
        for i, context in enumerate(rows[self.context]):
            try:
                column = "is_impossible"
                impossible = says_impossible(flags[i])
                column = self.answers
                answers = gold_answers(given[i], starts[i], impossible, context or "")
            except ValueError as error:
                raise UserError(f"task {self.name}: {place_of(rows, source, i)}, column {column}: {error}.") from error
            if not answers["text"] and not self.version_2_with_negative:
                raise UserError(
                    f"task {self.name}: {place_of(rows, source, i)}, column {column}: the question has no answer. "
                    "Leave such rows out, or write task.version_2_with_negative=true for questions without one, as in "
                    "SQuAD v2."
                )
            found.append(answers)
        return found

    def check_rows(self, rows: Table | Dataset, source: str) -> None:
        """Raise UserError unless each question has its own id."""
        seen: dict[Any, int] = {}
        for i, value in enumerate(rows[self.id] if self.id in rows.column_names else ()):
            if (first := seen.setdefault(value, i)) < i and value is not None:
                raise UserError(
                    f"task {self.name}: two rows have the {self.id} {value!r}: {place_of(rows, source, first)}, and "
                    f"{place_of(rows, source, i)}, column {self.id}. Each question needs its own; without the column "
                    "they are numbered."
                )

    def add_missing_columns(self, rows: Table | Dataset) -> Table | Dataset:
        """Return the rows with an id each."""
        if self.id in rows.column_names:
            return rows
        return rows.add_column(self.id, [str(i) for i in range(len(rows))])

    def holdout_groups(self, rows: Table | Dataset) -> tuple[list[Any], bool]:
        # All questions on one text stay on the same side: the model must not know a validation text from training.
        return list(rows[self.context]), False

    def clean(self, rows: Table | Dataset, train: bool) -> tuple[Table | Dataset, list[str]]:
        """Return the rows with corrected answer positions, without training rows whose context lacks their answer.

        Evaluation compares texts, not positions, and keeps every row.
        """
        if not train:
            return rows, []
        corrected: dict[int, dict[str, list[Any]]] = {}
        lost = []
        for i, (context, answers) in enumerate(zip(rows[self.context], rows[self.answers], strict=True)):
            if not answers["text"]:
                continue
            text, start = answers["text"][0], answers["answer_start"][0]
            position = nearest_occurrence(context, text, start)
            if position is None:
                lost.append(i)
            elif position != start:
                corrected[i] = {"text": [text], "answer_start": [position]}
        warnings = []
        if corrected:
            first = next(iter(corrected))
            place = number_of(rows, first)
            warnings.append(
                f"task {self.name}: {len(corrected)} of {len(rows)} training answers do not stand where answer_start "
                f"says (the first: {place}, id {rows[self.id][first]}); the nearest place with their text is taken"
            )
            column = [corrected.get(i, {k: list(v) for k, v in a.items()}) for i, a in enumerate(rows[self.answers])]
            rows = rows.remove_columns(self.answers).add_column(self.answers, column)
        if lost:
            place = number_of(rows, lost[0])
            warnings.append(
                f"task {self.name}: {len(lost)} of {len(rows)} training rows are left out, their text does not hold "
                f"their answer (the first: {place}, id {rows[self.id][lost[0]]})"
            )
            left_out = set(lost)
            rows = rows.select([i for i in range(len(rows)) if i not in left_out])
        return rows, warnings

    @classmethod
    def generated_words(cls) -> list[str]:
        return question_words()

    def generated_rows(self, split: str, rows: int) -> Rows:
        generated = question_answering_rows(split, rows, unanswerable=1 / 3 if self.version_2_with_negative else 0.0)
        return {
            column: generated[name]
            for column, name in zip(self.columns(), ("id", "question", "context", "answers"), strict=True)
        }

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        windows = self.windows(rows, tokenizer, first)
        owner = windows.pop("overflow_to_sample_mapping")
        offsets = windows.pop("offset_mapping")
        spans = [context_span(windows.sequence_ids(i)) for i in range(len(owner))]
        features: Rows = {name: windows[name] for name in tokenizer.model_input_names if name in windows}
        if train:
            answers = rows[self.answers]
            without = [i for i, answer in enumerate(answers) if not answer["text"]]
            if without and not self.version_2_with_negative:
                raise UserError(
                    f"task {self.name}: training row {first + without[0]} (id {rows[self.id][without[0]]}) has no "
                    "answer; SQuAD v1.1 answers every question. Leave such rows out, or write "
                    "task.version_2_with_negative=true."
                )
            positions = [
                answer_position(answers[row], offset, span)
                for row, offset, span in zip(owner, offsets, spans, strict=True)
            ]
            features["start_positions"] = [start for start, _ in positions]
            features["end_positions"] = [end for _, end in positions]
        else:
            features["row"] = [first + row for row in owner]
            features["context_from"] = [start for start, _ in spans]
            features["offsets"] = [
                [list(pair) for pair in offset[start:end]] for offset, (start, end) in zip(offsets, spans, strict=True)
            ]
        return features

    def input_features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> Rows:
        windows = self.windows(rows, tokenizer, first)
        return {name: windows[name] for name in tokenizer.model_input_names if name in windows}

    def windows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> BatchEncoding:
        """Return the tokens of each question with each window of its context."""
        # Leading blanks would count against the question's length.
        questions = [question.lstrip() for question in rows[self.question]]
        self.check_room(questions, tokenizer, first)
        windows: BatchEncoding = tokenizer(
            questions,
            rows[self.context],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        return windows

    def check_room(self, questions: list[str], tokenizer: PreTrainedTokenizerBase, first: int) -> None:
        """Raise UserError if a question leaves less room for its context than the windows have to overlap."""
        special = tokenizer.num_special_tokens_to_add(pair=True)
        for i, tokens in enumerate(tokenizer(questions, add_special_tokens=False)["input_ids"]):
            room = self.max_length - special - len(tokens)
            if room <= self.doc_stride:
                raise UserError(
                    f"task {self.name}: the question of row {first + i} has {len(tokens)} tokens and leaves {room} of "
                    f"task.max_length={self.max_length} to the context, which windows that overlap by "
                    f"task.doc_stride={self.doc_stride} do not fit. Raise task.max_length or lower task.doc_stride."
                )

    def own_loss(self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross entropy of start and end over the tokens of each row, without padding.

        The heads of transformers compare all positions, so that their loss depends on how far a row was padded.
        """
        from torch import finfo, float32
        from torch.nn.functional import cross_entropy

        padding, lowest = ~self.class_mask(batch), finfo(float32).min  # not -inf, whose gradient is NaN
        start, end = (
            cross_entropy(outputs[name].float().masked_fill(padding, lowest), batch[target])
            for name, target in zip(self.outputs, self.targets, strict=True)
        )
        return (start + end) / 2

    def class_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"].bool()

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        ids, contexts = rows[self.id], rows[self.context]
        texts, best_scores, null_scores = [""] * len(ids), [float("-inf")] * len(ids), [float("inf")] * len(ids)
        for i, window in enumerate(features.select_columns(["row", "context_from", "offsets"])):
            row, first, offsets = window["row"], window["context_from"], window["offsets"]
            here = slice(first, first + len(offsets))
            best = best_span(
                outputs["start_logits"][i][here],
                outputs["end_logits"][i][here],
                self.n_best_size,
                self.max_answer_length,
            )
            # A question has no answer if no window has one: the window with the lowest score for [CLS] counts.
            null_score = float(outputs["start_logits"][i][0] + outputs["end_logits"][i][0])
            null_scores[row] = min(null_scores[row], null_score)
            if best and best[2] > best_scores[row]:
                start, end, best_scores[row] = best
                begin, stop = without_blanks(contexts[row], offsets[start][0], offsets[end][1])
                texts[row] = contexts[row][begin:stop]
        golds = [answer["text"] for answer in rows[self.answers]]
        if self.version_2_with_negative:
            margins = [null - score for null, score in zip(null_scores, best_scores, strict=True)]
            return scores.squad_v2_scores(texts, margins, golds, self.null_score_diff_threshold)
        return scores.squad_scores(dict(zip(ids, texts, strict=True)), dict(zip(ids, golds, strict=True)))

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        if not metric.startswith(("HasAns_", "NoAns_")):
            return len(rows)
        return sum(bool(answer["text"]) == metric.startswith("HasAns_") for answer in rows[self.answers])

    def text_names(self) -> list[tuple[str, ...]]:
        return [(self.question, "question"), (self.context, "context")]

    def example(self) -> dict[str, str]:
        return {"question": "Who wrote it?", "context": "Ada wrote it."}

    def answer_names(self, top: int | None) -> list[str]:
        return ["score", "start", "end", "answer"]

    def encode_row(self, texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
        """Return the question with each window of the context."""
        question, context = (checked_text(*text) for text in texts)
        question = question.lstrip()
        tokenizer.no_truncation()
        tokens = len(tokenizer.encode(question, add_special_tokens=False).ids)
        room = max_length - tokenizer.num_special_tokens_to_add(True) - tokens
        if room <= self.doc_stride:
            raise UserError(
                f"The question has {tokens} tokens and leaves {room} of {max_length} to the context, which windows "
                f"that overlap by {self.doc_stride} do not fit. Ask a shorter one."
            )
        tokenizer.enable_truncation(max_length, stride=self.doc_stride, strategy="only_second")
        first = tokenizer.encode(question, context)
        return EncodedRow(context, [first, *first.overflowing])

    def accepts_logits(self, name: str, shape: tuple[int, ...], tokens: int) -> bool:
        return len(shape) == 1 and shape[0] >= tokens

    def decode(self, row: EncodedRow, outputs: Outputs, tokenizer: Tokenizer, top: int | None) -> dict[str, Any]:
        """Return the answer with its characters of the context; ``score`` multiplies its start and end probability.

        The softmax is over the tokens of the context and [CLS] in the answer's own window. With
        ``version_2_with_negative`` an answer may be empty, from 0 to 0.
        """
        import numpy as np

        best_score, null_score = -np.inf, np.inf
        answer = empty = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
        for encoding, starts, ends in zip(row.encodings, outputs["start_logits"], outputs["end_logits"], strict=True):
            first, last = context_span(encoding.sequence_ids)
            here = slice(first, last)
            start_chances, end_chances = (
                softmax(np.concatenate([logits[:1], logits[here]])) for logits in (starts, ends)
            )
            # As in ``score``: the window with the lowest score for [CLS] says whether there is no answer.
            if (score := float(starts[0] + ends[0])) < null_score:
                null_score, empty = score, {**empty, "score": float(start_chances[0] * end_chances[0])}
            span = best_span(starts[here], ends[here], self.n_best_size, self.max_answer_length)
            if span and span[2] > best_score:
                i, j, best_score = span
                begin, stop = without_blanks(row.text, encoding.offsets[first + i][0], encoding.offsets[first + j][1])
                probability = float(start_chances[1 + i] * end_chances[1 + j])
                answer = {"score": probability, "start": begin, "end": stop, "answer": row.text[begin:stop]}
        unanswered = null_score - best_score > self.null_score_diff_threshold
        return empty if self.version_2_with_negative and unanswered else answer
