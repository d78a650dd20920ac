"""``python -m sparse_xp.export``: export a trained run, or any trained model, and check the file again.

    python -m sparse_xp.export run=outputs/squad,bert_base,pruned80,seed=27942
    python -m sparse_xp.export run=DIR export.max_metric_diff_int8=1     (a run whose file was refused)
    python -m sparse_xp.export task=squad model.checkpoint=DIR_OR_HUB_ID out=DIR

A run is examined with its own task, data and tolerances, which words such as ``export.opset=18`` or ``data.root=DIR``
change; its ``deployment/`` and the figures in ``result.json`` are replaced. The same command finishes a run that the
gate stopped. With ``out=DIR`` the run stays as it is and ``task.max_eval_samples=100`` and the like may be changed too.
A model takes every word that ``python -m sparse_xp`` takes; nothing is trained.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import OmegaConf

from sparse_xp.cli import as_written
from sparse_xp.compose import to_object
from sparse_xp.console import say
from sparse_xp.deployment.bundle import complete
from sparse_xp.deployment.model_card import model_card, run_card
from sparse_xp.errors import UserError, did_you_mean, short_errors, wants_traceback
from sparse_xp.files import marked, one_at_a_time, reading, whole_directory
from sparse_xp.functional.measured import Sparsity
from sparse_xp.history import read_history
from sparse_xp.places import CONF
from sparse_xp.recipe.file import resolve
from sparse_xp.result import TRAINED, Deployment, Result, summary, summary_of
from sparse_xp.run import MOVE_AWAY
from sparse_xp.run_directory import CHECKPOINTS, RESULT, WHOLE, clear, kept_around
from sparse_xp.settings import Data, Export
from sparse_xp.tasks import TASKS, Task

#: what to do about an ``out=`` that holds something else
ANOTHER = "Name a directory that is not there yet, or one that this command made."
#: the parts of a run's configuration that matter once it is trained
PARTS = ("task", "data", "export", "eval_batch_size")


def export_run(directory: Path, words: list[str], out: Path | None) -> Deployment:
    """Export the run in ``directory``, finished or only trained. Raises UserError for one that is neither."""
    if out:
        refuse_of_run(out)
    with one_at_a_time(out, say) if out else one_at_a_time(directory, say) if directory.is_dir() else nullcontext():
        return export_alone(directory, words, out)


def refuse_of_run(out: Path) -> None:
    """Raise UserError for a place inside of what is kept as a whole, a run's deployment among it."""
    real = Path(os.path.realpath(out))
    inside = kept_around(real.parent)
    if not inside and marked(real.parent) == "run" and real.name in (*WHOLE, CHECKPOINTS):
        inside = "run"
    if inside:
        raise UserError(
            f"out={out} is inside of a {inside}, which tells of its own files alone. Name another directory; a run's "
            "own deployment is written by python -m sparse_xp.export run=DIR without out=."
        )


def export_alone(directory: Path, words: list[str], out: Path | None) -> Deployment:
    """The same with nobody else at work in ``directory``."""
    from sparse_xp.report.run_report import write_report

    stored = next((directory / name for name in (RESULT, TRAINED) if os.path.lexists(directory / name)), None)
    if stored is None:
        begun = (directory / "config.yaml").is_file()
        state = "an unfinished run: issue its command again first" if begun else "no run"
        raise UserError(f"{directory} holds {state}. A model without a run: task=NAME model.checkpoint=DIR out=DIR.")
    task, data, settings, batch = parts_of_run(directory, words)
    result = Result.read(stored)
    if not out and (other := next((word for word in words if word.startswith("task.")), None)):
        raise UserError(f"{other} would score other rows than the run's. Give out=DIR to leave its result as it is.")
    lines = [] if out else read_history(directory / "history.jsonl")
    if lines and (last := lines[-1]["step"]) < result.training.steps:
        raise UserError(
            f"{directory}/history.jsonl ends at step {last} of {result.training.steps}: it is cut. Restore it, or "
            "leave the run as it is and export into a directory of its own with out=DIR."
        )
    place = out or directory / "deployment"
    with whole_directory(place, "deployment", ANOTHER if out else MOVE_AWAY) as draft:
        made = deploy(task, data, settings, batch, directory / "model", None, draft)
        say(f"in PyTorch: {result.metric} {made.metrics[result.metric]:.2f} (run: {result.metrics[result.metric]:.2f})")
        rows = replace(result.training, eval_rows=made.rows[0], eval_rows_of=made.rows[1])
        result = replace(result, deployment=made.deployment, training=rows)
        complete(draft, run_card(made.task, data, result), directory / "recipe.yaml")
    say(f"{place}\n  {summary(result)}")
    if not out:
        write_report(directory, result, lines)
        result.write(directory / RESULT)
        clear(directory)
    return made.deployment


