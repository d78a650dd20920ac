"""The texts that ``python -m sparse_xp`` prints without arguments and with ``--help``.

Hydra is not imported: help is there at once.
"""

from __future__ import annotations

import difflib
import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from sparse_xp.configuration import Key, KeySection, Option, default_options, first_sentence, group_options, sections
from sparse_xp.places import GROUPS

#: more hits than this are shown with one sentence each
FULL = 4


def welcome_text(conf: Path) -> str:
    """Return the text for a command without arguments: a first command to try, and the options of each group."""
    width = max(map(len, GROUPS))
    choices = "\n".join(
        f"  {group:<{width}}  {' '.join(sorted(path.stem for path in (conf / group).glob('*.yaml')))}"
        for group in GROUPS
    )
    return f"""sparse_xp: sparse, distilled, deployable BERT-class encoders.

Try first (a minute, nothing is fetched):
  python -m sparse_xp task=squad recipe=pruned80 profile=embedded

Choose one of each with GROUP=OPTION:
{choices}

Change any number with KEY=VALUE (train.epochs=4 recipe.sparsity=0.9), sweep with -m and commas (recipe=dense,pruned80).
`--help` explains every key, `--help WORD` those about a word; `--cfg job` prints the configuration of a command."""


def help_text(words: list[str]) -> tuple[str, bool]:
    """Return the answer to ``--help WORDS``, and whether anything was found. Without words: all groups and keys."""
    if not words:
        return _everything(), True
    found = list(_search(words))
    if found:
        return "\n".join(found), True
    near = difflib.get_close_matches(words[0].lower(), _vocabulary(), n=3, cutoff=0.6)
    advice = f" Did you mean {' or '.join(f'--help {word}' for word in near)}?" if near else ""
    return f"--help {' '.join(words)}: no group, option or key is about it.{advice} `--help` lists all of them.", False


def _everything() -> str:
    parts = ["sparse_xp: sparse, distilled, deployable BERT-class encoders.", ""]
    parts += ["Choose one option of each group (GROUP=OPTION; the default in brackets):", ""]
    defaults = default_options()
    for group in GROUPS:
        names = ", ".join(
            f"[{each.name}]" if each.name == defaults.get(group) else each.name for each in group_options(group)
        )
        parts += _wrapped(f"{group}: ", names, " " * (len(group) + 2))
    parts += ["", "Change any key (KEY=VALUE). A time is in epochs (2.5), '300 steps' or '10%' of the run."]
    for section in sections():
        parts += ["", *_heading(section), *(line for key in section.keys for line in _line(key))]
    return "\n".join([*parts, "", _LAST])


_LAST = """`--help WORD` explains what is about a word: --help warmup, --help train.warmup, --help recipe=pruned80.
`--cfg job` prints all values of a command. Sweep with -m and commas: recipe=dense,pruned80 seed=1,2.
hydra.run.dir=DIR is the directory of the run, hydra.sweep.dir=DIR that of a sweep (outputs).
--config-dir DIR adds a directory of options of your own; --hydra-help has the rest."""


def _search(words: list[str]) -> Iterator[str]:
    """Yield the lines of the answer: the option or the key that is written, else all that have every word."""
    wanted = [word.lower().lstrip("+~") for word in words]
    for option in _all_options():
        if [f"{option.group}={option.name}"] == wanted:
            yield from _option_in_full(option)
            return
    hits = [(section, key) for section in sections() for key in section.keys]
    keys = [(section, key) for section, key in hits if [key.path.lower()] == [wanted[0].partition("=")[0], *wanted[1:]]]
    if keys:
        yield from _sections_of(keys)
        return
    keys = [(section, key) for section, key in hits if _has(wanted, f"{section.title} {key.path}")]
    if wanted[0] in GROUPS:
        chosen = group_options(wanted[0])
    else:
        chosen = [each for each in _all_options() if _has(wanted, f"{each.group}={first_sentence(each.meaning)}")]
        chosen += [each for each in _all_options() if each not in chosen and _has(wanted, f"{each.group}={each.name}")]
        keys += [hit for hit in hits if hit not in keys and _has(wanted, hit[1].meaning)]
    for option in chosen:
        yield from _wrapped(f"{option.group}={option.name}  ", first_sentence(option.meaning), "    ")
    if chosen and keys:
        yield ""
    yield from _sections_of(keys)


def _sections_of(hits: list[tuple[KeySection, Key]]) -> Iterator[str]:
    """Yield the keys under the headings of their sections; a few of them in full."""
    last = None
    for section, key in hits:
        if section != last:
            yield from ([""] if last else [])
            yield from _heading(section)
            last = section
        yield from _line(key, len(hits) <= FULL)


def _has(wanted: list[str], text: str) -> bool:
    return all(word in text.lower() for word in wanted)


def _option_in_full(option: Option) -> Iterator[str]:
    """Yield what an option means, what it chooses and sets, and the keys that it has."""
    yield from _wrapped(f"{option.group}={option.name}: ", option.meaning, "  ")
    if chosen := option.chosen():
        yield from _wrapped("  chooses ", " ".join(f"{group}={name}" for group, name in chosen.items()), "    ")
    for key, value in _flat(option.settings()):
        yield f"  sets {key}={value}"
    for section in sections():
        if section.group == option.group and option.name in section.options:
            yield ""
            yield from _heading(section)
            for each in section.keys:
                yield from _line(each)


def _flat(settings: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if value is None or isinstance(value, bool) else value


def _heading(section: KeySection) -> list[str]:
    return _wrapped(f"{section.title}: ", first_sentence(section.meaning).replace("``", ""), "  ")


def _line(key: Key, full: bool = False) -> list[str]:
    """Return the lines for a key: name, type and default, then what it means."""
    head = f"  {key.path} ({key.type}{f', {key.default}' if key.default else ''})  "
    return _wrapped(head, (key.meaning if full else key.summary).replace("``", ""), " " * 6)


def _wrapped(head: str, text: str, indent: str) -> list[str]:
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 160))
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False) or [head]


def _all_options() -> list[Option]:
    return [option for group in GROUPS for option in group_options(group)]


def _vocabulary() -> list[str]:
    """Return the words that a search knows: keys, their parts, groups and options."""
    paths = [key.path for section in sections() for key in section.keys]
    parts = [part for path in paths for name in path.split(".") for part in (name, *name.split("_"))]
    names = [name for option in _all_options() for name in (option.name, f"{option.group}={option.name}")]
    return list(dict.fromkeys([*GROUPS, *parts, *paths, *names]))
