"""What the speeds are measured of, most important first."""

from __future__ import annotations

from dataclasses import dataclass

#: pruned along a ramp, from stored logits; masks are made as often as with all rows of SST-2
PRUNED = (
    "recipe=gradual80", "sparsity.update_frequency=100 steps", "teacher=checkpoint", "teacher.path=CHECKPOINT",
)  # fmt: skip
COMPILED = "train.compile=true"
#: the way of one who does without this package
TRAINER = "transformers.Trainer"
#: rows that a case reads: enough for its steps
ROWS = {"sst2": 6000, "squad": 1500, "long": 400, "wikipedia_mlm": 3000}


#: what a rehearsal reads of each task, and its batch
FEW_ROWS, FEW = 24, 2


@dataclass(frozen=True)
class Case:
    """A loop whose steps are timed.

    ``shape``: ``minilm`` or ``base``; ``task``: ``long`` is SQuAD with rows of 384 tokens. ``words``: of the command;
    TRAINER alone for that one. ``at``: the place in the run, 0 to 1, whose steps are made. ``rounds``: how often.
    """

    name: str
    shape: str
    task: str
    batch: int
    words: tuple[str, ...]
    at: float = 0.3
    rounds: int = 3


def pair(shape: str, task: str, batch: int) -> list[Case]:
    """Return our loop and the Trainer's on the same rows, batch and teacher."""
    words = ("recipe=upstream80", "teacher=self") if task == "wikipedia_mlm" else PRUNED
    name = f"{task} {shape} {batch}"
    ours = Case(f"{name}, ours", shape, task, batch, (*words, "train.precision=fp16"))
    return [ours, Case(f"{name}, Trainer", shape, task, batch, (TRAINER,))]


def compiled(case: Case) -> Case:
    """Return the case with ``train.compile=true``, which takes too long to be repeated."""
    return Case(f"{case.name}, compiled", case.shape, case.task, case.batch, (*case.words, COMPILED), case.at, 1)


def plain(name: str, *words: str, at: float = 0.3) -> Case:
    """Return a case without a teacher: what a kind of modifier costs."""
    precision = "train.precision=bf16"
    return Case(name, "minilm", "sst2", 32, (*words, "teacher=none", precision), at)


PEAK = Case("long base 64 bf16, ours", "base", "long", 64, ("recipe=dense", "teacher=none", "train.precision=bf16"))
DENSE = plain("step: dense", "recipe=dense")
MODIFIERS = [
    DENSE,
    plain(
        "step: QAT", "recipe=dense", "quantization=int8", "quantization.start=0.0", "quantization.observers_end=null"
    ),
    plain("step: masks at rest", "recipe=gradual80", at=0.8),
    plain("step: structured, scores gathered", "recipe=structured50", at=0.0),
    plain("step: masks being made", "recipe=gradual80"),
    plain("step: movement", "recipe=gradual80", "sparsity=movement"),
]
PAIRS = [
    pair("minilm", "sst2", 32), pair("base", "squad", 16), pair("minilm", "squad", 16), pair("base", "sst2", 32),
    pair("minilm", "sst2", 128), pair("minilm", "wikipedia_mlm", 32), pair("base", "wikipedia_mlm", 32),
    pair("base", "sst2", 128),
]  # fmt: skip
CASES = [
    *PAIRS[0], *PAIRS[1], PEAK, *MODIFIERS[:4], compiled(PAIRS[0][0]), compiled(PEAK), *MODIFIERS[4:],
    *(case for two in PAIRS[2:] for case in two), compiled(PAIRS[1][0]),
]  # fmt: skip
