"""``Pipeline``: answers rows with a deployment folder. It needs neither torch nor transformers.

A row passes through the kind of its task and onnxruntime: ``Task.encode_row`` makes tokens of its texts, ``predict``
computes the outputs of several rows in batches, ``Task.decode`` makes an answer of them. The rows of ``rerank`` are a
query with each document, and ``Task.relevance`` makes a score of the outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from tokenizers import Tokenizer

from sparse_xp.deployment.bundle import max_tokens, read_task
from sparse_xp.deployment.engines import check_graph, fixed_shape, infer, open_session
from sparse_xp.deployment.folder import check_bundle_files, find_bundle
from sparse_xp.deployment.onnx_file import EXPORT_AGAIN, library_errors
from sparse_xp.deployment.samples import check_samples
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.metrics.ranking import order_by_score
from sparse_xp.tasks.answers import Answer, EncodedRow, NamedText, Outputs, brief, check_characters, checked_text

if TYPE_CHECKING:
    from tokenizers import Encoding

    from sparse_xp.tasks.base import Task

#: the texts of a row by name; a text alone where the task has one
Row = dict[str, Any] | str
T = TypeVar("T")
log = logging.getLogger(__name__)

#: rows are answered in pools of 1, 2, 4, ... batches, at most this many; a pool is sorted by length
POOL_BATCHES = 50


class Pipeline:
    """The task and the model of a deployment folder, or of a finished run's.

        pipeline = Pipeline("outputs/.../deployment")
        pipeline(question="Who wrote it?", context="Ada wrote it.")
        pipeline([{"question": ..., "context": ...}, ...])
        pipeline(["What a film.", ...])                      # a task on single texts
        pipeline.rerank("Who wrote it?", ["Ada wrote it.", ...])

    ``threads``: of onnxruntime, None for all cores. ``max_length``: in tokens, None for the task's own. ``check``:
    compare the files with ``checksums.txt``. ``verify``: compute the samples, and compare them with those recorded
    where the folder was made. Raises UserError for an incomplete or corrupted folder, and for samples that differ.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        threads: int | None = None,
        max_length: int | None = None,
        check: bool = True,
        verify: bool = False,
    ):
        self.directory = find_bundle(Path(place))
        if check:
            check_bundle_files(self.directory)
        self.task, pad = read_task(self.directory)
        self.max_length = self.task.max_length if max_length is None else max_length
        check_length(self.directory, self.max_length)
        with library_errors(self.directory / "tokenizer.json"):
            self.tokenizer = Tokenizer.from_file(str(self.directory / "tokenizer.json"))
            self.tokenizer.encode("a b", "c")  # some damage of the file shows only in use
        self.tokenizer.no_padding()
        self.session = open_session(self.directory / "model.onnx", threads)
        check_graph(self.directory / "model.onnx", self.session, self.task.outputs)
        if verify:
            check_samples(self.directory, lambda batch: infer(self.session, batch))
        tokens = fixed_shape(self.session)[1]
        if max_length and tokens and max_length > tokens:
            raise UserError(f"max_length={max_length}: the file was exported for {tokens} tokens (export.sequence).")
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.padding = {"input_ids": pad}

    # A text is also a sequence of texts to a type checker; the first signature that fits counts.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, rows: Row | None = None, *, top: int | None = None, **texts: object
    ) -> Answer: ...

    @overload
    def __call__(self, rows: Sequence[Row], *, top: int | None = None) -> list[Answer] | np.ndarray: ...

    def __call__(
        self, rows: Sequence[Row] | Row | None = None, *, top: int | None = None, **texts: object
    ) -> Answer | list[Answer]:
        """Answer one row (``question=..., context=...`` or a dict), or a list of rows with a list of answers.

        A row of a task on single texts may be the text alone. Embeddings are an array, [size] of one row and
        [rows, size] of a list.

        ``top``: return the N best. Raises UserError for a row that lacks a text of the task, and for unknown names.
        """
        if isinstance(rows, str) and self.reads_one_text:
            if texts:
                raise UserError(f"{min(texts)}= beside a text: say one of them.")
            return next(self.stream([rows], top=top))
        if rows is not None and not isinstance(rows, dict):
            if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
                raise UserError(f"{brief(rows)} is neither a row nor a list of rows: a row has {self.expected_texts}.")
            if texts:
                raise UserError(f"{min(texts)}= beside a list of rows: put it into the rows.")
            answers = list(self.stream(rows, top=top))
            return self.stack(answers) if self.task.embeds else answers
        row = {**(rows or {}), **texts}
        known = [name for names in self.text_names for name in names]
        if unknown := next((name for name in texts if name not in known), None):
            raise UserError(
                f"{unknown}=: the task {self.task.name} takes {self.expected_texts}.{did_you_mean(unknown, known)}"
            )
        return next(self.stream([row], top=top))

    @property
    def text_names(self) -> list[tuple[str, ...]]:
        """The texts that a row must have, for each the names it may go by."""
        return self.task.text_names()

    @property
    def expected_texts(self) -> str:
        """The names of ``text_names`` as a message lists them."""
        return expected_texts(self.task)

    @property
    def reads_one_text(self) -> bool:
        """Whether a row has one text, which needs no name."""
        return len(self.text_names) == 1

    def rerank(
        self, query: str, documents: Iterable[str], top: int | None = None, *, batch: int = 32
    ) -> list[dict[str, Any]]:
        """Return the documents, those that answer the query best first, as ``{"index": 7, "score": 0.9, "text": ...}``.

        ``index``: its place in ``documents``. ``score``: the higher the better: a probability for labels of 0 and 1,
        else a number on the scale of the labels. ``top``: return the N best. Documents of similar length are computed
        together, ``batch`` at a time. Raises UserError for a task that does not compare pairs of texts, an empty query,
        and no documents.
        """
        self.task.check_reranks()
        if not checked_text("query", query).strip():
            raise UserError("query is empty. Write a text.")
        if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
            raise UserError(f"documents={brief(documents)}: expected a list of texts.")
        texts = [checked_text(f"documents[{number}]", text) for number, text in enumerate(documents)]
        if not texts:
            raise UserError("documents is empty: there is nothing to rank.")
        if top is not None and top < 1:
            raise UserError(f"top={top}: expected at least 1.")
        asked, answering = (names[0] for names in self.text_names)
        rows: list[Row] = [{asked: query, answering: text} for text in texts]
        scores = list(self._compute(rows, batch, lambda _, outputs: self.task.relevance(outputs), None))
        order = order_by_score(np.array(scores))[:top]
        return [{"index": int(number), "score": scores[number], "text": texts[number]} for number in order]

    def stream(
        self,
        rows: Sequence[Row],
        *,
        batch: int = 32,
        top: int | None = None,
        errors: Literal["raise", "keep"] = "raise",
    ) -> Iterator[Answer]:
        """Yield the answers in the order of the rows, ``batch`` encodings of similar length at a time.

        ``errors``: for a row that cannot be answered, ``raise`` a UserError that names it, or ``keep`` its place with
        ``{"error": message}`` and go on.
        """

        def answer(row: EncodedRow, outputs: Outputs) -> Answer:
            return self.task.decode(row, outputs, self.tokenizer, top)

        def error_answer(error: UserError) -> Answer:
            return {"error": str(error)}

        return self._compute(rows, batch, answer, error_answer if errors == "keep" else None)

    def _compute(
        self,
        rows: Sequence[Row],
        batch: int,
        answer: Callable[[EncodedRow, Outputs], T],
        error_answer: Callable[[UserError], T] | None,
    ) -> Iterator[T]:
        """Yield what ``answer`` makes of the outputs of each row, in their order.

        ``error_answer``: makes an answer of the error of a row; None to raise it.
        """
        if batch < 1:
            raise UserError(f"batch={batch}: expected at least 1.")

        def failed(number: int, error: UserError) -> T:
            if error_answer:
                return error_answer(UserError(f"Row {number}: {error}"))
            raise UserError(f"Row {number}: {error}" if len(rows) > 1 else str(error)) from error

        # The first pools are small: answers come soon, and few are lost if the process ends. Logits over a vocabulary
        # are large: no more of them than one batch are held at once.
        largest = (1 if self.task.is_language_model else POOL_BATCHES) * batch
        begin, size, truncated = 0, batch, 0
        while begin < len(rows):
            answers: dict[int, T] = {}
            encoded: dict[int, EncodedRow] = {}
            for number, row in enumerate(rows[begin : begin + size], begin):
                try:
                    encoded[number] = self.encode(row)
                except UserError as error:
                    answers[number] = failed(number, error)
            truncated += sum(row.truncated for row in encoded.values())
            outputs = self.predict(list(encoded.values()), batch)
            for (number, encoded_row), row_outputs in zip(encoded.items(), outputs, strict=True):
                try:
                    self.check_finite(row_outputs)
                    answers[number] = answer(encoded_row, row_outputs)
                except UserError as error:
                    answers[number] = failed(number, error)
            yield from (answers[number] for number in sorted(answers))
            begin, size = begin + size, min(2 * size, largest)
        if truncated:
            log.warning("%d of %d rows were cut to %d tokens", truncated, len(rows), self.max_length)

    def encode(self, row: Row) -> EncodedRow:
        """Return the tokens of a row. Raises UserError for a missing text, or a value that is not text."""
        if isinstance(row, UserError):  # a line of a file that could not be read as a row
            raise row
        if isinstance(row, str) and self.reads_one_text:
            [names] = self.text_names
            row = {"text" if "text" in names else names[0]: row}
        if not isinstance(row, Mapping):
            raise UserError(f"{brief(row)} is no row: expected an object with {self.expected_texts}.")
        for number, key in enumerate(row):
            check_characters(str(key), f"the name of field {number}")
        texts = [self.find_text(row, names) for names in self.text_names]
        with library_errors(self.directory / "tokenizer.json"):
            return self.task.encode_row(texts, self.tokenizer, self.max_length)

    def find_text(self, row: Mapping[str, Any], names: tuple[str, ...]) -> NamedText:
        """Return the row's text under one of these names. Raises UserError if it has none of them."""
        for name in names:
            if row.get(name) is not None:
                return NamedText(name, row[name])
        raise UserError(
            f"No {' or '.join(dict.fromkeys(names))}: the task {self.task.name} needs {self.expected_texts}; "
            f"there is {', '.join(map(str, row)) or 'nothing'}."
        )

    def predict(self, rows: list[EncodedRow], batch: int) -> list[Outputs]:
        """Return for each row the outputs of its encodings, without padding.

        The encodings of all rows are sorted by length, so that the rows of a batch need little padding.
        """
        names = list(self.task.outputs)
        outputs: list[dict[str, list[Any]]] = [{n: [None] * len(row.encodings) for n in names} for row in rows]
        pending = [(row, i) for row, encoded in enumerate(rows) for i in range(len(encoded.encodings))]
        pending.sort(key=lambda item: -len(rows[item[0]].encodings[item[1]]))
        for begin in range(0, len(pending), batch):
            chosen = pending[begin : begin + batch]
            encodings = [rows[row].encodings[i] for row, i in chosen]
            arrays = self.collate(encodings)
            with library_errors(self.directory / "model.onnx"):
                computed = infer(self.session, arrays)
            for name in names:
                values = computed[name]
                if not self.accepts(name, values, len(encodings), len(encodings[0])):
                    raise UserError(
                        f"{self.directory}/model.onnx computes {name} of {values.dtype} {values.shape}, which is not "
                        f"what the task {self.task.name} of task.json takes. {EXPORT_AGAIN}"
                    )
                for (row, i), encoding, value in zip(chosen, encodings, values, strict=True):
                    outputs[row][name][i] = value[: len(encoding)] if self.task.per_token else value
        return outputs

    def accepts(self, name: str, values: np.ndarray, rows: int, tokens: int) -> bool:
        """Whether the task can make answers of the output ``name`` for so many rows and tokens."""
        if values.dtype.kind != "f" or len(values) != rows:
            return False
        return self.task.accepts_logits(name, values.shape[1:], tokens)

    def collate(self, encodings: list[Encoding]) -> dict[str, np.ndarray]:
        """Return int64 [rows, tokens] by the names of the graph's inputs, padded on the right to the longest row."""
        shape = len(encodings), max(map(len, encodings))
        arrays = {name: np.full(shape, self.padding.get(name, 0), np.int64) for name in self.inputs}
        for i, encoding in enumerate(encodings):
            columns = {
                "input_ids": encoding.ids,
                "attention_mask": encoding.attention_mask,
                "token_type_ids": encoding.type_ids,
            }
            for name, array in arrays.items():
                array[i, : len(encoding)] = columns[name]
        return arrays

    def check_finite(self, outputs: Outputs) -> None:
        """Raise UserError for outputs that are not finite."""
        if not all(np.isfinite(value).all() for values in outputs.values() for value in values):
            raise UserError(f"{self.directory}/model.onnx computes nan or inf. {EXPORT_AGAIN}")

    def stack(self, vectors: list[Any]) -> np.ndarray:
        """Return vectors [size] as an array [rows, size]; without any, the size is that of the graph's output."""
        if vectors:
            return np.stack(vectors)
        node = next(node for node in self.session.get_outputs() if node.name == self.task.outputs[0])
        size = node.shape[-1]
        return np.zeros((0, size if isinstance(size, int) else 0), np.float32)


def expected_texts(task: Task) -> str:
    """Return the names of the texts that a row must have, as a message lists them."""
    return " and ".join(" or ".join(dict.fromkeys(names)) for names in task.text_names())


def check_length(directory: Path, length: int) -> None:
    """Raise UserError if the model cannot read texts of ``length`` tokens, or ``length`` leaves no room for one."""
    most = max_tokens(directory)
    if length < 8 or (most is not None and length > most):
        limit = "any number of tokens" if most is None else f"at most {most} tokens"
        raise UserError(f"max_length={length}: the model in {directory} takes {limit}; expected 8 or more.")