def parts_of_run(directory: Path, words: list[str]) -> tuple[Task, Data, Export, int]:
    """Task, data, tolerances and batch of the run in ``directory``, with ``words`` (``key=value``) applied."""
    for word in words:
        if (group := word.split("=")[0].split(".")[0]) not in PARTS:
            raise UserError(f"{word}: {group} is settled once a run is finished; {', '.join(PARTS)} can be changed.")
    path = directory / "config.yaml"
    alone = f"The model can be exported without it: task=NAME model.checkpoint={directory}/model out=DIR."
    with reading(path, f"It may be of another version. {alone}"):
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind, batch = stored["task"].pop("kind"), stored["train"]["eval_batch_size"]
        schema = {"task": TASKS[kind], "data": Data, "export": Export}
        base: Any = OmegaConf.create({name: OmegaConf.structured(cls) for name, cls in schema.items()})
        OmegaConf.set_struct(base, False)
        merged: Any = OmegaConf.merge(base, {name: stored[name] for name in schema} | {"eval_batch_size": int(batch)})
        OmegaConf.set_struct(merged, True)
    merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(words))
    try:
        found: list[Any] = [OmegaConf.to_object(merged[name]) for name in schema]
        found[2].check(found[0])
    except ValueError as error:
        raise UserError(str(error)) from error
    return (*found, int(merged.eval_batch_size))


def export_model(words: list[str], out: Path | None) -> Deployment:
    """Export a trained model that no run of ours has made."""
    if not out:
        raise UserError("out=DIR is needed: where the deployment folder of the model is to be.")
    refuse_of_run(out)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="export"):
        config = resolve(to_object(hydra.compose("config", overrides=as_written(words))))
    if not config.model.checkpoint:
        raise UserError("model.checkpoint=DIR is needed (a model directory or a hub id), or run=DIR, a finished run.")
    checkpoint, revision = config.model.checkpoint, config.model.revision
    settings = config.train.eval_batch_size
    with one_at_a_time(out, say), whole_directory(out, "deployment", ANOTHER) as draft:
        made = deploy(config.task, config.data, config.export, settings, checkpoint, revision, draft)
        complete(draft, model_card(made.task, config.data, checkpoint, made.rows, made.deployment, made.zeros), None)
    say(f"{out}\n  {summary_of(made.deployment, made.zeros, 'int8' if made.deployment.integers else None)}")
    return made.deployment


@dataclass
class Deployed:
    """What was exported: the task as resolved, the metrics in PyTorch, the rows scored and of how many, the zeros."""

    deployment: Deployment
    metrics: dict[str, float]
    task: Task
    rows: tuple[int, int]
    zeros: Sparsity


def deploy(
    task: Task,
    data: Data,
    settings: Export,
    eval_batch_size: int,
    checkpoint: str | Path,
    revision: str | None,
    out: Path,
) -> Deployed:
    """Write and prove ``out``."""
    import torch

    from sparse_xp.console import hush_libraries
    from sparse_xp.deployment.export import export
    from sparse_xp.evaluation import Subject, evaluate
    from sparse_xp.functional.fake_quant import load_integers
    from sparse_xp.functional.masks import measure
    from sparse_xp.functional.structured import removed
    from sparse_xp.models.loading import check_labels, load_model, load_tokenizer, read_config
    from sparse_xp.recipe.inherit import removed_layers
    from sparse_xp.tasks.features import make_features
    from sparse_xp.tasks.rows import load_rows

    hush_libraries()
    tokenizer = load_tokenizer(str(checkpoint), revision)
    loaded = load_rows(task, data, train=False)
    rows, task = loaded.rows, task.resolved(loaded.rows)
    check_labels(task, read_config(str(checkpoint), revision), f"the model {checkpoint}", "Choose a model of the task.")
    # A head that does not fit is refused below: there is no training here that could make a new one.
    model, missing = load_model(
        task, str(checkpoint), revision, new_head=True, removed_layers=removed_layers(str(checkpoint))
    )
    if missing:
        raise UserError(
            f"{checkpoint} has no trained head for task {task.name} (missing: {', '.join(missing)}); train it with "
            f"python -m sparse_xp task={task.name} model.checkpoint={checkpoint}."
        )
    load_integers(model, Path(checkpoint))
    features = make_features(task, rows, loaded.origin, tokenizer, data, train=False)
    subject = Subject(
        task=task,
        tokenizer=tokenizer,
        model=model,
        rows=rows,
        eval_features=features,
        eval_batch_size=eval_batch_size,
        device=torch.device("cpu"),
    )
    metrics = evaluate(subject)
    found = measure(model)
    return Deployed(
        deployment=export(subject, out, settings, metrics),
        metrics=metrics,
        task=task,
        rows=(len(rows), loaded.total),
        zeros=Sparsity(found.prunable, found.encoder, found.model, found.layers, removed(model)),
    )


def main(words: list[str]) -> None:
    """Run the command with these words."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return
    if wrong := next((word for word in words if "=" not in word), None):
        raise UserError(f"{wrong}: want KEY=VALUE.{did_you_mean(wrong, ('run=', 'task=', 'out='))}")
    ours = {key: value for key, _, value in (word.partition("=") for word in words) if key in ("run", "out")}
    others = [word for word in words if word.split("=")[0] not in ours]
    out = Path(ours["out"]) if "out" in ours else None
    if "run" in ours:
        export_run(Path(ours["run"]), others, out)
    else:
        export_model(others, out)


def cli() -> None:
    """The command: one short message for an error that the user can mend."""
    with short_errors(wants_traceback(), hint=True):
        main(sys.argv[1:])


if __name__ == "__main__":
    cli()
