"""Fill the directory that travels with the checkout: data sets, and MiniLM in half precision (``job.sh prepare``)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

#: the data sets, and the directory of a mirror that each of them comes from
DATA = {"sst2": "sst2", "qnli": "qnli", "conll2003": "conll2003", "squad": "squad", "wikipedia": "wiki_paragraphs"}
SPLITS = ("train.parquet", "validation.parquet")


def copy_data(mirror: Path, out: Path) -> None:
    """Copy the splits of each data set from ``mirror`` to ``out``."""
    for name, source in DATA.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            if (mirror / source / split).exists():
                shutil.copyfile(mirror / source / split, out / name / split)


def copy_model(model: Path, out: Path) -> None:
    """Copy configuration and tokenizer, and the weights as float16, which loading turns back into float32."""
    out.mkdir(parents=True, exist_ok=True)
    for pattern in ("config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt"):
        for path in model.glob(pattern):
            shutil.copyfile(path, out / path.name)
    weights = load_file(model / "model.safetensors")
    half = {name: weight.half() if weight.is_floating_point() else weight for name, weight in weights.items()}
    save_file(half, out / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    copy_data(Path(sys.argv[1]), Path(sys.argv[3]) / "data")
    copy_model(Path(sys.argv[2]), Path(sys.argv[3]) / "minilm")
