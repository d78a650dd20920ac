"""Runs that are killed before a file operation of theirs, then continued, and compared with one that was not.

    python -m tests.kills PLACE KIND [OPERATION ...]

Each trial is a fork of this process, which has paid for the imports. An operation is a number (the n-th of the run), or
``EVENT:PART[:N]``: the n-th whose path has PART in it. One line of JSON for each trial.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_xp.config import Config
from sparse_xp.run import run
from tests.runs import SHORT, configure, difference, without_export

#: what changes files, as the interpreter reports it before it is done (``os.rename`` is ``os.replace`` too)
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")

#: six kinds of run, each with other files and other state
KINDS: dict[str, tuple[str, ...]] = {
    "dense": ("task=sst2", "recipe=dense"),
    "pruned": ("task=squad", "recipe=gradual80", "teacher=none"),
    "distilled": ("task=sst2", "recipe=gradual80", "teacher=self", "model.checkpoint=TEACHER"),
    "structured": ("task=sst2", "recipe=structured50", "teacher=none"),
    "integers": ("task=sst2", "recipe=gradual80", "teacher=none", "quantization=int8"),
    "entities": ("task=conll2003", "recipe=gradual80", "teacher=none", "sparsity=movement"),
}
WORDS = (
    *SHORT,
    *("data.embedded_train_rows=32", "data.embedded_eval_rows=16", "train.epochs=2"),
    *("train.save_every=1 steps", "train.eval_every=2 steps"),
)


def forked(work: Callable[[], Any], log: Path) -> int:
    """The exit code of a fork that does ``work``, negative for a signal; what it prints goes to ``log``."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def changes_files(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The path that an event is about to change, None if it changes none."""
    if event not in EVENTS or not arguments or not isinstance(arguments[0], str | os.PathLike):
        return None
    if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        return None
    paths = arguments[:1] if event == "open" else arguments[:2]
    return " ".join(os.path.abspath(each) for each in paths if isinstance(each, str | os.PathLike))


def before(operation: str, place: Path, then: Callable[[int, str], None]) -> None:
    """From now on call ``then`` before the ``operation`` of this process on files below ``place``."""
    wanted, _, rest = operation.partition(":")
    part, _, times = rest.partition(":")
    number, seen = (int(wanted), 0) if wanted.isdecimal() else (int(times or 1), 0)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        path = changes_files(event, arguments)
        if path is None or str(place) not in path:
            return
        if wanted.isdecimal() or (event.removeprefix("os.") == wanted and part in path):
            seen += 1
            if seen == number:
                then(seen, f"{event} {path}")

    sys.addaudithook(hook)


def die(number: int, told: str) -> None:
    """End this process at once."""
    print(f"killed before {told}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def configured(kind: str, place: Path) -> Config:
    """The configuration of a kind of run, with a cache that is its own."""
    words = [word.replace("TEACHER", str(place.parent / "teacher")) for word in KINDS[kind]]
    return configure(*WORDS, *words, "data.cache=cache")


def make(config: Config, place: Path) -> None:
    """The run in ``place/run``, without its export, whose folder is made and replaced as ``model/`` is."""
    os.chdir(place)
    with without_export():
        run(config, Path("run"))


def trial(config: Config, place: Path, operation: str, straight: Path) -> dict[str, Any]:
    """One run that is killed, and continued in another process."""
    log = place / "log.txt"

    def killed() -> None:
        before(operation, place, die)
        make(config, place)

    first = forked(killed, log)
    second = forked(lambda: make(config, place), log)
    told = [line for line in log.read_text().splitlines() if line.startswith("killed before")]
    return {
        "operation": operation,
        "killed": told[-1] if told else None,
        "codes": [first, second],
        "difference": difference(straight, place / "run") if second == 0 else "it did not finish",
        "left": [str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith((".tmp", ".old"))],
    }


def main(place: Path, kind: str, operations: list[str]) -> None:
    """Make the run that is not killed, then one trial for each operation."""
    straight = place / "straight"
    straight.mkdir(parents=True)
    if "TEACHER" in str(KINDS[kind]):
        made = place / "made"
        made.mkdir()
        make(configured("dense", made), made)
        os.rename(made / "run" / "model", place / "teacher")
    count = 0

    def counting(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        count += str(straight) in (changes_files(event, arguments) or "")

    # In this process, so that the forks have all that it imports on the way.
    sys.addaudithook(counting)
    make(configured(kind, straight), straight)
    print(json.dumps({"operations": count}), flush=True)
    gc.freeze()  # what is shared with the forks stays shared
    for number, operation in enumerate(operations, 1):
        here = place / f"trial-{number}"
        here.mkdir()
        print(json.dumps(trial(configured(kind, here), here, operation, straight / "run")), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:])
