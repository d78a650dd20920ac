"""Which family of encoders goes through which recipe and task?  python benchmarks/families.py --out DIR

Builds a tiny checkpoint of every family with random weights and its own kind of tokenizer (``tests/families.py``), and
makes whole runs of it: training, export, the comparison of the exported file with PyTorch, one prediction, and with
--benchmark the timing of the file. Prints a table in Markdown: the metric of the exported file, or the
beginning of the error. With --only, families and recipes whose names contain the word.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sparse_xp import benchmark_command
from sparse_xp.compose import to_object
from sparse_xp.config import register
from sparse_xp.deployment.pipeline import Pipeline
from sparse_xp.errors import UserError
from sparse_xp.places import CONF
from sparse_xp.recipe.file import resolve
from sparse_xp.run import run
from tests.families import FAMILIES, build_checkpoint

#: few steps: the table shows whether a run finishes, not how well it learns
SHORT = (
    "profile=embedded",
    "log=none",
    "data.embedded_train_rows=64",
    "data.embedded_eval_rows=16",
    "train.epochs=2",
    "train.batch_size=16",
    "train.warmup=0",
    "task.max_length=96",
)
TASKS = {
    "sst2": ("one text", ()),
    "qnli": ("two texts", ()),
    "squad": ("questions", ("task.doc_stride=24",)),
    "conll2003": ("entities", ()),
    "wikipedia_mlm": ("masked words", ()),
}
TEXTS = {
    "sst2": {"sentence": "a fine film"},
    "qnli": {"question": "who sleeps?", "sentence": "the cat sleeps"},
    "squad": {"question": "who sleeps?", "context": "the cat sleeps"},
    "conll2003": {"text": "John lives in Paris."},
    "wikipedia_mlm": {"text": "the cat sleeps"},
}
#: those with a teacher of the same task
CLASSIFIED = ("sst2", "qnli", "squad", "conll2003")
LAYERS = """\
distillation_modifiers:
  - !PerLayerDistillationModifier
      start_epoch: 0.0
      end_epoch: -1.0
      gain: 1.0
"""


@dataclass(frozen=True)
class Recipe:
    """A column of the table. ``words``: of the command. ``tasks``: those that it is tried on."""

    name: str
    words: Sequence[str]
    tasks: Sequence[str] = ("sst2",)
    sparse_start: bool = False
    teacher: bool = True


RECIPES = (
    Recipe("dense", ("recipe=dense",), tuple(TASKS), teacher=False),
    Recipe("gradual80", ("recipe=gradual80",), CLASSIFIED),
    Recipe("gradual90", ("recipe=gradual80", "recipe.sparsity=0.9")),
    Recipe("obert80", ("recipe=obert80", "sparsity.num_grads=8", "sparsity.grad_batch_size=4")),
    Recipe("pruned80_quant", ("recipe=pruned80_quant",), sparse_start=True),
    Recipe("prune70_quant", ("recipe=prune70_quant",), CLASSIFIED),
    Recipe("structured50_quant", ("recipe=structured50_quant", "sparsity.multiple=4"), CLASSIFIED),
    Recipe("speedup4", ("recipe=speedup4", "sparsity.target_speedup=1.2", "sparsity.multiple=4",
                        "sparsity.latency=onnxruntime:auto:1x96")),
    Recipe("layers", ("recipe=file", "recipe.path={recipe}")),
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints and runs")
    parser.add_argument("--only", nargs="*", default=[], help="families or recipes")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--benchmark", action="store_true", help="time every exported file as well")
    options = parser.parse_args()
    register()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "layers.yaml").write_text(LAYERS)
    families = [name for name in FAMILIES if name in options.only] or list(FAMILIES)
    recipes = [recipe for recipe in RECIPES if recipe.name in options.only] or list(RECIPES)
    print("| family | task | " + " | ".join(recipe.name for recipe in recipes) + " |")
    print("|---|---|" + "---|" * len(recipes))
    for family in families:
        for task in options.tasks:
            cells = [
                cell(options.out, family, task, recipe, options.benchmark) if task in recipe.tasks else ""
                for recipe in recipes
            ]
            print(f"| {family} | {TASKS[task][0]} | " + " | ".join(cells) + " |", flush=True)


def cell(out: Path, family: str, task: str, recipe: Recipe, timed: bool) -> str:
    """Return the metric of the exported file of one run, or the beginning of its error."""
    log, begin = io.StringIO(), time.perf_counter()
    directory = out / "runs" / family / task / recipe.name
    if directory.exists():
        shutil.rmtree(directory)
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            score = run_cell(out, family, task, recipe, directory, timed)
        text = f"{score:.1f}"
    except UserError as error:
        text = str(error).split(",")[0]
    except Exception as error:  # a fault of ours: it stands in the table, and its traceback in the log
        traceback.print_exc(file=log)
        text = f"**{type(error).__name__}**: {str(error).splitlines()[0][:90] if str(error) else ''}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    (directory.parent / f"{recipe.name}.log").write_text(f"{log.getvalue()}\n{time.perf_counter() - begin:.1f} s\n")
    return text


def run_cell(out: Path, family: str, task: str, recipe: Recipe, directory: Path, timed: bool) -> float:
    """Make one run, predict with its exported file, and return the metric of that file."""
    words = [word.format(recipe=out / "layers.yaml") for word in recipe.words]
    if recipe.teacher:
        teacher = out / "runs" / family / task / "dense"
        words += ["teacher=checkpoint", f"teacher.path={teacher}", "train.batch_size=16"]
    checkpoint = checkpoint_of(out, family, recipe.sparse_start)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config",
            overrides=[
                f"task={task}", *words, *SHORT, *TASKS[task][1], "model=bert_base", "model.revision=null",
                f"model.checkpoint={checkpoint}", f"data.cache={out}/cache",
            ],
        )  # fmt: skip
        result = run(resolve(to_object(config)), directory)
    Pipeline(directory / "deployment")(**TEXTS[task])
    if timed:
        dense = out / "runs" / family / task / "dense"
        against = [] if directory == dense else [f"against={dense}"]
        benchmark_command.main([f"run={directory}", *against, "lengths=16", "batch=1", "rounds=2"])
    return result.deployment.metrics[result.metric]


def checkpoint_of(out: Path, family: str, sparse: bool) -> Path:
    """Return the directory of a checkpoint of ``family``, built once; ``sparse``: at 80 %."""
    directory = out / "checkpoints" / f"{family}{'_sparse' if sparse else ''}"
    if not directory.exists():
        build_checkpoint(family, directory, 0.8 if sparse else 0.0)
    return directory


if __name__ == "__main__":
    main()
