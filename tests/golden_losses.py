"""The losses of short runs, recorded: whoever changes a number of training sees it here.

Each case is a run of 20 optimizer steps in fp32 on one thread. ``make golden`` records them again, in
``tests/golden/losses.json``; the commit that changes that file says why.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from sparse_xp.run import run
from tests.runs import configure, history, without_export

RECORD = Path(__file__).parent / "golden/losses.json"

BRIEF = (
    "profile=embedded",
    "log=none",
    "data.embedded_train_rows=128",
    "data.embedded_eval_rows=32",
    "train.batch_size=8",
    "train.steps=20",
    "train.precision=fp32",
    "train.threads=1",
    "log.every=1",
)

#: every kind of task, trained densely; some of these runs teach those below
TASKS: dict[str, tuple[str, ...]] = {
    "squad": ("task=squad",),
    "squad_v2": ("task=squad_v2",),
    "sst2": ("task=sst2",),
    "mnli": ("task=mnli",),
    "multi_label": ("task=sst2", "task.problem=multi_label", "task.classes=[blames,praises,insists]"),
    "regression": ("task=sst2", "task.problem=regression", "task.classes=[]"),
    "conll2003": ("task=conll2003",),
    "wikipedia": ("task=wikipedia", "recipe=teacher_preparation"),
    "wikipedia_mlm": ("task=wikipedia_mlm",),
}

#: each recipe by its name: the task, which is its teacher's too, and what else it is told
RECIPES: dict[str, tuple[str, ...]] = {
    "pruned80": ("squad",),
    "gradual80": ("squad_v2",),
    "pruned80_quant": ("conll2003",),
    "obert80": (
        "mnli",
        "sparsity.num_grads=16",
        "sparsity.fisher_block_size=16",
        "train.gradient_accumulation_steps=2",
    ),
    "structured50_quant": ("sst2",),
    "prune70_quant": ("squad", "train.max_grad_norm=null"),
    "pruneofa_quant": ("sst2",),
    "upstream80": ("wikipedia_mlm",),
    "movement": ("multi_label", "recipe=gradual80", "sparsity=movement"),
    "acdc": ("regression", "recipe=gradual80", "sparsity=acdc"),
}


def losses(place: Path) -> dict[str, list[dict[str, float]]]:
    """Loss and norm of the gradient of every step of every case; the runs are made below ``place``."""
    found = {}
    cases = {f"dense_{name}": (*TASKS[name],) for name in TASKS}
    cases |= {
        f"{name}_{task}": (
            *[word for word in TASKS[task] if not word.startswith("recipe=")],
            *([] if any(word.startswith("recipe=") for word in words) else [f"recipe={name}"]),
            "teacher=checkpoint",
            f"teacher.path={place}/dense_{task}",
            *words,
        )
        for name, (task, *words) in RECIPES.items()
    }
    with without_export():
        for case, words in cases.items():
            config = configure(*BRIEF, f"data.cache={place}/cache", *words)
            run(config, place / case)
            found[case] = [
                {name: line[name] for name in ("loss", "grad_norm")} for line in history(place / case) if "loss" in line
            ]
    return found


def record() -> None:
    """Write the losses of the code as it is into ``RECORD``."""
    with tempfile.TemporaryDirectory() as place:
        found = losses(Path(place))
    lines = ",\n".join(f"  {json.dumps(case)}: {json.dumps(steps)}" for case, steps in found.items())
    RECORD.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    record()
