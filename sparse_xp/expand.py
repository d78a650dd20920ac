"""``python -m sparse_xp.expand``: give a model with removed heads and neurons its full shape again, with zeros.

    python -m sparse_xp.expand model=RUN/model out=DIR

For libraries that know only the stock shapes: the same logits, as large and as slow as the dense model was. Weights in
floating point; a ``quantization.json`` is not carried over.
"""

from __future__ import annotations

from pathlib import Path

from sparse_xp.cli import parse_key_values, require_keys, run_command
from sparse_xp.console import say, silence_libraries
from sparse_xp.errors import UserError
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.locks import file_lock
from sparse_xp.files.ownership import check_replaceable, is_empty

#: files of a model directory that are copied
COPIED = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")


def main(argv: list[str]) -> None:
    """Run the command."""
    values = parse_key_values(argv, ("model", "out"))
    require_keys(values, "model", "out")
    source, out = Path(values["model"]), Path(values["out"])
    check_replaceable(out, is_empty, "Name a directory that is not there yet.")
    from sparse_xp.functional.structured.config import removal_summary
    from sparse_xp.functional.structured.loading import expand_model
    from sparse_xp.models.reduced import load_reduced_model

    silence_libraries()
    model = load_reduced_model(source)
    taken = removal_summary(model)
    if taken is None:
        raise UserError(f"{source} has its full shape: nothing was removed from it.")
    expand_model(model)
    with file_lock(out, say), atomic_directory(out, "model") as draft:
        model.save_pretrained(draft)
        for path in {path for pattern in COPIED for path in source.glob(pattern)}:
            (draft / path.name).write_bytes(path.read_bytes())
    say(f"{out}: of {source}, {taken.description}; zeros stand there now")


if __name__ == "__main__":
    run_command(main, __doc__)
