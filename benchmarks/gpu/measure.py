"""Time the steps of one case after another, in one process:  python -m benchmarks.gpu.measure INPUTS WORK OUT SECONDS

OUT gets a line of JSON for each measurement. The case that was measured least comes next, so that cases take turns;
those that failed in OUT are left out. A case that fails ends the process: what it left on the GPU is not to be trusted.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import sparse_xp.run
import sparse_xp.training.loop
from benchmarks.gpu import plain_trainer
from benchmarks.gpu.cases import CASES, COMPILED, FEW, FEW_ROWS, ROWS, TRAINER, Case
from benchmarks.gpu.checkpoints import kind_of, make_checkpoint, make_long_rows
from sparse_xp.compose import to_object
from sparse_xp.config import register
from sparse_xp.places import CONF

#: steps before the first stamp (of a compiled model more: it compiles for each length), and between two stamps
WARM, WARM_COMPILED, STRETCH = 40, 60, 10
STRETCHES = 5


class Enough(Exception):
    """It has been measured."""


@dataclass
class Watch:
    """Time stamps: seconds of the clock, and of the processor in all threads of this process."""

    warm: int
    stretch: int = STRETCH
    steps: int = 0
    stamps: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self) -> bool:
        """Count a step; return whether that is enough."""
        self.steps += 1
        if self.steps >= self.warm and (self.steps - self.warm) % self.stretch == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.stamps.append((time.perf_counter(), time.process_time()))
        return len(self.stamps) > STRETCHES

    def milliseconds(self, which: int) -> list[float]:
        """Return the milliseconds of a step in each stretch: 0 of the clock, 1 of the processor."""
        pairs = zip(self.stamps, self.stamps[1:], strict=False)
        return [1e3 * (after[which] - before[which]) / self.stretch for before, after in pairs]


def measure(case: Case, inputs: Path, work: Path, small: bool) -> dict[str, Any]:
    """Return milliseconds of a step, of the clock and of the processor, and the tokens of a row."""
    checkpoint = make_checkpoint(inputs / "minilm", case.shape, case.task, work, 1 if small else 12)
    watch = Watch(warm=2, stretch=1) if small else Watch(WARM_COMPILED if COMPILED in case.words else WARM)
    case, rows = (replace(case, batch=FEW), FEW_ROWS) if small else (case, ROWS[case.task])
    if case.words == (TRAINER,):
        plain_trainer.train(case, rows, inputs / "data", checkpoint, work, watch)
        # The Trainer leaves its precision in the process, and the next case may have another.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        tokens = 0.0
    else:
        tokens = ours(case, rows, inputs, checkpoint, work, watch)
    if len(watch.stamps) <= STRETCHES:
        raise RuntimeError(f"the run ended after {watch.steps} steps")
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return {"ms": watch.milliseconds(0), "cpu_ms": watch.milliseconds(1), "tokens": tokens, "GiB": round(memory, 2)}


def ours(case: Case, rows: int, inputs: Path, checkpoint: Path, work: Path, watch: Watch) -> float:
    """Train in the command's own loop until it is enough. Returns the mean number of tokens of a row in its batch."""
    data = make_long_rows(inputs / "data", work) if case.task == "long" else inputs / "data"
    words = [
        f"task={kind_of(case.task)}", "model=minilm", f"model.checkpoint={checkpoint}", f"data.root={data}", "log=none",
        f"data.cache={work / 'cache'}", f"train.batch_size={case.batch}", f"task.max_train_samples={rows}",
        "train.gradient_accumulation_steps=1", "train.epochs=20", "train.eval_batch_size=128", "train.eval_every=100%",
        "train.save_every=100%", "task.max_eval_samples=32",
        *(["task.max_length=128"] if case.task == "wikipedia_mlm" else []),
        *(word.replace("CHECKPOINT", str(checkpoint)) for word in case.words),
    ]  # fmt: skip
    if not torch.cuda.is_available():
        words = [word for word in words if not word.startswith("train.precision")] + ["train.precision=fp32"]
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = to_object(compose("config", overrides=words))
    place = work / "measured"
    shutil.rmtree(place, ignore_errors=True)
    sizes: list[tuple[int, int]] = []

    def count(module: torch.nn.Module, given: Any, named: Any) -> None:
        sizes.append(tuple((given[0] if given else named["input_ids"]).shape))

    def timed(run: Any, *given: Any, **named: Any) -> Any:
        if watch.steps == 0:
            run.progress.step = int(case.at * run.clock.total_steps)
            if COMPILED not in case.words:
                run.model.base_model.register_forward_pre_hook(count, with_kwargs=True)
        done = real(run, *given, **named)
        if watch():
            raise Enough
        return done

    real: Any = sparse_xp.training.loop.train_step
    with replaced(sparse_xp.training.loop, "train_step", timed), suppress(Enough):
        sparse_xp.run.run(config, place, show=False)
    return sum(rows * tokens for rows, tokens in sizes) / max(1, sum(rows for rows, _ in sizes))


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Any:
    """Put ``value`` in the place of a function for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def peak(small: bool) -> dict[str, Any]:
    """Return the TFLOP/s of a product of square bf16 matrices: the peak that can be had here."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() and not small else ("cpu", 256)
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        for _ in range(10):
            one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began) / 10)
    return {"case": "peak", "tflops": 2 * size**3 / sorted(seconds[1:])[2] / 1e12}


def main(inputs: Path, work: Path, out: Path, seconds: float, chosen: str) -> None:
    """Measure until ``seconds`` have passed or every case has had its rounds."""
    began = time.monotonic()
    small = bool(os.environ.get("SPARSE_XP_REHEARSAL"))
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    cases = [case for case in CASES if chosen in case.name]
    failed = {line["case"] for line in lines if "error" in line}
    counts = Counter(line["case"] for line in lines)
    if not counts["peak"]:
        write(out, peak(small))
    while time.monotonic() - began < seconds:
        left = [case for case in cases if case.name not in failed and counts[case.name] < (1 if small else case.rounds)]
        if not left:
            return
        case = min(left, key=lambda case: counts[case.name])
        try:
            found = measure(case, inputs, work, small)
        except Exception:
            write(out, {"case": case.name, "error": traceback.format_exc().splitlines()[-12:]})
            raise
        write(out, {"case": case.name, **found})
        counts[case.name] += 1


def write(out: Path, line: dict[str, Any]) -> None:
    """Append a line of JSON."""
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    places = [Path(word).resolve() for word in sys.argv[1:4]]
    main(places[0], places[1], places[2], float(sys.argv[4]), sys.argv[5])
