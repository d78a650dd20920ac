"""What the name of a recipe promises about its result, and how a result is called that keeps or exceeds it.

``Promise`` stands in the file of a recipe. ``broken_promise`` compares it with what a run is composed of, before it
starts; ``shortfall`` compares it with what came out. A run that differs in a number, or that has no teacher, bears
another name: ``result_name``. torch is not imported: composing a configuration must not load it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sparse_xp.modifiers import (
    Distillation,
    EmbeddingPruning,
    LayerPruning,
    Modifier,
    Quantization,
    StructuredPruning,
)

#: how far the zeros of a result may be from the number in its name: rounding in small matrices
TOLERANCE = 0.01
#: the same for what is removed, in whole heads
TOLERANCE_REMOVED = 0.05


@dataclass(kw_only=True)
class Promise:
    """What the name of a recipe says about a result.

    Attributes:
        recipe: The recipe whose name it is. A run of another ``recipe.name`` has promised nothing.
        prunes: ``zeros``: weights are zero. ``learned``: as many as training decides. ``removes``: heads and neurons
            are removed. ``nothing``: a dense model.
        sparsity: The fraction in the name. None: the name has none, and ``recipe.sparsity`` says it.
        speedup: How many times as fast as the dense model, for a recipe that removes what a speed needs.
        quantized: Whether its file computes in 8 bits.
        distills: Whether it trains with a teacher.
    """

    recipe: str
    prunes: str = "nothing"
    sparsity: float | None = None
    speedup: float | None = None
    quantized: bool = False
    distills: bool = False


@dataclass(frozen=True)
class Composed:
    """What a run is composed of, as far as a promise is about it.

    ``name``: ``recipe.name``. ``sparsity``: ``recipe.sparsity``. ``words``: the overrides as typed.
    """

    name: str
    sparsity: float
    modifiers: Collection[Modifier]
    words: tuple[str, ...] = ()

    @property
    def zeros(self) -> float | None:
        """The largest fraction of zeros that a modifier makes or keeps; None if none does."""
        return max((each.zeros_at_end for each in self.modifiers if each.zeros_at_end is not None), default=None)

    @property
    def remover(self) -> StructuredPruning | None:
        """The modifier that removes heads and neurons."""
        return next((each for each in self.modifiers if isinstance(each, StructuredPruning)), None)

    @property
    def decides_sparsity(self) -> bool:
        """Whether a modifier makes as many zeros as the weights decide."""
        return any(each.decides_sparsity for each in self.modifiers)

    @property
    def prunes(self) -> bool:
        """Whether weights become zero, or go."""
        return self.zeros is not None or self.remover is not None or self.decides_sparsity or bool(self.cutters)

    @property
    def cutters(self) -> list[Modifier]:
        """The modifiers that take away whole layers, or dimensions of the embeddings."""
        return [each for each in self.modifiers if isinstance(each, LayerPruning | EmbeddingPruning)]

    def has(self, kind: type[Modifier]) -> bool:
        """Return whether a modifier is of this kind."""
        return any(isinstance(each, kind) for each in self.modifiers)

    def chosen(self, group: str) -> str | None:
        """Return the word that chose an option of ``group``; None if nobody typed one."""
        return next((word for word in reversed(self.words) if word.startswith(f"{group}=")), None)

    def typed(self, *keys: str) -> str | None:
        """Return the last word that sets one of ``keys`` or a key below it; None if nobody typed one."""
        starts = tuple(f"{key}{end}" for key in keys for end in ("=", "."))
        found = [word for word in self.words if word.lstrip("+~").startswith(starts) or word.lstrip("~") in keys]
        return found[-1] if found else None


def broken_promise(promise: Promise | None, run: Composed) -> str | None:
    """Return how a run contradicts the name of its recipe, as a message; None if it does not."""
    bound = promise is not None and run.name == promise.recipe
    if promise and bound and (fault := _fault_of_pruning(promise, run) or _fault_of_quantization(promise, run)):
        return (
            f"recipe={promise.recipe} {fault} Leave one of the two out. If you mean both, give the result a name of "
            "its own: recipe.name=NAME."
        )
    word = run.typed("recipe.sparsity")
    if word and run.sparsity and run.decides_sparsity:
        return f"{word} has no effect: training decides how many zeros there are. Set sparsity.final_lambda instead."
    if word and run.sparsity and not run.prunes:
        who = run.chosen("sparsity") or run.chosen("recipe") or f"recipe={run.name}"
        return (
            f"{word} asks for {percent(run.sparsity)}, and {who} prunes nothing. Choose how: sparsity=gradual, or a "
            "recipe that prunes, such as recipe=gradual80."
        )
    return None


def _fault_of_pruning(promise: Promise, run: Composed) -> str | None:
    """Return what the run prunes otherwise than promised, as the end of a sentence that begins with the recipe."""
    sparsity, remover = run.sparsity, run.remover
    if promise.prunes == "nothing":
        # Nobody who left the recipe out has asked for a dense model.
        if not (run.prunes and run.chosen("recipe")):
            return None
        cutter = f"{type(run.cutters[0]).__name__}" if run.cutters else "this run"
        return f"prunes nothing, and {run.chosen('sparsity') or run.typed('sparsity') or cutter} does."
    if promise.prunes == "learned":
        there = run.typed("sparsity") or run.chosen("experiment") or "this run"
        return None if run.decides_sparsity else f"learns how many zeros there are, and {there} does not."
    if promise.prunes == "zeros":
        says = f"promises {percent(sparsity)} zeros, and "
        there = run.typed("sparsity", "recipe.start_sparsity") or run.chosen("experiment") or "this run"
        if run.decides_sparsity:
            return f"{says}{run.typed('sparsity') or 'this run'} makes as many as the weights decide."
        if run.zeros is None:
            return f"{says}{there} {'removes heads and neurons instead' if remover else 'makes none'}."
        if abs(run.zeros - sparsity) > 1e-6:
            return f"{says}{there} {'asks for' if run.zeros < sparsity else 'makes'} {percent(run.zeros)}."
        return None
    there = run.typed("sparsity") or run.chosen("experiment") or "this run"
    if promise.speedup is not None:
        if remover is None or remover.target_speedup is None:
            return f"promises a speed, and {there} prunes for none."
        return None
    says = f"promises to remove {percent(sparsity)} of the encoder, and {there}"
    if remover is None:
        return f"{says} removes nothing."
    if remover.target_speedup is not None:
        return f"{says} removes what makes it {remover.target_speedup:g} times as fast."
    if remover.final_sparsity is None or abs(remover.final_sparsity - sparsity) > 1e-6:
        return f"{says} removes {percent(remover.final_sparsity or 0)}."
    return None


def _fault_of_quantization(promise: Promise, run: Composed) -> str | None:
    """Return that a file of 8 bits is promised and not made, as the end of a sentence."""
    if not promise.quantized or run.has(Quantization):
        return None
    return f"promises 8 bits, and {run.typed('quantization') or 'this run'} keeps floating point."


def covers_too_little(promise: Promise | None, run: Composed, covered: float) -> str | None:
    """Return the message for a run whose modifiers own too few weights to keep its promise; None if they suffice.

    Args:
        promise: The promise of the recipe.
        run: What the run is composed of.
        covered: The fraction of the weights of the encoder's matrices that modifiers prune, in [0, 1].
    """
    if promise is None or run.name != promise.recipe or promise.prunes != "zeros":
        return None
    if run.sparsity * covered >= run.sparsity - TOLERANCE:
        return None
    return (
        f"recipe={run.name} promises {percent(run.sparsity)} zeros in the encoder, and sparsity.params and "
        f"sparsity.exclude leave out {percent(1 - covered)} of its weights. Give the result a name of its own: "
        "recipe.name=NAME."
    )


def shortfall(promise: Promise | None, run: Composed, zeros: float, removed: float) -> str | None:
    """Return the message for a result that has less than its name promises; None if the promise is kept.

    Args:
        promise: The promise of the recipe.
        run: What the run is composed of.
        zeros: The fraction of zeros in the matrices of the encoder, in [0, 1].
        removed: The fraction of their weights that was removed.
    """
    if promise is None or run.name != promise.recipe or promise.speedup is not None:
        return None
    if promise.prunes in ("nothing", "learned"):
        return None
    removes, sparsity = promise.prunes == "removes", run.sparsity
    if removes and run.remover and run.remover.cost_metric != "parameters":
        return None  # the promised share is of multiplications
    reached, slack = (removed, TOLERANCE_REMOVED) if removes else (zeros, TOLERANCE)
    if reached >= sparsity - slack:
        return None
    what = "of the encoder's weights removed" if removes else "zeros in the encoder"
    return (
        f"recipe={run.name} promises {percent(sparsity)} {what}, and the trained model has {percent(reached)}. The "
        "model is kept. The same command with recipe.name=NAME and hydra.run.dir= this directory delivers it under "
        "another name."
    )


def result_name(promise: Promise | None, run: Composed, zeros: float | None = None, removed: float = 0.0) -> str:
    """Return the name of a result in tables: that of its recipe, and how the result differs from what that says.

    Args:
        promise: The promise of the recipe.
        run: What the run is composed of.
        zeros: The measured fraction of zeros in the matrices of the encoder. None: not measured yet.
        removed: The measured fraction of their weights that was removed.
    """
    if promise is None or run.name != promise.recipe:
        return run.name
    # A run without a recipe that prunes is called after the modifier that does.
    pruners = [
        type(each).__name__
        for each in run.modifiers
        if each.zeros_at_end is not None or each is run.remover or each.decides_sparsity or each in run.cutters
    ]
    name = " and ".join(pruners) if pruners and promise.prunes == "nothing" else run.name
    parts = [name, *_pruning_part(promise, run, zeros, removed)]
    if promise.distills and not distills(run.modifiers):
        parts.append("without teacher")
    return " ".join(parts)


def _pruning_part(promise: Promise, run: Composed, zeros: float | None, removed: float) -> list[str]:
    """Return how a result is pruned otherwise than its recipe says."""
    remover = run.remover
    if promise.prunes == "nothing":
        if removed > TOLERANCE:
            return [f"with {percent(removed)} removed"]
        level = zeros if zeros is not None else run.zeros or 0.0
        return [f"at {percent(level)}"] if level > TOLERANCE else []
    if promise.speedup is not None:
        speedup = remover.target_speedup if remover else None
        return [f"at {speedup:g} times"] if speedup is not None and speedup != promise.speedup else []
    if promise.sparsity is None:
        return []
    level, more = run.sparsity, []
    if promise.prunes == "zeros":
        if zeros is not None and zeros > level + TOLERANCE:
            level = zeros  # a checkpoint with more zeros than were asked for
        more = [f"with {percent(removed)} removed"] if removed > TOLERANCE else []
    elif removed > level + TOLERANCE_REMOVED:
        level = removed  # another modifier has taken layers
    return [*([f"at {percent(level)}"] if abs(level - promise.sparsity) > 1e-6 else []), *more]


def distills(modifiers: Iterable[Modifier]) -> bool:
    """Return whether a teacher has a part in the loss."""
    return any(isinstance(each, Distillation) and each.hardness > 0 for each in modifiers)


def percent(fraction: float) -> str:
    """Return a fraction in per cent: 80 %, 97.5 %."""
    return f"{round(100 * fraction, 1):g} %"
