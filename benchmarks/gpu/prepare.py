"""Fill the directory that travels with the checkout (``job.sh prepare``): data, texts, MiniLM in half precision."""

from __future__ import annotations

import lzma
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

#: the data sets, and the directory of a mirror that each of them comes from
DATA = {"sst2": "sst2", "qnli": "qnli", "conll2003": "conll2003", "squad": "squad", "wikipedia": "wiki_paragraphs"}
SPLITS = ("train.parquet", "validation.parquet")
#: files of a model besides its weights, those of sentence-transformers among them
FILES = (
    "config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip


def copy_data(mirror: Path, out: Path) -> None:
    """Copy the splits of each data set from ``mirror`` to ``out``."""
    for name, source in DATA.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            if (mirror / source / split).exists():
                shutil.copyfile(mirror / source / split, out / name / split)


def copy_model(model: Path, out: Path) -> None:
    """Copy configuration and tokenizer, and the weights as float16, which loading turns back into float32."""
    for pattern in FILES:
        for path in model.glob(pattern):
            copy = out / path.relative_to(model)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    weights = load_file(model / "model.safetensors")
    half = {name: weight.half() if weight.is_floating_point() else weight for name, weight in weights.items()}
    save_file(half, out / "model.safetensors", {"format": "pt"})


def pack_texts(texts: Path, out: Path) -> None:
    """Write the texts that embedding models learn from, one a line, to ``out``: a fifth of their size."""
    with texts.open("rb") as file, lzma.open(out, "wb") as packed:
        shutil.copyfileobj(file, packed)


if __name__ == "__main__":
    copy_data(Path(sys.argv[1]), Path(sys.argv[3]) / "data")
    copy_model(Path(sys.argv[2]), Path(sys.argv[3]) / "minilm")
    for given in sys.argv[4:]:
        pack_texts(Path(given), Path(sys.argv[3]) / "data" / "texts.txt.xz")
