"""``python -m sparse_xp.expand``: a model that heads and neurons were removed from in its full shape again, with zeros.

    python -m sparse_xp.expand model=RUN/model out=DIR

For libraries that know only the stock shapes: the same logits, as large and as slow as the dense model was. Weights in
floating point; a ``quantization.json`` is not carried over.
"""

from __future__ import annotations

from pathlib import Path

from sparse_xp.cli import command, split
from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.files import claim, is_empty, one_at_a_time, whole_directory

#: files of a model directory that are not written anew
OTHERS = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")


def main(words: list[str]) -> None:
    """Run the command with these words."""
    given = split(words, ("model", "out"))
    for name in ("model", "out"):
        if name not in given:
            raise UserError(f"{name}= is missing.")
    place, out = Path(given["model"]), Path(given["out"])
    claim(out, is_empty, "Name a directory that is not there yet.")
    from sparse_xp.console import hush_libraries
    from sparse_xp.functional.structured import expand, removed
    from sparse_xp.models.reduced import load

    hush_libraries()
    model = load(place)
    taken = removed(model)
    if taken is None:
        raise UserError(f"{place} has its full shape: nothing was removed from it.")
    expand(model)
    with one_at_a_time(out, say), whole_directory(out, "model") as draft:
        model.save_pretrained(draft)
        for path in {path for pattern in OTHERS for path in place.glob(pattern)}:
            (draft / path.name).write_bytes(path.read_bytes())
    say(f"{out}: of {place}, {taken.told()}; zeros stand there now")


if __name__ == "__main__":
    command(main, __doc__)
