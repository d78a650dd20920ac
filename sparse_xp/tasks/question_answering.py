"""Extractive question answering in the manner of SQuAD v1.1 (Rajpurkar et al. 2016)."""

from __future__ import annotations

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
    """

    max_length: int = 384
    doc_stride: int = 128
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
            if without := [i for i, answer in enumerate(answers) if not answer["text"]]:
                raise UserError(
                    f"task {self.name}: training row {first + without[0]} (id {rows[self.id][without[0]]}) has no "
                    "answer; SQuAD v1.1 answers every question. Leave such rows out."
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
        from sparse_xp.metrics.scores import squad_scores

        ids, contexts = rows[self.id], rows[self.context]
        texts, scores = [""] * len(ids), [float("-inf")] * len(ids)
        for i, window in enumerate(features.select_columns(["row", "context_from", "offsets"])):
            row, first, offsets = window["row"], window["context_from"], window["offsets"]
            here = slice(first, first + len(offsets))
            found = best_span(
                outputs["start_logits"][i][here],
                outputs["end_logits"][i][here],
                self.n_best,
                self.max_answer_length,
            )
            if found and found[2] > scores[row]:
                start, end, scores[row] = found
                texts[row] = contexts[row][offsets[start][0] : offsets[end][1]]
        golds = [answer["text"] for answer in rows[self.answers]]
        return squad_scores(dict(zip(ids, texts, strict=True)), dict(zip(ids, golds, strict=True)))

    def embedded(self, split: str, rows: int) -> Rows:
        from sparse_xp.embedded import question_answering_rows

        made = question_answering_rows(split, rows)
        return {
            mine: made[theirs]
            for mine, theirs in zip(self.columns(), ("id", "question", "context", "answers"), strict=True)
        }


def context_span(sequence_ids: list[int | None]) -> tuple[int, int]:
    """The half-open range of tokens that belong to the second text of a pair; (0, 0) if there is none."""
    tokens = [i for i, sequence in enumerate(sequence_ids) if sequence == 1]
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def answer_position(answers: dict[str, Any], offsets: list[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """First and last token of the first gold answer, or (0, 0), the [CLS] token, if this window does not hold it.

    ``offsets``: the characters [from, to) of each token of the window. ``span``: the tokens of the context.
    """
    begin = answers["answer_start"][0]
    stop = begin + len(answers["text"][0])
    first, last = span[0], span[1] - 1
    if last < first or offsets[first][0] > begin or offsets[last][1] < stop:
        return 0, 0
    start = max(i for i in range(first, last + 1) if offsets[i][0] <= begin)
    end = min(i for i in range(first, last + 1) if offsets[i][1] >= stop)
    return start, max(start, end)


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
