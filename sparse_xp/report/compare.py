"""Compare the rows of a table: each with its dense reference and its published number, and what forbids a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_xp.promises import TOLERANCE
from sparse_xp.report.rows import Row
from sparse_xp.sweep.cells import Published
from sparse_xp.text import rows_used

#: the caveat of a run on generated data
EMBEDDED = "embedded profile: generated data, a tiny model"


@dataclass(frozen=True)
class ComparedRow(Row):
    """A row, and the numbers to compare it with.

    ``caveats``: how it differs from the cell whose number was published. ``dense``: the mean score of its dense
    reference, None if the table has none.
    """

    caveats: tuple[str, ...] = ()
    published: Published | None = None
    dense: float | None = None

    @property
    def difference(self) -> float | None:
        """Our mean score minus the published one, in points."""
        return None if self.published is None or self.mean is None else self.mean - self.published.published

    @property
    def recovery(self) -> float | None:
        """The mean score in per cent of the dense reference's."""
        return None if not self.dense or self.mean is None else 100 * self.mean / self.dense

    @property
    def verdict(self) -> str:
        """``pass`` or ``fail`` by the tolerance of the published number; ``not comparable`` if there are caveats."""
        if self.published is None or self.difference is None:
            return ""
        if self.caveats:
            return "not comparable"
        return "pass" if self.difference >= -self.published.tolerance else "fail"


def compare(rows: Sequence[Row], published: Sequence[Published]) -> list[ComparedRow]:
    """Return the rows with their references; a row is repeated for each further metric with a published number."""
    return [compared for row in rows for compared in compare_row(row, dense_score(row, rows), published)]


def compare_row(row: Row, dense: float | None, published: Sequence[Published]) -> list[ComparedRow]:
    """Return the row beside the number of its own metric, then once more for each number of another metric.

    A row without results has no metric yet and gets that of its first published number.
    """
    numbers = numbers_of(row, published)
    metric = row.metric or (numbers[0].metric if numbers else "")
    own = next((number for number in numbers if number.metric == metric), None)
    caveats = caveats_of(row, numbers)
    # The dense reference was scored in the first metric, so the further ones have no recovery.
    cases = [(metric, own, dense)]
    cases += [(number.metric, number, None) for number in numbers if number is not own]
    return [
        ComparedRow(**vars(row) | {"metric": name}, caveats=caveats, published=number, dense=reference)
        for name, number, reference in cases
    ]


def dense_score(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the score of the dense run that a row is measured by; None for a dense run itself.

    Of several it is the row's teacher, else one of the same model, else any of the same task and profile.
    """
    if is_dense(row):
        return None
    candidates = [
        other
        for other in rows
        if other is not row and is_dense(other) and (other.task, other.profile) == (row.task, row.profile)
    ]
    if not candidates:
        return None
    teachers = {Path(result.teacher).name for result in row.results if result.teacher}

    def closeness(other: Row) -> tuple[bool, bool]:
        is_teacher = bool(teachers & {directory.name for directory in other.directories})
        return is_teacher, other.model == row.model

    return max(candidates, key=closeness).mean


def is_dense(row: Row) -> bool:
    """Return whether the row is of finished runs whose models are dense and in floating point, by what was measured."""
    measured = [result.sparsity for result in row.results]
    whole = all(each.prunable <= TOLERANCE and each.removed is None for each in measured)
    return row.recipe == "dense" and row.quantization == "none" and bool(measured) and whole


def numbers_of(row: Row, published: Sequence[Published]) -> list[Published]:
    """Return the published numbers that may stand beside a row.

    These are the numbers of its own model. If its model has none and exactly one other model has numbers, these are
    that model's, and the row gets a caveat. If several other models have numbers, only those without a model remain.
    """
    numbers = [number for number in published if (number.task, number.cell) == (row.task, row.cell)]
    models = {number.model for number in numbers}
    if row.model in models:
        return [number for number in numbers if number.model == row.model]
    if len(models) > 1:
        return [number for number in numbers if number.model is None]
    return numbers


def caveats_of(row: Row, numbers: Sequence[Published]) -> tuple[str, ...]:
    """Return every reason, once, why the row must not be taken for the cell whose ``numbers`` were published."""
    caveats = [EMBEDDED] if row.profile == "embedded" else []
    # The first caveat says already that the profile is another.
    changed = [word for word in row.changed if not (row.profile == "embedded" and word.startswith("profile="))]
    caveats += [f"changed: {' '.join(changed)}"] if changed else []
    for result in row.results:
        training = result.training
        caveats += [EMBEDDED] if result.profile == "embedded" else []
        if training.train_rows < training.train_rows_of:
            caveats.append(f"trained on {rows_used(training.train_rows, training.train_rows_of)} rows")
        if training.eval_rows < training.eval_rows_of:
            caveats.append(f"scored on {rows_used(training.eval_rows, training.eval_rows_of)} rows")
    model = next((number.model for number in numbers if number.model), None)
    if model and row.profile == "full" and row.model != model:
        caveats.append(f"{row.model} instead of {model}")
    return tuple(dict.fromkeys(caveats))
