"""The long forms of what the suite tries in short: kills, recipes, files of rows, texts. ``make torture`` runs it.

    python -m tests.torture [kills=300] [recipes=100000] [files=20000] [texts=20000] [seed=1]

Everything is drawn from the seed. It ends with the counts, and with exit code 1 if something else came out than a
result or an error in words.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparse_xp.cli import parse_key_values, positive_integer
from sparse_xp.errors import UserError
from tests.kills import KINDS
from tests.runs import HANGS

COUNTS = {"kills": 300, "recipes": 100_000, "files": 20_000, "texts": 20_000, "seed": 1}
#: trials of one process of ``tests.kills``
TOGETHER = 25


def kills(seed: int, count: int) -> Iterator[str]:
    """Runs of every kind that are killed before a file operation drawn at random, then continued."""
    chance = random.Random(seed)
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    most: dict[str, int] = {}
    made = 0
    while made < count:
        for kind in KINDS:
            wanted = min(TOGETHER, count - made) if kind in most else 0
            operations = [str(chance.randint(1, most[kind])) for _ in range(wanted)]
            with tempfile.TemporaryDirectory() as place:
                words = [sys.executable, "-m", "tests.kills", f"{place}/trials", kind, *operations]
                done = subprocess.run(
                    words, capture_output=True, text=True, check=False, timeout=HANGS * 4, env=environment
                )
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            if done.returncode or not lines:
                yield f"{kind}: ended with {done.returncode}: {done.stderr[-2000:]}"
                return
            most[kind] = lines[0]["operations"]
            for trial in lines[1:]:
                made += 1
                good = trial["codes"][1] == 0 and not trial["difference"] and not trial["left"]
                killed = "killed, continued, the same" if trial["codes"][0] == -9 else "not killed, the same"
                yield killed if good else f"{kind}: {json.dumps(trial)}"


def recipes(seed: int, count: int) -> Iterator[str]:
    """Recipes that were damaged at random: a plan or an error in words."""
    from sparse_xp.recipe.parsed import parse_modifiers
    from sparse_xp.recipe.text import read_recipe
    from tests import fuzz_recipes

    for text in fuzz_recipes.recipes(seed, count):
        yield outcome(lambda text=text: parse_modifiers(read_recipe(text)), text)


def files(seed: int, count: int) -> Iterator[str]:
    """Files of rows that were damaged at random: rows or an error in words."""
    from sparse_xp.data.readers import read_file
    from tests.fuzz_rows import damaged_files

    with tempfile.TemporaryDirectory() as place:
        for name, data in damaged_files(seed, count):
            path = Path(place) / name
            path.write_bytes(data)
            yield outcome(lambda path=path: read_file(path), (name, data))
            path.unlink()


def texts(seed: int, count: int) -> Iterator[str]:
    """Rows with any texts, surrogates among them, through a deployment folder: answers or errors in words."""
    from sparse_xp import Pipeline
    from sparse_xp.run import run
    from tests.fuzz_texts import rows
    from tests.runs import SHORT, configure

    with tempfile.TemporaryDirectory() as place:
        config = configure(*SHORT, "task=sst2", "recipe=dense", f"data.cache={place}/cache")
        run(config, Path(place) / "run", show=False)
        pipeline = Pipeline(Path(place) / "run")
        names = [name for alike in pipeline.text_names for name in alike]
        for row in rows(seed, count, names):
            yield outcome(lambda row=row: pipeline(row), row)


def outcome(act: Callable[[], Any], given: Any) -> str:
    """What came of it; for what must not be, with what it came of."""
    try:
        act()
    except UserError as error:
        return "an error in words" if len(str(error)) < 2100 else f"a long message: {given!r:.300}"
    except Exception:
        return f"{traceback.format_exc()[-1500:]}\nof {given!r:.600}"
    return "a result"


def main(words: list[str]) -> None:
    """Run the command with these words."""
    options = parse_key_values(words, COUNTS)
    given = COUNTS | {key: 0 if value == "0" else positive_integer(key, value) for key, value in options.items()}
    seed, failed = given.pop("seed"), False
    expected = ("a result", "an error in words", "killed, continued, the same", "not killed, the same")
    for kind, count in given.items():
        if not count:
            continue
        began, counts = time.perf_counter(), Counter[str]()
        for number, found in enumerate(globals()[kind](seed, count), 1):
            counts[found if found in expected else "WRONG"] += 1
            if number % max(1, count // 10) == 0:
                print(f"{kind}: {number:,} of {count:,}, {counts['WRONG']} wrong", file=sys.stderr, flush=True)
            if found not in expected:
                failed = True
                print(f"{kind}: {found}", flush=True)
        told = ", ".join(f"{number:,} {what}" for what, number in counts.most_common())
        print(f"{kind}: {told} in {time.perf_counter() - began:.0f} s (seed {seed})", flush=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
