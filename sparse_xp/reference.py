"""Print docs/configuration.md: every group, option and key of the configuration.

Usage::

    python -m sparse_xp.reference > docs/configuration.md

The texts are those of ``--help``: the comments of ``conf/`` and the docstrings of the dataclasses.
"""

from __future__ import annotations

from sparse_xp.cli import check_key, run_command
from sparse_xp.configuration import Key, KeySection, default_options, first_sentence, group_options, sections
from sparse_xp.places import GROUPS

INTRODUCTION = """# Configuration

Every group, option and key. `python -m sparse_xp --help` prints the same, `--help WORD` what is about a word. This page
is written by `python -m sparse_xp.reference > docs/configuration.md`, from the docstrings of the dataclasses and the
comments in `conf/`.

A command chooses one option of a group (`recipe=pruned80`) and changes keys (`train.epochs=4`). A time is a number of
epochs (`2.5`), `'300 steps'`, or a part of the run (`10%`). The default of a key is that of its dataclass: options and
recipes set others, and `--cfg job` prints the values of a command.
"""


def reference() -> str:
    """Return docs/configuration.md."""
    parts = [INTRODUCTION, "## Groups and their options"]
    defaults = default_options()
    for group in GROUPS:
        rows = [
            f"| `{group}={each.name}`{' (default)' if each.name == defaults.get(group) else ''} "
            f"| {_cell(first_sentence(each.meaning))} |"
            for each in group_options(group)
        ]
        parts.append("\n".join([f"### {group}\n", "| option | what it is |", "|---|---|", *rows]))
    parts.append("## Keys")
    parts += [_section(section) for section in sections()]
    return "\n\n".join(part.strip() for part in parts)


def _section(section: KeySection) -> str:
    lines = [f"### `{section.title}`" if "=" in section.title else f"### {section.title}", ""]
    if section.meaning:
        lines += [_plain(section.meaning), ""]
    return "\n".join([*lines, "| key | type | default | meaning |", "|---|---|---|---|", *map(_row, section.keys)])


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default else ""
    return f"| `{key.path}` | {_cell(key.type)} | {_cell(default)} | {_cell(_plain(key.meaning))} |"


def _plain(text: str) -> str:
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(argv: list[str]) -> None:
    """Print the page."""
    for word in argv:
        check_key(word, ["--help"])
    print(reference())


if __name__ == "__main__":
    run_command(main, __doc__, needs_arguments=False)
