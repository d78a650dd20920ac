"""Extractive question answering in the manner of SQuAD v1.1 (Rajpurkar et al. 2016)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.tasks.base import Rows, Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(kw_only=True)
class QuestionAnswering(Task):
    """Find the answer to ``question`` in ``context``: one start and one end logit per token.

    Long contexts are cut into windows of ``max_length`` tokens that overlap by ``doc_stride``. The answer of a
    question is the best of the ``n_best`` starts times ``n_best`` ends of all its windows, at most
    ``max_answer_length`` tokens long.

    ``no_answer`` (SQuAD v2, Rajpurkar et al. 2018, arXiv:1806.03822): a question may have none, which the model says by
    pointing at [CLS]; the answer is empty where that scores more than ``null_threshold`` above the best span.
    """

    max_length: int = 384
    doc_stride: int = 128
    no_answer: bool = False
    null_threshold: float = 0.0
    n_best: int = 20
    max_answer_length: int = 30
    metric: str = "f1"
    question: str = "question"
    context: str = "context"
    answers: str = "answers"
    id: str = "id"

    model_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    targets: ClassVar[tuple[str, ...]] = ("start_positions", "end_positions")
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.doc_stride < self.max_length:
            raise ValueError(f"task.doc_stride={self.doc_stride}: want 0 to task.max_length={self.max_length}.")
        if self.n_best < 1 or self.max_answer_length < 1:
            raise ValueError("task.n_best and task.max_answer_length: want at least 1.")
        if self.metric not in ("f1", "exact_match"):
            raise ValueError(f"task.metric={self.metric!r}: want f1 or exact_match.")

    def columns(self) -> list[str]:
        return [self.id, self.question, self.context, self.answers]

    def groups(self, rows: Dataset) -> tuple[list[Any], bool]:
        # No text is asked about on both sides.
        return list(rows[self.context]), False

    def completed(self, rows: Dataset) -> Dataset:
        if self.id not in rows.column_names:
            return rows.add_column(self.id, [str(i) for i in range(len(rows))])
        ids = rows[self.id]
        if len(set(ids)) < len(ids):
            twice = next(one for one, times in Counter(ids).items() if times > 1)
            raise UserError(f"task {self.name}: two rows have the {self.id} {twice!r}; each question needs its own.")
        return rows

    def checked(self, rows: Dataset, train: bool) -> tuple[Dataset, list[str]]:
        """Answers are moved to where their text stands; a training row whose text does not hold its answer is left out.

        Evaluation compares texts, not places, and keeps every row.
        """
        if not train:
            return rows, []
        moved, lost = {}, []
        for i, (context, answers) in enumerate(zip(rows[self.context], rows[self.answers], strict=True)):
            if not answers["text"]:
                continue
            text, start = answers["text"][0], answers["answer_start"][0]
            place = nearest(context, text, start)
            if place is None:
                lost.append(i)
            elif place != start:
                moved[i] = {"text": [text], "answer_start": [place]}
        remarks = []
        if moved:
            first = next(iter(moved))
            remarks.append(
                f"task {self.name}: {len(moved)} of {len(rows)} training answers do not stand where answer_start says "
                f"(the first: row {first}, id {rows[self.id][first]}); the nearest place with their text is taken"
            )
            column = [moved.get(i, {k: list(v) for k, v in a.items()}) for i, a in enumerate(rows[self.answers])]
            rows = rows.remove_columns(self.answers).add_column(self.answers, column)
        if lost:
            remarks.append(
                f"task {self.name}: {len(lost)} of {len(rows)} training rows are left out, their text does not hold "
                f"their answer (the first: row {lost[0]}, id {rows[self.id][lost[0]]})"
            )
            gone = set(lost)
            rows = rows.select([i for i in range(len(rows)) if i not in gone])
        return rows, remarks

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        # Leading blanks are not the answer's business, and would count against the question's length.
        questions = [question.lstrip() for question in rows[self.question]]
        self.check_room(questions, tokenizer, first)
        windows = tokenizer(
            questions,
            rows[self.context],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owner = windows.pop("overflow_to_sample_mapping")
        offsets = windows.pop("offset_mapping")
        spans = [context_span(windows.sequence_ids(i)) for i in range(len(owner))]
        features: Rows = {name: windows[name] for name in tokenizer.model_input_names if name in windows}
        if train:
            answers = rows[self.answers]
            without = [i for i, answer in enumerate(answers) if not answer["text"]]
            if without and not self.no_answer:
                raise UserError(
                    f"task {self.name}: training row {first + without[0]} (id {rows[self.id][without[0]]}) has no "
                    "answer; SQuAD v1.1 answers every question. Leave such rows out, or write task.no_answer=true."
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

    def class_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"].bool()

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        from sparse_xp.metrics.scores import squad_scores, squad_v2_scores

        ids, contexts = rows[self.id], rows[self.context]
        texts, scores, nulls = [""] * len(ids), [float("-inf")] * len(ids), [float("inf")] * len(ids)
        for i, window in enumerate(features.select_columns(["row", "context_from", "offsets"])):
            row, first, offsets = window["row"], window["context_from"], window["offsets"]
            here = slice(first, first + len(offsets))
            found = best_span(
                outputs["start_logits"][i][here],
                outputs["end_logits"][i][here],
                self.n_best,
                self.max_answer_length,
            )
            # A question has no answer if no window has: the least convinced one counts.
            nulls[row] = min(nulls[row], float(outputs["start_logits"][i][0] + outputs["end_logits"][i][0]))
            if found and found[2] > scores[row]:
                start, end, scores[row] = found
                texts[row] = contexts[row][offsets[start][0] : offsets[end][1]]
        golds = [answer["text"] for answer in rows[self.answers]]
        if self.no_answer:
            margins = [null - score for null, score in zip(nulls, scores, strict=True)]
            return squad_v2_scores(texts, margins, golds, self.null_threshold)
        return squad_scores(dict(zip(ids, texts, strict=True)), dict(zip(ids, golds, strict=True)))

    def counted(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        if not metric.startswith(("HasAns_", "NoAns_")):
            return len(rows)
        return sum(bool(answer["text"]) == metric.startswith("HasAns_") for answer in rows[self.answers])

    def embedded(self, split: str, rows: int) -> Rows:
        from sparse_xp.synthetic.sentences import question_answering_rows

        made = question_answering_rows(split, rows, unanswerable=1 / 3 if self.no_answer else 0.0)
        return {
            mine: made[theirs]
            for mine, theirs in zip(self.columns(), ("id", "question", "context", "answers"), strict=True)
        }


def context_span(sequence_ids: list[int | None]) -> tuple[int, int]:
    """The half-open range of tokens that belong to the second text of a pair; (0, 0) if there is none."""
    tokens = [i for i, sequence in enumerate(sequence_ids) if sequence == 1]
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def answer_position(answers: dict[str, Any], offsets: list[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """First and last token of the first gold answer; (0, 0), the [CLS] token, if this window holds none.

    ``offsets``: the characters [from, to) of each token of the window. ``span``: the tokens of the context.
    """
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    stop = begin + len(answers["text"][0])
    first, last = span[0], span[1] - 1
    if last < first or offsets[first][0] > begin or offsets[last][1] < stop:
        return 0, 0
    start = max(i for i in range(first, last + 1) if offsets[i][0] <= begin)
    end = min(i for i in range(first, last + 1) if offsets[i][1] >= stop)
    return start, max(start, end)


def nearest(context: str, text: str, start: int) -> int | None:
    """Where ``text`` stands in ``context``, as near to ``start`` as can be; None if it does not."""
    if context[start : start + len(text)] == text and start >= 0:
        return start
    before, after = context.rfind(text, 0, max(start, 0) + len(text)), context.find(text, max(start, 0))
    places = [place for place in (before, after) if place >= 0]
    return min(places, key=lambda place: abs(place - start)) if places else None


def best_span(start: np.ndarray, end: np.ndarray, n_best: int, max_length: int) -> tuple[int, int, float] | None:
    """The (first token, last token, score) with the highest sum of logits, or None if no span is allowed.

    ``start``, ``end``: [tokens]. Only the ``n_best`` starts and ends take part, as in the reference implementation.
    """
    import numpy as np

    starts, ends = (np.argsort(-logits, kind="stable")[:n_best] for logits in (start, end))
    length = ends[None, :] - starts[:, None] + 1
    total = np.where((length >= 1) & (length <= max_length), start[starts][:, None] + end[ends][None, :], -np.inf)
    if total.size == 0 or np.isneginf(total.max()):
        return None
    i, j = np.unravel_index(int(total.argmax()), total.shape)
    return int(starts[i]), int(ends[j]), float(total[i, j])
