"""Types of columns that a kind of task can require (``Task.column_types``); tasks/rows.py checks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# pyarrow is imported late: composing a configuration loads this module, and must not load pyarrow.
if TYPE_CHECKING:
    from pyarrow import DataType


@dataclass(frozen=True)
class ColumnType:
    """A type of column: how a message describes it, and which Arrow types match."""

    description: str
    matches: Callable[[DataType], bool]


def _is_text(found: DataType) -> bool:
    from pyarrow import types

    return any(test(found) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))


def _is_text_or_integer(found: DataType) -> bool:
    from pyarrow import types

    return _is_text(found) or bool(types.is_integer(found))


def _is_text_or_number(found: DataType) -> bool:
    from pyarrow import types

    return _is_text_or_integer(found) or bool(types.is_floating(found))


def _is_integer(found: DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(found) or types.is_null(found))


def _is_scalar(found: DataType) -> bool:
    from pyarrow import types

    is_bytes = any(test(found) for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary))
    return not types.is_nested(found) and not is_bytes


def _is_list(found: DataType, is_item: Callable[[DataType], bool]) -> bool:
    from pyarrow import types

    list_tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(found) for test in list_tests) and is_item(found.value_type)


def _is_squad_answers(found: DataType) -> bool:
    """Whether a column has SQuAD's answers: a struct of two lists."""
    from pyarrow import types

    if not types.is_struct(found):
        return False
    parts: dict[str, Any] = {found.field(i).name: found.field(i).type for i in range(found.num_fields)}
    return (
        {"text", "answer_start"} <= set(parts)
        and _is_list(parts["text"], _is_text)
        and _is_list(parts["answer_start"], _is_integer)
    )


def check_roles(roles: dict[str, str | None]) -> None:
    """Raise ValueError if two keys of the configuration name the same column. ``roles``: the column of each key."""
    seen: dict[str, str] = {}
    for key, column in roles.items():
        if column is None:
            continue
        if column in seen:
            raise ValueError(f"{seen[column]}={column} and {key}={column} name the same column. Each needs its own.")
        seen[column] = key


TEXT = ColumnType("texts", _is_text)
TEXT_OR_INTEGER = ColumnType("texts or whole numbers", _is_text_or_integer)
ONE_CLASS = ColumnType("one class a row (task.problem=multi_label takes lists)", _is_scalar)
#: lists may also be printed into texts, as in CSV
TEXTS = ColumnType("lists of texts", lambda found: _is_list(found, _is_text) or _is_text(found))
TAGS = ColumnType(
    "lists of texts or whole numbers", lambda found: _is_list(found, _is_text_or_number) or _is_text(found)
)
SQUAD_ANSWERS = ColumnType('{"text": [texts], "answer_start": [whole numbers]}', _is_squad_answers)
