"""``Pipeline``: a deployment folder that answers. onnxruntime, tokenizers and numpy; neither torch nor transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from sparse_xp.deployment.bundle import check_files, deployment_of, max_tokens, read_task
from sparse_xp.deployment.engines import AGAIN, check_graph, fixed_shape, infer, library, open_session
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.tasks import Pretraining, QuestionAnswering, TextClassification, TokenClassification, answers
from sparse_xp.tasks.answers import Answer, Asked, Outputs
from sparse_xp.verify import check_samples

Row = dict[str, Any]
log = logging.getLogger(__name__)

#: rows are sorted by length and answered in pools of one batch, two, four and so on, up to so many
POOL_BATCHES = 50


class Pipeline:
    """The task and the model of a deployment folder, or of a finished run's.

        pipeline = Pipeline("outputs/.../deployment")
        pipeline(question="Who wrote it?", context="Ada wrote it.")
        pipeline([{"question": ..., "context": ...}, ...])

    ``threads``: of onnxruntime, None for all cores. ``max_length``: tokens, None for the task's own. ``check``: compare
    the files with ``checksums.txt``. ``verify``: compute the samples, and compare them with those recorded where the
    folder was made. Raises UserError for a folder that is incomplete or corrupted, and for samples that differ.
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
        self.directory = deployment_of(Path(place))
        if check:
            check_files(self.directory)
        self.task, pad = read_task(self.directory)
        self.max_length = self.task.max_length if max_length is None else max_length
        check_length(self.directory, self.max_length)
        with library(self.directory / "tokenizer.json"):
            self.tokenizer = Tokenizer.from_file(str(self.directory / "tokenizer.json"))
            self.tokenizer.encode("a b", "c")  # some damage shows only here
        self.tokenizer.no_padding()
        self.session = open_session(self.directory / "model.onnx", threads)
        check_graph(self.directory / "model.onnx", self.session, self.task.outputs)
        if verify:
            check_samples(self.directory, lambda batch: infer(self.session, batch))
        tokens = fixed_shape(self.session)[1]
        if max_length and tokens and max_length > tokens:
            raise UserError(f"max_length={max_length}: the file was exported for {tokens} tokens (export.sequence).")
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.padding = {"input_ids": pad}
        self.mask = next((n for t in ("[MASK]", "<mask>") if (n := self.tokenizer.token_to_id(t)) is not None), -1)

    def __call__(self, rows: Sequence[Row] | Row | None = None, *, top: int | None = None, **texts: Any) -> Any:
        """The answer to one row (``question=..., context=...`` or a dict), or a list of them to a list of rows.

        ``top``: the N best labels. Raises UserError for a row without a text that the task needs, or with other names.
        """
        if rows is not None and not isinstance(rows, dict):
            if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
                raise UserError(f"{brief(rows)} is neither a row nor a list of rows: a row has {self.wanted}.")
            if texts:
                raise UserError(f"{min(texts)}= beside a list of rows: put it into the rows.")
            return list(self.stream(rows, top=top))
        row = {**(rows or {}), **texts}
        known = [name for names in self.texts for name in names]
        if other := next((name for name in texts if name not in known), None):
            raise UserError(f"{other}=: the task {self.task.name} takes {self.wanted}.{did_you_mean(other, known)}")
        return next(self.stream([row], top=top))

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """What a row must have, each with the names it may go by."""
        task = self.task
        if isinstance(task, QuestionAnswering):
            return [(task.question, "question"), (task.context, "context")]
        if isinstance(task, TextClassification):
            return [(task.text, "text"), *([(task.text_pair, "second")] if task.text_pair else [])]
        if isinstance(task, Pretraining):
            return [(task.text, "text")]
        assert isinstance(task, TokenClassification)
        return [(task.tokens, "tokens", "text")]

    @property
    def wanted(self) -> str:
        """The texts of a row in words."""
        return " and ".join(" or ".join(dict.fromkeys(names)) for names in self.texts)

    def stream(
        self,
        rows: Sequence[Row],
        *,
        batch: int = 32,
        top: int | None = None,
        errors: Literal["raise", "keep"] = "raise",
    ) -> Iterator[Answer]:
        """The answers in the order of the rows, ``batch`` encodings of like length at a time.

        ``errors``: for a row that cannot be answered ``raise`` a UserError that names it, or ``keep`` its place with
        ``{"error": message}`` and go on.
        """
        if batch < 1:
            raise UserError(f"batch={batch}: want at least 1.")

        def wrong(number: int, error: UserError) -> dict[str, Any]:
            if errors == "keep":
                return {"error": f"Row {number}: {error}"}
            raise UserError(f"Row {number}: {error}" if len(rows) > 1 else str(error)) from error

        # Small pools first: answers come soon, and few are lost where the process ends. Logits over a vocabulary are
        # large: no more rows of them than one batch are held at once.
        most = (1 if self.task.over_vocabulary else POOL_BATCHES) * batch
        begin, pool, cut = 0, batch, 0
        while begin < len(rows):
            told: dict[int, Answer] = {}
            asked: dict[int, Asked] = {}
            for number, row in enumerate(rows[begin : begin + pool], begin):
                try:
                    asked[number] = self.encode(row)
                except UserError as error:
                    told[number] = wrong(number, error)
            cut += sum(each.cut for each in asked.values())
            outputs = self.predict(list(asked.values()), batch)
            for (number, each), found in zip(asked.items(), outputs, strict=True):
                try:
                    told[number] = self.answer(each, found, top)
                except UserError as error:
                    told[number] = wrong(number, error)
            yield from (told[number] for number in sorted(told))
            begin, pool = begin + pool, min(2 * pool, most)
        if cut:
            log.warning("%d of %d rows were cut to %d tokens", cut, len(rows), self.max_length)

    def encode(self, row: Row) -> Asked:
        """The tokens of a row. Raises UserError for a text that is missing, or is none."""
        if isinstance(row, UserError):  # a line of a file that is no row
            raise row
        if not isinstance(row, Mapping):
            raise UserError(f"{brief(row)} is no row: want an object with {self.wanted}.")
        for number, key in enumerate(row):
            check_characters(str(key), f"the name of field {number}")
        found = {names: next((name for name in names if row.get(name) is not None), None) for names in self.texts}
        for names, name in found.items():
            if name is None:
                raise UserError(
                    f"No {' or '.join(dict.fromkeys(names))}: the task {self.task.name} needs {self.wanted}; "
                    f"there is {', '.join(map(str, row)) or 'nothing'}."
                )
            if not isinstance(row[name], str) and not isinstance(self.task, TokenClassification):
                raise UserError(f"{name}={brief(row[name])}: want a text.")
            if isinstance(row[name], str):
                check_characters(row[name], name)
        with library(self.directory / "tokenizer.json"):
            return self.tokens([row[name] for name in found.values() if name], next(iter(found.values())) or "")

    def tokens(self, values: list[Any], name: str) -> Asked:
        """The tokens of the texts of a row, of which the first has this name."""
        if isinstance(self.task, QuestionAnswering):
            return answers.windows(self.task, self.tokenizer, values, self.max_length)
        if isinstance(self.task, TextClassification | Pretraining):
            return answers.sentence(self.tokenizer, values, self.max_length)
        [value] = values
        if name == "text" and isinstance(value, str):
            places = [match.span() for match in answers.WORD.finditer(value)]
            return answers.words_of(self.tokenizer, value, places, self.max_length)
        words = value.split() if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UserError(f"{name}={brief(value)}: want words.")
        for number, word in enumerate(words):
            check_characters(word, f"word {number} of {name}")
        return answers.words_of(self.tokenizer, *answers.placed(words), self.max_length)

    def predict(self, asked: list[Asked], batch: int) -> list[Outputs]:
        """For each row the outputs of its encodings, without padding."""
        names = list(self.task.outputs)
        found: list[dict[str, list[Any]]] = [{n: [None] * len(each.encodings) for n in names} for each in asked]
        places = [(row, i) for row, each in enumerate(asked) for i in range(len(each.encodings))]
        places.sort(key=lambda place: -len(asked[place[0]].encodings[place[1]]))
        for begin in range(0, len(places), batch):
            chosen = places[begin : begin + batch]
            encodings = [asked[row].encodings[i] for row, i in chosen]
            arrays = self.collate(encodings)
            with library(self.directory / "model.onnx"):
                outputs = infer(self.session, arrays)
            for name in names:
                values = outputs[name]
                if not self.fits(name, values, len(encodings), len(encodings[0])):
                    raise UserError(
                        f"{self.directory}/model.onnx computes {name} of {values.dtype} {values.shape}, which is not "
                        f"what the task {self.task.name} of task.json takes. {AGAIN}"
                    )
                for (row, i), encoding, value in zip(chosen, encodings, values, strict=True):
                    found[row][name][i] = value[: len(encoding)] if self.task.per_token else value
        return found

    def fits(self, name: str, values: np.ndarray, rows: int, tokens: int) -> bool:
        """Whether the task can make answers of the output ``name`` for so many rows and tokens."""
        task, shape = self.task, list(values.shape[1:])
        if values.dtype.kind != "f" or len(values) != rows:
            return False
        if isinstance(task, QuestionAnswering):
            return len(shape) == 1 and shape[0] >= tokens
        if isinstance(task, TextClassification):
            return shape == [len(task.classes) or 1]
        if isinstance(task, Pretraining) and name != task.outputs[0]:
            return True  # looked at by nothing
        if len(shape) != 2 or shape[0] < tokens:
            return False
        return shape[1] == len(task.classes) if isinstance(task, TokenClassification) else shape[1] > 0

    def collate(self, encodings: list[Any]) -> dict[str, np.ndarray]:
        """int64 [rows, tokens] by the names of the graph's inputs, padded on the right to the longest row."""
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

    def answer(self, asked: Asked, outputs: Outputs, top: int | None) -> Answer:
        """What the task makes of the outputs. Raises UserError for those that are no numbers."""
        if not all(np.isfinite(each).all() for values in outputs.values() for each in values):
            raise UserError(f"{self.directory}/model.onnx computes nan or inf. {AGAIN}")
        if isinstance(self.task, QuestionAnswering):
            return answers.span(self.task, asked, outputs)
        if isinstance(self.task, TextClassification):
            return answers.labels(self.task, outputs, top)
        if isinstance(self.task, Pretraining):
            return answers.guesses(self.tokenizer, asked, outputs, self.mask, top)
        assert isinstance(self.task, TokenClassification)
        return answers.entities(asked, answers.tags(self.task.classes, asked, outputs))


def check_length(directory: Path, length: int) -> None:
    """Raise UserError if the model has no places for so many tokens, or a text would have none."""
    most = max_tokens(directory)
    if not 8 <= length <= most:
        raise UserError(f"max_length={length}: the model in {directory} takes at most {most} tokens; want 8 or more.")


def check_characters(text: str, where: str) -> None:
    """Raise UserError for a text that cannot be written as UTF-8, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start} is U+{ord(text[error.start]):04X}, half of a UTF-16 pair and not a "
            "character. Write the pair as the one character that it stands for, or leave it out."
        ) from error


def brief(value: Any) -> str:
    """A value that should have been another, in few characters."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return repr(value)
    if isinstance(value, str):
        return repr(value[:50])
    if isinstance(value, list | dict):
        return "[...]" if isinstance(value, list) else "{...}"
    return f"<{type(value).__name__}>"
