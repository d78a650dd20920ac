"""What does distilling a vocabulary cost?  python benchmarks/vocabulary.py --student DIR --teacher DIR --text T

One training step of masked language modelling with distillation, forward and backward of both models, in several
ways: the logits of all tokens at once, as PyTorch would; the same loss chunk by chunk (the default); on a share of the
tokens; on masked tokens alone; and no distillation. Prints for each the CPU seconds and the peak of memory (each way
has a process of its own), and how far its gradient is from that of all tokens: the cosine over the weights of the
encoder, mean over batches. Give a student that was pruned from the teacher: of two equal models there is nothing to
distil.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sparse_xp.clock import Clock
from sparse_xp.data.batches import collate
from sparse_xp.data.corpus import _documents
from sparse_xp.functional.chunked_loss import lazy_projection, make_always_lazy
from sparse_xp.functional.selection import select_parameters
from sparse_xp.models.loading import load_model
from sparse_xp.models.tokenizers import load_tokenizer
from sparse_xp.modifiers import Distillation
from sparse_xp.tasks import PairPretraining
from sparse_xp.training.state import TrainingWrapper

#: how the tokens are chosen; "plain": all of them, without chunks; None: nothing is distilled
WAYS: dict[str, dict[str, Any] | None] = {
    "all tokens, plain": {"plain": True},
    "all tokens, in chunks": {},
    "half of the tokens": {"token_share": 0.5},
    "a quarter of the tokens": {"token_share": 0.25},
    "masked tokens": {"tokens": "targets"},
    "no distillation": None,
}


def measure(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds a step, megabytes, and the gradient of the encoder for each batch (a file beside)."""
    settings = dict(WAYS[way] or {})
    plain = settings.pop("plain", False)
    task = PairPretraining(name="benchmark", dataset=None, folder="benchmark", max_length=options.tokens)
    tokenizer = load_tokenizer(options.student)
    student, _ = load_model(task, options.student, dropout=0.0)
    teacher, _ = load_model(task, options.teacher)
    teacher.eval().requires_grad_(False)
    texts = [text for _, text in zip(range(400), _documents(Path(options.text), "text"), strict=False)]
    from datasets import Dataset

    features = Dataset.from_dict(task.features({"text": texts}, tokenizer, 0, True))
    names = [*tokenizer.model_input_names, *task.stored]
    encoder = list(select_parameters(student, ["__ENCODER__"]).values())
    modifier, wrapper = Distillation(hardness=0.5, temperature=2.0, **settings), TrainingWrapper(student.train(), task)
    if not plain:
        make_always_lazy(teacher)
    seconds, gradients = [], []
    with nullcontext() if plain else lazy_projection(student):
        for number in range(options.batches + 1):
            torch.manual_seed(number)
            rows = [number * options.rows + i for i in range(options.rows)]
            batch = task.apply_dynamic_masking(collate(features, rows, names, {}), rows, 0, tokenizer)
            if number == 1:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = time.process_time()
            student.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                outputs = wrapper(**batch)
                loss = outputs.loss
                if WAYS[way] is not None:
                    with torch.no_grad():
                        taught = teacher(**{name: batch[name] for name in tokenizer.model_input_names})
                    run = SimpleNamespace(clock=Clock(1, 1), progress=SimpleNamespace(step=0), task=task)
                    run.teacher = lambda *_, taught=taught: {name: taught[name].float() for name in task.outputs}
                    loss = modifier.loss(run, rows, batch, outputs, loss)
            loss.backward()
            if number:  # the first gets memory from the system
                seconds.append(time.process_time() - began)
                gradients.append(torch.cat([weight.grad.flatten() for weight in encoder]))
    torch.save(gradients, Path(options.scratch) / f"{list(WAYS).index(way)}.pt")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds), "megabytes": peak / 1024, "settled": before / 1024}


def main() -> None:
    """Measure every way and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="a model directory with heads for pretraining")
    parser.add_argument("--teacher", required=True, help="the same")
    parser.add_argument("--text", required=True, help="a .txt or .parquet file of documents")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--scratch", default="/tmp", help="where gradients are kept meanwhile")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return
    torch.set_num_threads(1)
    rows, exact = [], None
    for number, way in enumerate(WAYS):
        command = [sys.executable, *sys.argv, "--way", way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        path = Path(options.scratch) / f"{number}.pt"
        gradients = torch.load(path, weights_only=True)
        path.unlink()
        exact = exact or gradients
        near = statistics.mean(
            torch.cosine_similarity(a.double(), b.double(), dim=0).item() for a, b in zip(exact, gradients, strict=True)
        )
        rows.append((way, f"{found['seconds']:.2f}", f"{found['megabytes']:.0f}", f"{near:.4f}"))
    for row in [("way", "CPU s a step", "peak MB", "cosine"), ("---",) * 4, *rows]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
