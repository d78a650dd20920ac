"""What integers make of an encoder's speed and size:  python benchmarks/integers.py [--shape base] [--lengths 128]

Exports one model with random weights three times: fp32, int8 with fixed ranges, int8 with ranges found in every batch;
then all take turns on every engine that is installed, and the median of the rounds' ratios to fp32 is printed. Speed
and size only: what integers cost in accuracy is what a run's own gate and table say.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertForQuestionAnswering

from sparse_xp.benchmark import cell, make_batch, take_turns
from sparse_xp.deployment import to_onnx
from sparse_xp.engines import ENGINES, installed, versions
from sparse_xp.environment import hush_libraries
from sparse_xp.evaluation import Subject
from sparse_xp.fake_quant import Settings, freeze, prepare

SHAPES = {
    "base": {},
    "minilm": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
}
OUTPUTS = ("start_logits", "end_logits")


def export(model: Any, path: Path) -> Path:
    """Write ``model`` as a run would."""
    rows = torch.randint(1000, 20000, (2, 64)).tolist()
    ones = torch.ones(2, 64, dtype=torch.int64).tolist()
    features = Dataset.from_dict(
        {"input_ids": rows, "attention_mask": ones, "token_type_ids": (torch.zeros(2, 64, dtype=torch.int64)).tolist()}
    )
    tokenizer: Any = SimpleNamespace(
        model_input_names=["input_ids", "token_type_ids", "attention_mask"], pad_token_id=0
    )
    task: Any = SimpleNamespace(outputs=OUTPUTS, padding={})
    to_onnx(
        Subject(
            task=task, tokenizer=tokenizer, model=model, rows=features, eval_features=features, eval_batch_size=2,
            device=torch.device("cpu"),
        ),
        path,
        20,
    )  # fmt: skip
    return path


def integers(model: Any, dynamic: bool) -> Any:
    """A copy that computes with integers; its ranges are those of a few random rows."""
    found = copy.deepcopy(model)
    settings = Settings(dynamic=dynamic, active=True, calibrating=True)
    modules = prepare(found, settings)
    with torch.no_grad():
        found(torch.randint(1000, 20000, (4, 64)))
    settings.calibrating = False
    freeze(modules)
    return found


def main() -> None:
    """Print one line an engine, file and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    hush_libraries()
    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig(**SHAPES[options.shape])).eval()
    engines = [name for name in ENGINES if installed(name)]
    print(f"{options.shape}, {options.threads} thread(s), median of {options.rounds} rounds; {versions(engines)}")
    with tempfile.TemporaryDirectory() as place:
        files = {
            "fp32": export(model, Path(place) / "fp32.onnx"),
            "int8": export(integers(model, dynamic=False), Path(place) / "int8.onnx"),
            "int8 dynamic": export(integers(model, dynamic=True), Path(place) / "dynamic.onnx"),
        }
        for name, path in files.items():
            print(f"{name:<13} {path.stat().st_size / 1e6:6.1f} MB")
        for engine in engines:
            calls = {name: ENGINES[engine](path, options.threads) for name, path in files.items()}
            pairs: Any = {
                (name, options.threads): (call, calls["fp32"]) for name, call in calls.items() if name != "fp32"
            }
            for rows in options.batches:
                for length in options.lengths:
                    for key, seconds in take_turns(pairs, make_batch(rows, length, 20000), options.rounds).items():
                        found = cell(engine, options.threads, rows, length, seconds)
                        print(
                            f"{engine:<12} {rows:>3} x {length:<4} {key[0]:<13} {found.ms:8.2f} ms, fp32 "
                            f"{found.reference_ms:8.2f} ms: {found.ratio:.2f} times as fast "
                            f"({found.low:.2f} to {found.high:.2f})"
                        )


if __name__ == "__main__":
    main()
