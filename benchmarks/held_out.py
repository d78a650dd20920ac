"""Rows that a run was not trained on, as a mirror:  python benchmarks/held_out.py DATA OUT [--used 10000] [--words 14]

Of SST-2's training rows those beyond the ``--used`` that ``task.max_train_samples`` takes, of so many words or more, up
to ``--rows``. They become OUT/sst2/validation.parquet; a run is scored on them by

    python -m sparse_xp.export run=RUN data.root=OUT out=DIR

The dev split has 872 rows, on which a score moves by a point between trainings that differ in their seed alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import load_dataset

from sparse_xp.tasks.rows import permutation


def main() -> None:
    """Write the file, and say how many rows it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--used", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=14)
    parser.add_argument("--rows", type=int, default=2500)
    options = parser.parse_args()
    rows = load_dataset("parquet", data_files=str(options.data / "sst2/train.parquet"), split="train")
    order, sentences = permutation(len(rows)), rows["sentence"]
    unused = (number for number in order[options.used :] if len(sentences[number].split()) >= options.words)
    chosen = [number for number, _ in zip(unused, range(options.rows), strict=False)]
    (options.out / "sst2").mkdir(parents=True, exist_ok=True)
    rows.select(chosen).to_parquet(str(options.out / "sst2/validation.parquet"))
    print(f"{options.out}/sst2/validation.parquet: {len(chosen)} rows")


if __name__ == "__main__":
    main()
