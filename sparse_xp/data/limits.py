"""Limits on how much is read of a user's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparse_xp.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Limits on a user's files: ``rows``, and ``bytes`` of a text file or of an unpacked parquet file.

    ``prefix``: stands before the keys ``max_rows=`` and ``max_gigabytes=`` in messages.
    """

    rows: int = 100_000_000
    bytes: int = 16_000_000_000
    prefix: str = "data."

    @classmethod
    def of(cls, max_rows: int | None, max_gigabytes: float | None, prefix: str = "data.") -> Limits:
        """Return the limits of the keys ``max_rows=`` and ``max_gigabytes=``; None: the default."""
        return cls(
            rows=cls.rows if max_rows is None else max_rows,
            bytes=cls.bytes if max_gigabytes is None else int(max_gigabytes * 10**9),
            prefix=prefix,
        )

    def check(self, path: Path, rows: int, size: int) -> None:
        """Raise UserError if ``path`` brings ``rows`` or ``size`` past the limit."""
        if rows > self.rows:
            raise UserError(
                f"{path}: more than {self.rows:,} rows. Give {self.prefix}max_rows= a larger number if they are meant."
            )
        if size > self.bytes:
            raise UserError(
                f"{path}: more than {self.bytes / 1e9:g} GB of data. Give {self.prefix}max_gigabytes= a larger number "
                "if they are meant."
            )


#: the limits by default
DEFAULT_LIMITS = Limits()


@dataclass
class Meter:
    """A count of what was read from one or several files, checked against their common limits."""

    limits: Limits
    rows: int = 0
    bytes: int = 0

    def add(self, path: Path, rows: int, size: int) -> None:
        """Count what was read of ``path``. Raises UserError past the limits."""
        self.rows += rows
        self.bytes += size
        self.limits.check(path, self.rows, self.bytes)

    def foresee(self, path: Path, rows: int, size: int) -> None:
        """Raise UserError if ``rows`` and ``size`` more would be past the limits."""
        self.limits.check(path, self.rows + rows, self.bytes + size)
