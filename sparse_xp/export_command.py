"""``python -m sparse_xp.export``: export a trained run, or any trained model, and check the file again.

    python -m sparse_xp.export run=outputs/squad,bert_base,pruned80,seed=27942
    python -m sparse_xp.export run=DIR export.max_metric_diff_int8=1     (a run whose file was refused)
    python -m sparse_xp.export task=squad model.checkpoint=DIR_OR_HUB_ID out=DIR
    python -m sparse_xp.export task=squad model.checkpoint=DIR_OR_HUB_ID out=DIR quantization=ptq_int8 [max_loss=2]
        [benchmark=true]

A run is exported with its own task, data and tolerances, unless overrides such as ``export.opset=18`` or
``data.root=DIR`` change them; its ``deployment/`` and the figures in ``result.json`` are replaced. The same command
finishes a run that the gate stopped. With ``out=DIR`` the run is unchanged, and settings such as
``task.max_eval_samples=100`` may be overridden too. A model accepts every override of ``python -m sparse_xp``; nothing
is trained.

``quantization=ptq_int8`` makes a file of 8 bits from a model in floating point: 512 training rows settle the ranges of
activations. ``quantization=int8_dynamic`` finds them in each batch and needs no training rows. The file is refused if
it loses more than ``max_loss`` points of the task's metric (2 by default) against the model in floating point.
``benchmark=true`` measures its speed beside the same model exported in floating point.
"""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import OmegaConf

from sparse_xp import benchmark_command
from sparse_xp.cli import quote_paths
from sparse_xp.compose import to_object
from sparse_xp.config import register
from sparse_xp.console import say
from sparse_xp.data.hub import check_available, go_offline_if_unreachable, is_local_checkpoint
from sparse_xp.deploy import Deployed, check_outside_runs, deploy
from sparse_xp.deployment.bundle import write_card_and_recipe
from sparse_xp.deployment.model_card import model_card, run_card
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.locks import file_lock
from sparse_xp.files.reading import explain_read_errors, resolve_model_dir
from sparse_xp.history import read_history
from sparse_xp.migration.command import answer_flags
from sparse_xp.models.source import resolve_checkpoint
from sparse_xp.modifiers import Quantization
from sparse_xp.places import CONF
from sparse_xp.post_training import OPTIONS, PostTraining, post_training
from sparse_xp.recipe.file import resolve
from sparse_xp.recipe.inherit import read_base
from sparse_xp.renamed_keys import current_task_fields
from sparse_xp.report.run_report import write_report
from sparse_xp.result import RESULT, TRAINED, Deployment, Result, deployment_summary, result_summary
from sparse_xp.run_directory import remove_temporary_files
from sparse_xp.settings import Data, Export, Model, TinyModel
from sparse_xp.tasks import TASKS
from sparse_xp.tasks.base import Task

#: what to do about an ``out=`` that holds something else
ANOTHER = "Name a directory that is not there yet, or one that this command made."
#: the command that measures the speed of a file
BENCHMARK = "python -m sparse_xp.benchmark"
#: the parts of a run's configuration that matter once it is trained
PARTS = ("task", "data", "export", "eval_batch_size")


def main(argv: list[str]) -> None:
    """Run the command."""
    if any(argument.startswith("--") for argument in argv) and (
        answer := answer_flags(["sparseml.export_onnx", *argv])
    ):
        raise UserError(answer)
    if wrong := next((argument for argument in argv if "=" not in argument), None):
        raise UserError(f"{wrong}: expected KEY=VALUE.{did_you_mean(wrong, ('run=', 'task=', 'out='))}")
    keys = ("run", "out", "max_loss", "benchmark")
    options = {key: value for key, _, value in (argument.partition("=") for argument in argv) if key in keys}
    overrides = [argument for argument in argv if argument.split("=")[0] not in keys]
    out = Path(options["out"]) if "out" in options else None
    if "run" in options:
        if other := next((key for key in ("max_loss", "benchmark") if key in options), None):
            raise UserError(f"{other}= is for a model that is quantized here: task=NAME model.checkpoint=DIR out=DIR.")
        export_run(Path(options["run"]), overrides, out)
    else:
        export_model(overrides, out, max_loss_of(options), flag_of(options))


def max_loss_of(options: dict[str, str]) -> float:
    """Return ``max_loss=``, in points. Raises UserError for anything but a number from 0."""
    text = options.get("max_loss", "2")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise UserError(f"max_loss={text}: expected points of the task's metric, a number from 0, such as max_loss=2.")
    return value


