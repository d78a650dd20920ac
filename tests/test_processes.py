"""Two processes on the CPU against one at the same global batch: the same masks, and the same model but for sums."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.runs import HANGS, SHORT

# tests/test_several_devices.py holds in the default suite that two processes do what one does.
pytestmark = pytest.mark.slow

#: without dropout, which every process draws for itself; batches of two processes follow each other as those of one do
WORDS = (
    *SHORT,
    "task=wikipedia_mlm",
    "recipe=pruneofa90",
    "teacher=none",
    "model.dropout=0",
    "train.group_by_length=false",
    "train.epochs=1",
    "train.eval_every=100%",
    "train.save_every=100%",
    "train.learning_rate=1e-3",
    "task.max_length=64",
)

#: what each process does: the run, then its masks and weights into a file
DRIVER = """
import sys
from pathlib import Path
import torch
import sparse_xp.run, sparse_xp.training.loop
from tests.runs import configure, without_export

place, *words = sys.argv[1:]
real = sparse_xp.training.loop.train

def train(run):
    real(run)
    [pruner] = [m for name, m in run.modifier_list.modifiers.items() if name == "sparsity"]
    state = {"masks": pruner.masks, "weights": {n: p.detach() for n, p in run.model.named_parameters()}}
    state["steps"] = run.progress.step
    torch.save(state, Path(place) / f"rank{run.accelerator.process_index}.pt")

sparse_xp.training.loop.train = train
with without_export():
    sparse_xp.run.run(configure(*words), Path(place) / "run")
"""


#: what goes as a whole, by scores that each process has of its own rows
STRUCTURED = (
    *(word for word in WORDS if not word.startswith(("task", "recipe="))),
    "task=sst2",
    "recipe=structured50",
    "model.layers=3",
    "sparsity=structured_global",
    "sparsity.layers=true",
    "sparsity.score=first_order",
    "recipe.sparsity=0.85",
    "+modifier@recipe.modifiers.embeddings=EmbeddingPruning",
    "recipe.modifiers.embeddings.final_sparsity=0.5",
)
KEPT = """
    [words] = [m for m in run.modifier_list.modifiers.values() if type(m).__name__ == "EmbeddingPruning"]
    state["masks"] = {f"{name}.{kind}": each for name, pair in pruner.kept.items() for kind, each in enumerate(pair)}
    state["masks"]["embeddings"] = words.kept
    state["steps"] = run.progress.step
"""


def launched(folder, processes, batch, words=WORDS, driver=DRIVER):
    """The states of a run in so many processes."""
    folder.mkdir()
    (folder / "driver.py").write_text(driver)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [str(folder / "driver.py"), str(folder), *words, f"train.batch_size={batch}", f"data.cache={folder}/cache"]
    command = [sys.executable, *(launch if processes > 1 else []), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "run/result.json").is_file()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Of both processes, and of one alone."""
    place = tmp_path_factory.mktemp("processes")
    return [*launched(place / "two", 2, 8), *launched(place / "one", 1, 16)]


def test_every_process_has_the_same_masks_and_weights(states):
    first, second, _ = states
    for kind in ("masks", "weights"):
        assert first[kind].keys() == second[kind].keys()
        assert all(torch.equal(first[kind][name], second[kind][name]) for name in first[kind])


def test_two_processes_make_what_one_makes(states):
    two, _, one = states
    assert two["steps"] == one["steps"]
    assert two["masks"].keys() == one["masks"].keys()
    same = sum(int((two["masks"][name] == mask).sum()) for name, mask in one["masks"].items())
    total = sum(mask.numel() for mask in one["masks"].values())
    assert same / total > 0.999  # a weight at the threshold may fall on either side of it
    assert sum(int((~mask).sum()) for mask in one["masks"].values()) / total == pytest.approx(0.9, abs=1e-3)
    apart = max((two["weights"][name] - weight).abs().median().item() for name, weight in one["weights"].items())
    assert apart < 1e-5


def test_heads_layers_and_dimensions_are_the_same_in_every_process(tmp_path):
    """Another batch order would be another choice: the scores of two processes are those of one, to rounding."""
    driver = DRIVER.replace('{"masks": pruner.masks, ', "{").replace(
        """    state["steps"] = run.progress.step\n""", KEPT.lstrip("\n")
    )
    first, second = launched(tmp_path / "two", 2, 8, STRUCTURED, driver)
    [one] = launched(tmp_path / "one", 1, 16, STRUCTURED, driver)
    for kind in ("masks", "weights"):
        assert first[kind].keys() == second[kind].keys()
        assert all(torch.equal(first[kind][name], second[kind][name]) for name in first[kind])
    layers = [name.removesuffix(".0") for name in first["masks"] if name.endswith(".0")]
    gone = [[name for name in layers if not state["masks"][f"{name}.0"].any()] for state in (first, one)]
    assert gone[0] == gone[1]
    assert gone[0]
    assert int(first["masks"]["embeddings"].sum()) == 32
