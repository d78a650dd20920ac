"""What int8 products of attention cost and gain:  python benchmarks/attention_products.py MODEL DATA [--task sst2]

Exports a trained model (a directory) three times: in floating point, calibrated to 8 bits, and the same with
``quantization.attention_products=true``. DATA is a mirror of the hub's data sets (``data.root``). Printed: the score of
each file on all evaluation rows, and its speed in onnxruntime. The files take turns, the one of 8 bits with
floating-point attention is the reference.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import ENGINES, engine_versions
from sparse_xp.deployment.timing import make_batch, summarize_rounds, take_turns

FILES = {
    "fp32": (),
    "int8": ("quantization=ptq_int8",),
    "int8, attention too": ("quantization=ptq_int8", "quantization.attention_products=true"),
}


def export(words: list[str], out: Path) -> str:
    """Export by the command with these ``words``; return the score of the file, as printed."""
    command = [sys.executable, "-m", "sparse_xp.export", *words, f"out={out}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"exported file: (\S+ \S+)", " ".join(printed.split()))
    return match[1] if match else "no score"


def main() -> None:
    """Print the scores, then one line for each shape and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 384])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    words = [
        f"task={options.task}", f"model.checkpoint={options.model}", f"data.root={options.data}", "train.threads=1",
        "task.max_train_samples=2000",
    ]  # fmt: skip
    print(f"{this_cpu()}\n1 thread, {options.rounds} rounds; {engine_versions(['onnxruntime'])}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        calls: dict[str, Any] = {}
        for number, (name, more) in enumerate(FILES.items()):
            score = export([*words, *more], Path(place) / str(number))
            calls[name] = ENGINES["onnxruntime"](Path(place) / str(number) / "model.onnx", 1)
            print(f"{name:<20} {score}", flush=True)
        pairs: Any = {(name, 1): (call, calls["int8"]) for name, call in calls.items() if name != "int8"}
        for length in options.lengths:
            for (name, _), seconds in take_turns(pairs, make_batch(1, length, 20000), options.rounds).items():
                found = summarize_rounds("onnxruntime", 1, 1, length, seconds)
                print(
                    f"1 x {length:<4} {name:<20} {found.ms:8.2f} ms of {found.reference_ms:8.2f} ms: {found.ratio:.2f} "
                    f"times as fast as int8 ({found.low:.2f} to {found.high:.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
