"""Which activations 8 bits hurt, and whether other ranges would help.  python benchmarks/ranges.py RUN [data.root=DIR]

RUN is a finished run with quantization=ptq_int8. The model is scored on the run's evaluation rows in PyTorch: in
floating point, as calibrated, with one kind of activation left in floating point at a time, and with ranges found in
other ways from 512 training rows: the extremes, quantiles, and the least squared error of rounding. For each: the
metric, the share of rows whose highest logit is where it is in floating point, and the root mean square of the logits'
differences as a share of their spread. Ends with the range of each activation beside its standard deviation: outliers
stand out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparse_xp.console import silence_libraries
from sparse_xp.data.batches import collate
from sparse_xp.evaluation import EvalContext, predict
from sparse_xp.export_command import parts_of_run
from sparse_xp.functional.fake_quant import MinMaxObserver, activation_scale, fake_quantize_activation
from sparse_xp.functional.quant_file import load_quantization
from sparse_xp.functional.quant_modules import observers_of, quantized_modules
from sparse_xp.models.loading import load_model
from sparse_xp.models.tokenizers import load_tokenizer
from sparse_xp.tasks.features import make_features
from sparse_xp.tasks.rows import load_rows

KINDS = {
    "query, key, value": ("query", "key", "value", "q_lin", "k_lin", "v_lin"),
    "attention's output": ("attention.output.dense", "attention.out_lin"),
    "first of the feed-forward": ("intermediate.dense", "ffn.lin1"),
    "second of the feed-forward": ("output.dense", "ffn.lin2"),
}
SHARES = [step / 16 for step in range(4, 17)]  # of the extremes, tried for the least squared error


def kind_of(name: str) -> str:
    """Return the kind of the Linear ``name``; the longest ending wins."""
    ends = [(len(end), kind) for kind, ends in KINDS.items() for end in ends if name.endswith(end)]
    return max(ends)[1] if ends else "pooler and head"


class Examined:
    """A model, its rows, and what it says of them in floating point."""

    def __init__(self, run: Path, words: list[str]) -> None:
        task, data, _, batch = parts_of_run(run, words)
        tokenizer = load_tokenizer(str(run / "model"), None)
        found = load_rows(task, data, train=True)
        task = task.with_labels_from(found.rows)
        self.training = make_features(task, found.rows, found.fingerprint, tokenizer, data, train=True)
        found = load_rows(task, data, train=False)
        features = make_features(task, found.rows, found.fingerprint, tokenizer, data, train=False)
        model, _ = load_model(task, str(run / "model"))
        load_quantization(model, run / "model")
        self.context = EvalContext(
            task=task, tokenizer=tokenizer, model=model.eval(), eval_rows=found.rows, eval_features=features,
            eval_batch_size=batch, device=torch.device("cpu"),
        )  # fmt: skip
        self.modules = dict(quantized_modules(model))
        self.mode = next(iter(self.modules.values())).quant.mode
        self.mode.active = False
        self.plain = self.logits()
        self.show("floating point", self.plain)
        self.mode.active = True

    def forward(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = self.context.model(**{name: torch.from_numpy(value) for name, value in batch.items()})
        return {name: outputs[name].numpy() for name in self.context.task.outputs}

    def logits(self) -> dict[str, list[np.ndarray]]:
        return predict(self.context, self.forward)

    def show(self, name: str, found: dict[str, list[np.ndarray]]) -> None:
        scores = self.context.task.score(self.context.eval_rows, self.context.eval_features, found)
        pairs = [(a, b) for key in found for a, b in zip(found[key], self.plain[key], strict=True)]
        agree = np.mean([np.argmax(a) == np.argmax(b) for a, b in pairs])
        theirs = np.concatenate([np.ravel(b) for _, b in pairs])
        gap = np.concatenate([np.ravel(a) for a, _ in pairs]) - theirs
        spread = np.sqrt((gap.astype(np.float64) ** 2).mean()) / theirs.std()
        metric, score = next(iter(scores.items()))
        print(f"{name:<46} {metric} {score:6.2f}   same {agree:6.2%}   difference {spread:.3f}", flush=True)

    def samples(
        self, ranges: dict[str, MinMaxObserver]
    ) -> tuple[dict[str, torch.Tensor], dict[str, tuple[float, float]]]:
        """Values drawn from each activation over training rows in floating point, and its extremes."""
        drawn: dict[str, list[torch.Tensor]] = {name: [] for name in ranges}
        extremes = dict.fromkeys(ranges, (0.0, 0.0))
        generator = torch.Generator().manual_seed(0)

        def hook(name: str) -> Any:
            def see(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
                values = inputs[0].flatten()
                low, high = extremes[name]
                extremes[name] = min(low, float(values.min())), max(high, float(values.max()))
                drawn[name].append(values[torch.randint(len(values), (8000,), generator=generator)])

            return see

        modules = dict(self.context.model.named_modules())
        hooks = [modules[name.removesuffix(".inputs")].register_forward_pre_hook(hook(name)) for name in ranges]
        rows = [i * len(self.training) // 512 for i in range(512)]
        self.mode.active = False
        for at in range(0, 512, 32):
            batch = collate(self.training, rows[at : at + 32], self.context.inputs, self.context.padding)
            self.forward({name: value.numpy() for name, value in batch.items()})
        self.mode.active = True
        for each in hooks:
            each.remove()
        return {name: torch.cat(values) for name, values in drawn.items()}, extremes


def least_squares(values: torch.Tensor, extremes: tuple[float, float]) -> tuple[float, float]:
    """Return the range within ``extremes`` that rounds ``values`` with the least squared error."""

    def error(low: float, high: float) -> float:
        rounded = fake_quantize_activation(values, *activation_scale(torch.tensor(low), torch.tensor(high)))
        return float((rounded - values).square().mean())

    return min(((extremes[0] * a, extremes[1] * b) for a in SHARES for b in SHARES), key=lambda pair: error(*pair))


def main(run: Path, words: list[str]) -> None:
    """Print one line a variant."""
    silence_libraries()
    torch.set_num_threads(1)
    examined = Examined(run, words)
    examined.show("as calibrated", examined.logits())
    for kind in (None, *KINDS, "pooler and head"):
        left = [(m, m.quant.input_observer) for name, m in examined.modules.items() if kind in (None, kind_of(name))]
        for module, _ in left:
            module.quant.input_observer = None
        examined.show(f"in floating point: {kind or 'all activations'}", examined.logits())
        for module, inputs in left:
            module.quant.input_observer = inputs
    ranges = {name: seen for name, seen in observers_of(examined.modules).items() if name.endswith(".inputs")}
    calibrated = {name: (seen.low, seen.high) for name, seen in ranges.items()}
    drawn, extremes = examined.samples(ranges)
    ways: dict[str, dict[str, tuple[float, float]]] = {"the extremes": extremes}
    for share in (1e-4, 1e-3):
        at = torch.tensor([share, 1 - share])
        ways[f"without the outer {share:.2%} at each end"] = {
            name: tuple(torch.quantile(values, at).tolist()) for name, values in drawn.items()
        }
    ways["least squared error"] = {name: least_squares(drawn[name], extremes[name]) for name in ranges}
    for way, chosen in ways.items():
        for name, seen in ranges.items():
            seen.low, seen.high = (torch.tensor(value) for value in chosen[name])
        examined.show(f"ranges: {way}", examined.logits())
    print()
    for name, (low, high) in calibrated.items():
        print(
            f"{name.removesuffix('.inputs'):<46} {low:8.2f} to {high:7.2f}   standard deviation {drawn[name].std():.3f}"
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
