"""The cells of the real tables: which recipes on which tasks, in which order, and how each is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: recipes of each task, besides its dense run, which comes first and teaches them; the longest first
RECIPES: dict[str, list[tuple[str, ...]]] = {
    "sst2": [
        ("recipe=structured75_quant",),
        ("recipe=speedup10",),
        ("recipe=structured50_quant",),
        ("recipe=gradual80",),
        ("recipe=gradual80", "recipe.sparsity=0.9"),
    ],
    "conll2003": [("recipe=structured75_quant",), ("recipe=gradual80",)],
    "qnli": [("recipe=structured75_quant",), ("recipe=gradual80",)],
    "squad": [("recipe=structured75_quant",), ("recipe=gradual80",)],
}
#: training rows, and rows of a batch as the recipes have them
ROWS = {"sst2": 67_349, "conll2003": 14_041, "qnli": 9_999, "squad": 12_150}
OWN_BATCH = {"sst2": 32, "conll2003": 32, "qnli": 32, "squad": 16}
#: learning rates of the recipes, for batches of another size than their own
LEARNING_RATE = {"dense": 5e-5, "students": 8e-5}
EPOCHS = {"dense": 2.0, "gradual80": 8.0, "structured50_quant": 10.0, "structured75_quant": 10.0, "speedup10": 10.0}
#: what suits a machine whose GPU is shared and whose CPU cores score the exported files
SHARED = ("log=none", "train.eval_batch_size=128", "train.save_every=100%", "train.threads=4", "export.target_cpu=avx2")
#: an evaluation of SQuAD takes longer than an epoch: only the last model is scored
OF_TASK = {"squad": ("train.eval_every=100%", "train.threads=8")}


@dataclass(frozen=True)
class Cell:
    """One run. ``words``: the recipe; ``batch``: rows of a batch; ``seed``: None for the recipe's own."""

    task: str
    words: tuple[str, ...]
    batch: int
    seed: int | None

    @property
    def name(self) -> str:
        """The name, which is that of its directory too."""
        parts = [word.partition("=")[2] for word in self.words]
        seed = "" if self.seed is None else f",seed={self.seed}"
        return f"{self.task},{','.join(parts)},batch={self.batch}{seed}"

    @property
    def dense(self) -> bool:
        """Whether it is the teacher of its task."""
        return self.words == ("recipe=dense",)

    @property
    def steps(self) -> int:
        """About how many optimizer steps it makes."""
        recipe = self.words[0].removeprefix("recipe=")
        epochs = 5.0 if self.dense and self.task == "conll2003" else EPOCHS[recipe]
        return round(epochs * math.ceil(ROWS[self.task] / self.batch))

    def overrides(self) -> list[str]:
        """Return the words of the command, but for places. A larger batch learns at a rate that grows as its root."""
        own = OWN_BATCH[self.task]
        words = [f"task={self.task}", "model=minilm", *self.words, *SHARED, *OF_TASK.get(self.task, ())]
        if self.batch != own:
            rate = LEARNING_RATE["dense" if self.dense else "students"] * math.sqrt(self.batch / own)
            words += [f"train.batch_size={self.batch}", f"train.learning_rate={rate:.3g}"]
        return words if self.seed is None else [*words, f"seed={self.seed}"]


def make_cells(seeds: tuple[int, ...], batches: dict[str, int], tasks: tuple[str, ...] | None) -> list[Cell]:
    """Return all cells, what matters most first: the teachers, the students with the recipes' seeds, other seeds.

    ``seeds``: further seeds. ``batches``: rows of a batch by task, where they are not the recipes' own.
    """
    cells: list[Cell] = []
    chosen = [task for task in RECIPES if tasks is None or task in tasks]
    for seed in (None, *seeds):
        sizes = {task: batches.get(task, OWN_BATCH[task]) for task in chosen}
        cells += [Cell(task, ("recipe=dense",), sizes[task], seed) for task in chosen]
        cells += [Cell(task, words, sizes[task], seed) for task in chosen for words in RECIPES[task]]
    return cells


def teacher_of(cell: Cell, cells: list[Cell]) -> Cell:
    """Return the dense run of the same task and seed."""
    return next(each for each in cells if each.dense and (each.task, each.seed) == (cell.task, cell.seed))
