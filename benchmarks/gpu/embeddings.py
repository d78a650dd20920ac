"""The part ``embeddings``: all-MiniLM-L6-v2 itself, pruned and quantized on unlabelled texts, runs side by side.

All runs begin at once where there are slots for them. They have the same features and teacher: the first to need these
makes them, and the others wait for it.
"""

from __future__ import annotations

import lzma
import shutil
import sys
from pathlib import Path

from benchmarks.gpu.embedding_cells import EmbeddingCell, embedding_cells
from benchmarks.gpu.processes import ENDED, Job
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.tables import AROUND, quoted, read_earlier, run_and_report

#: the rate of one run at which a cell is begun if it can end in time
STEPS_PER_SECOND = 30.0
#: what a rehearsal changes: a few steps on a few rows
FEW = (
    "train.steps=10", "train.warmup=0", "train.batch_size=4", "task.max_train_samples=30", "task.max_eval_samples=12",
    "train.threads=1", "train.eval_every=100%",
)  # fmt: skip


def embeddings(settings: Settings, until: float) -> list[str]:
    """Make the cells that no earlier occasion has finished, and return the table of all."""
    texts = unpack_texts(settings)
    found = read_earlier(settings)
    cells = [cell for cell in embedding_cells() if found.get(cell.name, {}).get("state") != ENDED]
    jobs = {cell.name: job_of(settings, cell, texts) for cell in cells}
    return run_and_report(settings, jobs, found, until)


def unpack_texts(settings: Settings) -> Path:
    """Return the file of texts, one a line, unpacked where it travelled as ``texts.txt.xz``."""
    path = settings.data / "texts.txt"
    if path.exists():
        return path
    unpacked = settings.work / "texts.txt"
    with lzma.open(settings.data / "texts.txt.xz") as packed, unpacked.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return unpacked


def job_of(settings: Settings, cell: EmbeddingCell, texts: Path) -> Job:
    """Return the job of a cell."""
    place = settings.work / "tables" / cell.name
    words = [*cell.overrides(settings.steps), f"data.train={texts}", f"data.cache={settings.work / 'cache'}"]
    words += [f"model.checkpoint={settings.minilm}", f"hydra.run.dir={quoted(place)}"]
    if cell.needs_latencies:
        words.append(f"sparsity.latency={settings.inputs / 'latency.json'}")
    command = [sys.executable, "-m", "sparse_xp", *words, *(FEW if settings.rehearsal else ())]
    expected = 0.0 if settings.rehearsal else AROUND + settings.steps / STEPS_PER_SECOND
    return Job(cell.name, command, settings.work / "logs" / f"{cell.name}.txt", expected=expected)
