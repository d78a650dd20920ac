"""One row of the table of tags: a SparseML tag, the modifier that it stands for, and the names of their fields.

``read`` turns the fields of a recipe into modifiers, ``TagRow.write`` turns a modifier back into the fields. Both use
the same ``Argument`` list, so that what ``recipe.saved`` writes is what ``recipe.parsed`` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sparse_xp.modifiers import Modifier
from sparse_xp.recipe.fields import REQUIRED, Fields, Required
from sparse_xp.recipe.loader import TaggedMapping

#: what an argument is converted to, and the type of its default
T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)
class Argument:
    """A field of a tag (``key``) and the field of the modifier that it sets (``name``).

    ``key`` may be ``outer.inner``, a value in a mapping. ``read`` takes the value from the fields of a recipe.
    ``only_with``: the field counts only where another field of the modifier has this value. ``written``: False for a
    field that is read, and has always its default in a valid modifier.
    """

    key: str
    name: str
    read: Callable[[Fields], object]
    only_with: tuple[str, object] | None = None
    written: bool = True


def argument(
    key: str,
    convert: Callable[[object], T],
    default: D | Required = REQUIRED,
    *,
    name: str | None = None,
    only_with: tuple[str, object] | None = None,
) -> Argument:
    """Return a row for a value that ``convert`` checks. ``name``: of the modifier's field, by default ``key``."""
    return Argument(key, name or key, lambda fields: fields.take(key, convert, default), only_with)


#: the times that most tags have; where there is no default, SparseML required the field
START = Argument("start_epoch", "start", Fields.start)
END = Argument("end_epoch", "end", Fields.end)
START_REQUIRED = replace(START, read=lambda fields: fields.start(REQUIRED))
END_REQUIRED = replace(END, read=lambda fields: fields.end(REQUIRED))
UPDATE_FREQUENCY = Argument("update_frequency", "update_frequency", Fields.period)


@dataclass(frozen=True)
class TagRow:
    """A tag of SparseML.

    ``read``: makes the modifiers of the tag's fields; none for a tag that sets no more than the length of a run.
    ``modifier``: the class that is written under this tag; None if another tag is preferred. ``arguments``: the
    fields in the order in which they are written.
    """

    tag: str
    read: Callable[[Fields], Iterable[Modifier]]
    modifier: type[Modifier] | None = None
    arguments: tuple[Argument, ...] = ()

    def write(self, modifier: Modifier) -> TaggedMapping:
        """Return the tag with the fields that it has for ``modifier``. Fields that are None are left out.

        A tag may lack a field for some setting of a modifier. ``recipe.saved`` therefore parses the written tag again.
        """
        values = vars(modifier)
        fields: dict[str, object] = {}
        for each in self.arguments:
            value = values[each.name]
            if not each.written or value is None or not _counts(each, values):
                continue
            outer, _, inner = each.key.partition(".")
            value = -1 if isinstance(value, str) and value in ("100%", "1 steps") else value
            fields[outer] = {inner: value} if inner else value
        return TaggedMapping(self.tag, fields)


def read_arguments(fields: Fields, arguments: Sequence[Argument]) -> dict[str, Any]:
    """Return the values for the modifier's fields, by their names. Raises RecipeError."""
    values = {each.name: each.read(fields) for each in arguments}
    return {each.name: values[each.name] for each in arguments if _counts(each, values)}


def _counts(row: Argument, values: dict[str, object]) -> bool:
    return row.only_with is None or values[row.only_with[0]] == row.only_with[1]


def plain_tag(
    tag: str,
    modifier: type[Modifier],
    *arguments: Argument,
    ignored: Sequence[str] = (),
    fixed: dict[str, bool] | None = None,
    first: Callable[[Fields], None] | None = None,
) -> TagRow:
    """Return the row of a tag that is one modifier, field by field.

    ``ignored``: fields that SparseML accepts and does not use. ``fixed``: fields of the modifier that the tag sets
    without saying so. ``first``: called before the fields are read, to refuse or to remark on some of them.
    """

    def read(fields: Fields) -> Iterable[Modifier]:
        if first is not None:
            first(fields)
        fields.ignore(*ignored)
        yield modifier(**read_arguments(fields, arguments), **(fixed or {}))

    return TagRow(tag, read, modifier, arguments)