def flag_of(options: dict[str, str]) -> bool:
    """Return ``benchmark=``. Raises UserError for anything but true and false."""
    text = options.get("benchmark", "false")
    if text not in ("true", "false"):
        raise UserError(f"benchmark={text}: expected true or false.")
    return text == "true"


def export_run(directory: Path, overrides: list[str], out: Path | None) -> Deployment:
    """Export the run in ``directory``, finished or only trained. Raises UserError for one that is neither.

    ``overrides``: KEY=VALUE of PARTS. ``out``: where to, None to replace the run's own deployment and result.
    """
    if out:
        check_outside_runs(out, "out=")
    locked = out or (directory if directory.is_dir() else None)
    with file_lock(locked, say) if locked else nullcontext():
        return _export_locked_run(directory, overrides, out)


def _export_locked_run(directory: Path, overrides: list[str], out: Path | None) -> Deployment:
    # The run's wing is imported late: it loads torch.
    from sparse_xp.delivery import MOVE_AWAY

    path = find_result(directory)
    task, data, settings, batch = parts_of_run(directory, overrides)
    result = Result.read(path)
    if not out and (other := next((override for override in overrides if override.startswith("task.")), None)):
        raise UserError(f"{other} would score other rows than the run's. Give out=DIR to leave its result as it is.")
    history = [] if out else read_history(directory / "history.jsonl")
    if history and (last := history[-1]["step"]) < result.training.steps:
        raise UserError(
            f"{directory}/history.jsonl ends at step {last} of {result.training.steps}: it is cut. Restore it, or "
            "leave the run as it is and export into a directory of its own with out=DIR."
        )
    target = out or directory / "deployment"
    with atomic_directory(target, "deployment", ANOTHER if out else MOVE_AWAY) as draft:
        teacher = teacher_of_run(directory) if task.compares_with_teacher else None
        deployed = deploy(task, data, settings, batch, directory / "model", None, draft, teacher=teacher)
        score, before = deployed.metrics[result.metric], result.metrics[result.metric]
        say(f"in PyTorch: {result.metric} {score:.2f} (run: {before:.2f})")
        training = replace(result.training, eval_rows=deployed.rows[0], eval_rows_of=deployed.rows[1])
        result = replace(result, deployment=deployed.deployment, training=training)
        write_card_and_recipe(draft, run_card(deployed.task, data, result), directory / "recipe.yaml")
    say(f"{target}\n  {result_summary(result)}")
    if not out:
        write_report(directory, result, history)
        result.write(directory / RESULT)
        remove_temporary_files(directory)
    return deployed.deployment


def find_result(directory: Path) -> Path:
    """Return the file with the result of a run, finished or only trained. Raises UserError if it has none."""
    path = next((directory / name for name in (RESULT, TRAINED) if os.path.lexists(directory / name)), None)
    if path is None:
        begun = (directory / "config.yaml").is_file()
        state = "an unfinished run: issue its command again first" if begun else "no run"
        raise UserError(f"{directory} holds {state}. A model without a run: task=NAME model.checkpoint=DIR out=DIR.")
    return path


def parts_of_run(directory: Path, overrides: list[str]) -> tuple[Task, Data, Export, int]:
    """Return task, data, export settings and evaluation batch size of a run, with ``overrides`` (KEY=VALUE) applied."""
    for override in overrides:
        if (group := override.split("=")[0].split(".")[0]) not in PARTS:
            way_out = (
                f" Its model can be quantized into a folder of its own: task=NAME model.checkpoint={directory} out=DIR "
                f"{override}."
            )
            raise UserError(
                f"{override}: {group} is settled once a run is finished; {', '.join(PARTS)} can be changed."
                + way_out * (group == "quantization")
            )
    path = directory / "config.yaml"
    alone = f"The model can be exported without it: task=NAME model.checkpoint={directory}/model out=DIR."
    with explain_read_errors(path, f"It may be of another version. {alone}"):
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind, batch = stored["task"].pop("kind"), stored["train"]["eval_batch_size"]
        stored["task"] = current_task_fields(stored["task"], [field.name for field in fields(TASKS[kind])])
        schema = {"task": TASKS[kind], "data": Data, "export": Export}
        base: Any = OmegaConf.create({name: OmegaConf.structured(cls) for name, cls in schema.items()})
        # The batch size is not in the schema; an unknown key among the overrides is an error again.
        OmegaConf.set_struct(base, False)
        merged: Any = OmegaConf.merge(base, {name: stored[name] for name in schema} | {"eval_batch_size": int(batch)})
        OmegaConf.set_struct(merged, True)
    merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(overrides))
    try:
        parts: list[Any] = [OmegaConf.to_object(merged[name]) for name in schema]
        task, data, settings = parts
        settings.check(task.name, task.max_length)
    except ValueError as error:
        raise UserError(str(error)) from error
    return task, data, settings, int(merged.eval_batch_size)


