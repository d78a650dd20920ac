"""How much of a training run was waste?  python benchmarks/training.py --data DATA --model DIR --teacher RUN

Trains with the same model, batch size and recipe in several ways and prints examples per second over those of the
first: every row padded to the longest allowed, the teacher run at every step, dropout and AdamW as PyTorch has them.
Each way makes --batches optimizer steps out of an epoch over --rows, drawn by a seed from all of its steps; the ways
take turns, and the medians over the rounds count. Storing the teacher's logits is paid once a run and is shared out
over --epochs. Also what the modifiers take of a step, how much of the tokens is padding, and with --profile where the
rest goes.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import sparse_xp.run
import sparse_xp.training.loop
import sparse_xp.training.state
import sparse_xp.training.teacher
from sparse_xp.compose import to_object
from sparse_xp.config import register
from sparse_xp.functional.dropout import cheap_dropout
from sparse_xp.functional.padding_mask import unread_masks
from sparse_xp.places import CONF
from sparse_xp.training.loop import steps_of_epoch, train_step
from sparse_xp.training.state import Run
from sparse_xp.training.steps import prepare_step, prepared_steps
from sparse_xp.training.teacher import LiveTeacher

GROUPED, STORED = "train.group_by_length=true", "teacher.reuse_logits=true"
APART, LIVE = "train.group_by_length=false", "teacher.reuse_logits=false"
PLAIN = "dropout and AdamW of PyTorch"
#: each way is the one before it and one change
WAYS: dict[str, list[str]] = {
    "padded to the maximum, live teacher": [APART, LIVE, PLAIN],
    "padded to the longest of the batch": [APART, LIVE, PLAIN],
    "rows of like length together": [GROUPED, LIVE, PLAIN],
    "teacher's logits stored": [GROUPED, STORED, PLAIN],
    "cheap dropout, fused AdamW": [GROUPED, STORED],
    "bf16": [GROUPED, STORED, "train.precision=bf16"],
}
HOOKS = ("before_step", "loss", "before_update", "after_update")


def wait_for(run: Run) -> None:
    """Wait for a GPU: it computes behind the calls."""
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


class Measured(Exception):
    """An epoch is over; there is nothing more to know."""


def measure(words: list[str], place: Path, count: int, to_maximum: bool, profile: bool) -> dict[str, float]:
    """Seconds a row of the steps (``step``), of storing a row's logits (``store``), of the hooks, and the padding."""
    plain = PLAIN in words
    words = [word for word in words if word != PLAIN]
    seconds: dict[str, float] = defaultdict(float)
    rows = tokens = filled = 0

    def timed(function: Any, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds[name] += time.perf_counter() - began

        return call

    def train(run: Run, *_: Any) -> None:
        nonlocal rows, tokens, filled
        steps = steps_of_epoch(run, 1)
        steps = random.Random(0).sample(steps, min(count, len(steps)))
        run.progress.step = run.clock.steps_per_epoch  # the second of two epochs: masks are being made
        fast = cheap_dropout(run.model) if run.device.type == "cpu" else unread_masks(run.model)  # as in the loop
        with nullcontext() if plain else fast:
            train_step(run, prepare_step(run, (1, steps[0])))  # memory is got from the system once
            wait_for(run)
            rows = tokens = filled = 0
            seconds.clear()
            for hook in HOOKS:
                # Distillation runs a live teacher inside its hook; that is no work of the modifier's own.
                setattr(run.modifier_list, hook, timed(getattr(run.modifier_list, hook), "hooks"))
            if isinstance(run.teacher, LiveTeacher):
                run.teacher = timed(run.teacher, "teacher")
            began = time.perf_counter()
            with (
                torch.profiler.profile() if profile else nullcontext() as profiler,
                prepared_steps(run, [(1, step) for step in steps]) as prepared,
            ):
                for step in prepared:
                    train_step(run, step)
                    run.progress.step += 1
                wait_for(run)
            seconds["step"] = time.perf_counter() - began
        if profiler:
            print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=45))
        raise Measured

    real = (
        sparse_xp.training.loop.train,
        sparse_xp.training.state.collate,
        sparse_xp.training.teacher.store_logits,
        torch.optim.AdamW,
    )
    stored: dict[str, float] = {}

    def store(run: Run, *arguments: Any) -> None:
        began = time.perf_counter()
        real[2](run, *arguments)
        stored["store"] = (time.perf_counter() - began) / len(run.train_features)

    def collate(features: Any, picked: Any, columns: Any, padding: Any) -> Any:
        nonlocal rows, tokens, filled
        batch = real[1](features, picked, columns, padding)
        if to_maximum:
            for name, value in batch.items():
                if value.ndim == 2:
                    more = config.task.max_length - value.shape[1]
                    batch[name] = torch.nn.functional.pad(value, (0, more), value=padding.get(name, 0))
        rows += len(picked)
        tokens += batch["input_ids"].numel()
        filled += int(batch["attention_mask"].sum())
        return batch

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = to_object(compose("config", overrides=[*words, f"data.cache={place}/cache"]))
    sparse_xp.training.loop.train, sparse_xp.training.teacher.store_logits, sparse_xp.training.state.collate = (
        train,
        store,
        collate,
    )
    if plain:
        torch.optim.AdamW = functools.partial(torch.optim.AdamW, fused=False)  # type: ignore[misc, assignment]
    try:
        with tempfile.TemporaryDirectory() as directory:
            sparse_xp.run.run(config, Path(directory) / "run")
    except Measured:
        pass
    finally:
        (
            sparse_xp.training.loop.train,
            sparse_xp.training.state.collate,
            sparse_xp.training.teacher.store_logits,
            torch.optim.AdamW,
        ) = real
    return {
        "step": seconds["step"] / rows,
        "hooks": (seconds["hooks"] - seconds["teacher"]) / seconds["step"],
        "padding": 1 - filled / tokens,
        **stored,
    }


def main() -> None:
    """Print one line a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a mirror of the data sets, as data.root=")
    parser.add_argument("--model", required=True, help="a model directory, as model.checkpoint=")
    parser.add_argument("--teacher", required=True, help="a dense run of the task, as teacher.path=")
    parser.add_argument("--task", default="squad")
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--batches", type=int, default=8)
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
    with tempfile.TemporaryDirectory() as place:  # one: features and logits are made in the first round
        for _ in range(options.rounds):
            for number, (way, more) in enumerate(WAYS.items()):
                found[way].append(measure([*words, *more], Path(place), options.batches, number == 0, profile=False))
        if options.profile:
            measure([*words, *more], Path(place), options.batches, to_maximum=False, profile=True)
    lines = []
    first = stored = 0.0
    for way, rounds in found.items():
        # Stored in the first round, by the first way of a precision; the later ones read what it has written.
        stored = next((r["store"] for r in rounds if "store" in r), stored)
        paid = stored / options.epochs if STORED in WAYS[way] else 0.0
        speed = 1 / (statistics.median(r["step"] for r in rounds) + paid)
        first = first or speed
        hooks, padding = (statistics.median(r[name] for r in rounds) for name in ("hooks", "padding"))
        lines.append(
            f"{way:<38} {speed:6.2f} examples/s  {speed / first:5.2f}x   modifiers {hooks:.1%} of a step, "
            f"padding {padding:.0%} of the tokens"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
