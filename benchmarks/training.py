"""How much of a training run was waste?  python benchmarks/training.py --data DATA --model DIR --teacher RUN

Trains the same rows with the same model, batch size and recipe in several ways and prints examples per second over
those of the first: every row padded to the longest allowed, the teacher run at every step. Each way is a whole epoch
over the same rows, the ways take turns, and the medians over the rounds count. Storing the teacher's logits is paid
once a run and is shared out over --epochs. Also what the modifiers take of a step, and with --profile where the rest
goes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import sparse_xp.loop
import sparse_xp.run
import sparse_xp.teacher
from sparse_xp.__main__ import to_object
from sparse_xp.config import CONF
from sparse_xp.loop import Run, optimize, steps_of_epoch

#: each way is the one before it and one change
WAYS: dict[str, list[str]] = {
    "padded to the maximum, live teacher": ["train.group_by_length=false", "teacher.reuse_logits=false"],
    "padded to the longest of the batch": ["train.group_by_length=false", "teacher.reuse_logits=false"],
    "rows of like length together": ["train.group_by_length=true", "teacher.reuse_logits=false"],
    "teacher's logits stored": ["train.group_by_length=true", "teacher.reuse_logits=true"],
    "bf16": ["train.group_by_length=true", "teacher.reuse_logits=true", "train.precision=bf16"],
}
HOOKS = ("before_step", "loss", "before_update", "after_update")


class Measured(Exception):
    """An epoch is over; there is nothing more to know."""


def measure(words: list[str], place: Path, to_maximum: bool, profile: bool) -> dict[str, float]:
    """Seconds of an epoch (``epoch``), of storing the teacher's logits (``store``), of the hooks (``hooks``)."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(function: Any, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds[name] += time.perf_counter() - began

        return call

    def train(run: Run) -> None:
        steps = steps_of_epoch(run, 1)
        run.progress.step = run.clock.steps_per_epoch  # the second of two epochs: masks are being made
        optimize(run, steps[0])  # memory is got from the system once
        seconds.clear()
        for hook in HOOKS:
            # Distillation runs a live teacher inside its hook; that is no work of the modifier's own.
            setattr(run.recipe, hook, timed(getattr(run.recipe, hook), "hooks"))
        if run.teacher is not None:
            run.teacher = timed(run.teacher, "teacher")
        began = time.perf_counter()
        with torch.profiler.profile() if profile else nullcontext() as profiler:
            for batches in steps:
                optimize(run, batches)
                run.progress.step += 1
        seconds["epoch"] = time.perf_counter() - began
        if profiler:
            print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=45))
        raise Measured

    real = sparse_xp.loop.train, sparse_xp.loop.collate, sparse_xp.teacher.store_logits
    stored: dict[str, float] = {}

    def store(*arguments: Any) -> None:
        began = time.perf_counter()
        real[2](*arguments)
        stored["store"] = time.perf_counter() - began

    def padded(features: Any, rows: Any, columns: Any, padding: Any) -> Any:
        batch = real[1](features, rows, columns, padding)
        for name, value in batch.items():
            if value.ndim == 2:
                more = config.task.max_length - value.shape[1]
                batch[name] = torch.nn.functional.pad(value, (0, more), value=padding.get(name, 0))
        return batch

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = to_object(compose("config", overrides=[*words, f"data.cache={place}/cache"]))
    sparse_xp.loop.train, sparse_xp.teacher.store_logits = train, store
    if to_maximum:
        sparse_xp.loop.collate = padded
    try:
        sparse_xp.run.run(config, place / "run")
    except Measured:
        pass
    finally:
        sparse_xp.loop.train, sparse_xp.loop.collate, sparse_xp.teacher.store_logits = real
    return {**seconds, **stored}


def main() -> None:
    """Print one line a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a mirror of the data sets, as data.root=")
    parser.add_argument("--model", required=True, help="a model directory, as model.checkpoint=")
    parser.add_argument("--teacher", required=True, help="a dense run of the task, as teacher.path=")
    parser.add_argument("--task", default="squad")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=8, help="the epochs of the run that is imagined")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="where the time of the last way goes")
    options = parser.parse_args()
    words = [
        f"task={options.task}", f"task.max_train_samples={options.rows}", "task.max_eval_samples=8",
        "model=minilm", f"model.checkpoint={options.model}", f"data.root={options.data}", "recipe=gradual80",
        "teacher=checkpoint", f"teacher.path={options.teacher}", f"train.batch_size={options.batch}",
        f"train.threads={options.threads}", "train.precision=fp32", "train.epochs=2", "log=none",
    ]  # fmt: skip
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for number, (way, more) in enumerate(WAYS.items()):
            with tempfile.TemporaryDirectory() as place:
                found[way].append(measure([*words, *more], Path(place), to_maximum=number == 0, profile=False))
    if options.profile:
        with tempfile.TemporaryDirectory() as place:
            measure([*words, *more], Path(place), to_maximum=False, profile=True)
    lines = []
    first = 0.0
    for way, rounds in found.items():
        seconds = statistics.median(r["epoch"] + r.get("store", 0.0) / options.epochs for r in rounds)
        own = statistics.median((r["hooks"] - r.get("teacher", 0.0)) / r["epoch"] for r in rounds)
        speed = options.rows / seconds
        first = first or speed
        lines.append(f"{way:<38} {speed:6.2f} examples/s  {speed / first:5.2f}x   modifiers {own:.1%} of a step")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
