"""The runs of the part ``embeddings``: all-MiniLM-L6-v2 as its own teacher, by recipe and seed."""

from __future__ import annotations

from dataclasses import dataclass

#: recipes by the name of their runs, what matters most first
RECIPES: dict[str, tuple[str, ...]] = {
    "structured50_quant": ("recipe=structured50_quant",),
    "structured75_quant": ("recipe=structured75_quant",),
    "speedup10": ("recipe=speedup10",),
    "speedup4": ("recipe=speedup4",),
    "int8": ("recipe=dense", "quantization=int8"),
    "structured50_quant,dimensions=128": ("recipe=structured50_quant", "task.dimensions=128"),
    "int8,dimensions=256": ("recipe=dense", "quantization=int8", "task.dimensions=256"),
    "int8,dimensions=128": ("recipe=dense", "quantization=int8", "task.dimensions=128"),
}
SEEDS = (42, 43)
#: rows of a batch
BATCH = 128
#: a learning rate for it: what loses heads and neurons has further to go than what only loses bits
LEARNING_RATES = {"int8": 1e-4}
LEARNING_RATE = 3e-4
#: 8-bit training begins where the removals end
QUANTIZED = ("recipe.quantization_start=60%", "recipe.observers_end=90%")
#: what suits a machine whose GPU and CPU cores are shared: rare evaluations, no copies of the model on the way
SHARED = (
    "log=none", "train.warmup=5%", "train.eval_every=25%", "train.save_every=100%", "train.eval_batch_size=256",
    "task.max_length=256", "task.max_eval_samples=2000", "export.target_cpu=avx2",
)  # fmt: skip


@dataclass(frozen=True)
class EmbeddingCell:
    """One run. ``recipe``: a key of RECIPES."""

    recipe: str
    seed: int

    @property
    def name(self) -> str:
        """The name, which is that of its directory too."""
        return f"{self.recipe},seed={self.seed}"

    @property
    def needs_latencies(self) -> bool:
        """Whether the shape follows from a table of latencies."""
        return self.recipe.startswith("speedup")

    def overrides(self, steps: int) -> list[str]:
        """Return the words of the command, but for places."""
        words = ["task=custom_embedding", "model=minilm", "teacher=self", *RECIPES[self.recipe], *QUANTIZED, *SHARED]
        rate = LEARNING_RATES.get(self.recipe.partition(",")[0], LEARNING_RATE)
        length = [f"train.steps={steps}", f"train.batch_size={BATCH}", f"train.learning_rate={rate:g}"]
        return [*words, *length, f"seed={self.seed}"]


def embedding_cells() -> list[EmbeddingCell]:
    """Return all cells: every recipe with the first seed, then with the next one."""
    return [EmbeddingCell(recipe, seed) for seed in SEEDS for recipe in RECIPES]
