"""What integers make of an encoder's speed, size and answers:  python benchmarks/integers.py [--shape base]

Exports one model with random weights: fp32, int8 with weights of 7 bits (the default) and of 8, int8 with ranges found
in every batch. All take turns on every engine that is installed; of the file of 8 bits both our session, which is
exact on every CPU, and the engine's default. Printed: the median of the rounds' ratios, and how far the logits are from
PyTorch's as a share of their spread (the median over the shapes' rows).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import BertConfig, BertForQuestionAnswering

from sparse_xp.console import silence_libraries
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import ENGINES, Batch, Call, engine_versions, is_installed
from sparse_xp.deployment.onnx_export import to_onnx
from sparse_xp.deployment.timing import make_batch, summarize_rounds, take_turns
from sparse_xp.evaluation import EvalContext
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import freeze, prepare

SHAPES = {
    "base": {},
    "minilm": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
}
BY = ", by default"
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
        EvalContext(
            task=task, tokenizer=tokenizer, model=model, eval_rows=features, eval_features=features, eval_batch_size=2,
            device=torch.device("cpu"),
        ),
        path,
        20,
    )  # fmt: skip
    return path


def integers(model: Any, reduce_range: bool = True, dynamic: bool = False) -> Any:
    """Return a copy that computes with integers, calibrated on a few random rows."""
    found = copy.deepcopy(model)
    mode = QuantMode(active=True, calibrating=True)
    modules = prepare(found, QuantConfig(dynamic=dynamic, reduce_range=reduce_range), mode)
    with torch.no_grad():
        found(torch.randint(1000, 20000, (4, 64)))
    mode.calibrating = False
    freeze(modules)
    return found


def off(call: Call, model: Any, batch: Batch) -> float:
    """Return the root mean square of the differences to PyTorch, as a share of the logits' standard deviation."""
    found = call(batch)
    theirs = next(iter(found.values() if hasattr(found, "values") else found))
    with torch.no_grad():
        ours = model(**{name: torch.from_numpy(value) for name, value in batch.items()})[OUTPUTS[0]].numpy()
    return float(np.sqrt(np.square(theirs - ours).mean()) / ours.std())


def main() -> None:
    """Print one line an engine, shape and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    silence_libraries()
    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig(**SHAPES[options.shape])).eval()
    engines = [name for name in ENGINES if is_installed(name)]
    print(
        f"{this_cpu()}\n{options.shape}, {options.threads} thread(s), {options.rounds} rounds; "
        f"{engine_versions(engines)}"
    )
    models = {
        "fp32": model,
        "int8, 7 bits": integers(model),
        "int8, 8 bits": integers(model, reduce_range=False),
        "int8, dynamic": integers(model, dynamic=True),
    }
    with tempfile.TemporaryDirectory() as place:
        files = {
            name: export(each, Path(place) / f"{number}.onnx") for number, (name, each) in enumerate(models.items())
        }
        for name, path in files.items():
            print(f"{name:<28} {path.stat().st_size / 1e6:6.1f} MB")
        for engine in engines:
            calls = {name: ENGINES[engine](path, options.threads) for name, path in files.items()}
            calls[f"int8, 8 bits{BY}"] = ENGINES[engine](files["int8, 8 bits"], options.threads, exact=False)
            pairs: Any = {
                (name, options.threads): (call, calls["fp32"]) for name, call in calls.items() if name != "fp32"
            }
            exact = "8 bits: exact over default"
            pairs[exact, options.threads] = calls["int8, 8 bits"], calls[f"int8, 8 bits{BY}"]
            for rows in options.batches:
                for length in options.lengths:
                    batch = make_batch(rows, length, 20000)
                    for (name, _), seconds in take_turns(pairs, batch, options.rounds).items():
                        found = summarize_rounds(engine, options.threads, rows, length, seconds)
                        gap = (
                            ""
                            if name == exact
                            else f", off by {off(calls[name], models[name.removesuffix(BY)], batch):.3f}"
                        )
                        print(
                            f"{engine:<12} {rows:>3} x {length:<4} {name:<26} {found.ms:8.2f} ms of "
                            f"{found.reference_ms:8.2f} ms: {found.ratio:.2f} times as fast "
                            f"({found.low:.2f} to {found.high:.2f}){gap}"
                        )


if __name__ == "__main__":
    main()