def teacher_of_run(directory: Path) -> str:
    """Return the checkpoint that a run is compared with: its teacher's, else the one that training started from."""
    path = directory / "config.yaml"
    with explain_read_errors(path, "It may be of another version."):
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        if stored["teacher"]["path"]:
            return resolve_model_dir(str(stored["teacher"]["path"]))
        kind = TinyModel if "layers" in stored["model"] else Model
        return resolve_checkpoint(kind(**stored["model"]), Path(str(stored["data"]["cache"])) / "models")


def export_model(overrides: list[str], out: Path | None, max_loss: float = 2.0, benchmarks: bool = False) -> Deployment:
    """Export a trained model that is not of a run, and quantize it first if asked to.

    ``overrides``: those of ``python -m sparse_xp``. ``max_loss``: how many points a model quantized here may lose.
    ``benchmarks``: measure its speed beside the same model in floating point.
    """
    if not out:
        raise UserError("out=DIR is needed: where the deployment folder of the model is to be.")
    check_outside_runs(out, "out=")
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="export"):
        config = resolve(to_object(hydra.compose("config", overrides=quote_paths(overrides))))
    if not config.model.checkpoint:
        raise UserError("model.checkpoint=DIR is needed (a model directory or a hub id), or run=DIR, a finished run.")
    checkpoint, revision, batch = (
        resolve_model_dir(config.model.checkpoint),
        config.model.revision,
        config.train.eval_batch_size,
    )
    check_checkpoint(checkpoint, revision)
    quantizing = post_training(config.quantization, overrides, checkpoint, max_loss)
    if benchmarks and not quantizing:
        raise UserError(f"benchmark=true is for a model that is quantized here. Otherwise: {BENCHMARK} model={out}")
    as_float = "quantization=none" in overrides

    def export_into(draft: Path, quantizing: PostTraining | None) -> Deployed:
        deployed = deploy(
            config.task, config.data, config.export, batch, checkpoint, revision, draft, quantizing, as_float
        )
        option = quantizing.option if quantizing else ""
        card = model_card(
            deployed.task, config.data, checkpoint, deployed.rows, deployed.deployment, deployed.zeros, option
        )
        write_card_and_recipe(draft, card, None)
        return deployed

    with file_lock(out, say), atomic_directory(out, "deployment", ANOTHER) as draft:
        deployed = export_into(draft, quantizing)
    deployment = deployed.deployment
    name = quantizing.quantization.option if quantizing else "int8" if deployment.integers else None
    say(f"{out}\n  {deployment_summary(deployment, deployed.zeros, name)}")
    if not quantizing:
        if not deployment.integers and not as_float and was_made_in_8_bits(checkpoint):
            say(f"  {checkpoint} was made in 8 bits, and this file is in floating point. In 8 bits: {OPTIONS}")
        return deployment
    scores = "  ".join(f"{metric} {value:.2f}" for metric, value in deployed.metrics.items())
    say(
        f"  in floating point: {scores}  {deployed.float_bytes / 1e6:.2f} MB, "
        f"{deployed.float_bytes / deployment.bytes:.1f} times the size of the file"
    )
    if benchmarks:
        measured = Path(f"{out}-benchmark")
        measured.mkdir(parents=True, exist_ok=True)
        with atomic_directory(measured / "floating_point", "deployment", ANOTHER) as draft:
            export_into(draft, None)
        lengths = f"lengths={config.export.sequence or config.task.max_length}"
        reference = f"against={measured / 'floating_point'}"
        benchmark_command.main([f"model={out}", reference, lengths, "batch=1", f"out={measured}"])
    else:
        say("  its speed beside floating point: the same command with benchmark=true")
    return deployment


def check_checkpoint(checkpoint: str, revision: str | None) -> None:
    """Raise UserError unless there is such a model directory, or the hub, or its local cache, has it."""
    if not is_local_checkpoint(checkpoint):
        go_offline_if_unreachable()
        check_available("model", checkpoint, revision)


def was_made_in_8_bits(checkpoint: str) -> bool:
    """Return whether the recipe beside a checkpoint's weights says that it was trained in 8 bits."""
    base = read_base(checkpoint)
    return base is not None and any(isinstance(each, Quantization) for each in base.modifiers.values())
