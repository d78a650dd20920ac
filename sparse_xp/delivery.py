"""Deliver a trained run: a model for PyTorch, a checked file for onnxruntime, a row for the table.

``deliver`` is the last step of ``run.execute``. It writes ``model/``, ``trained.json``, ``deployment/``, ``report.md``
and ``result.json``, in this order.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sparse_xp.config import Config, composed
from sparse_xp.console import say
from sparse_xp.deployment import bundle
from sparse_xp.deployment.export import export_checked
from sparse_xp.deployment.measured_latency import read_latency
from sparse_xp.deployment.model_card import run_card
from sparse_xp.errors import UserError
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.writing import write_text
from sparse_xp.functional.compression import measure_compression
from sparse_xp.functional.quant_file import save_quantization
from sparse_xp.functional.sparsity import measure_sparsity
from sparse_xp.functional.structured.config import removal_summary
from sparse_xp.modifiers.layer_pruning import LayerPruning
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.modifiers.quantization import Quantization
from sparse_xp.portable import portable_command, portable_path
from sparse_xp.preparation import PreparedData
from sparse_xp.promises import result_name, shortfall
from sparse_xp.provenance import record_provenance
from sparse_xp.recipe import inherit
from sparse_xp.recipe.saved import write_recipe
from sparse_xp.report.compare import dense_score
from sparse_xp.report.rows import run_row
from sparse_xp.report.run_report import write_report
from sparse_xp.result import NO_DEPLOYMENT, RESULT, TRAINED, Provenance, Result, Training, result_summary
from sparse_xp.run_directory import ERROR, remove_temporary_files
from sparse_xp.training.environment import PATIENCE, device_name, precision_name
from sparse_xp.training.shared_evaluation import evaluate_together
from sparse_xp.training.state import Run
from sparse_xp.training.trackers.summary import finished_values, trained_values
from sparse_xp.training.trackers.tracking import log_result, log_summary
from sparse_xp.training.unlabeled import features_per_epoch

#: the remedy where a user's own file is in the way
MOVE_AWAY = "Move it away, and issue the command again."


def deliver(
    run: Run, config: Config, data: PreparedData, metrics: dict[str, float], config_hash: str, command: str | None
) -> None:
    """Save the model, export and check it, and write the result. Called by rank 0.

    ``metrics``: of the model in PyTorch.
    ``result.json`` is written last: it marks the run as finished. ``trained.json`` is written before the export: if the
    export gate stops the run, ``sparse_xp.export`` can finish it from there.
    """
    save_model(run, config.recipe.inherit)
    recorded = record_provenance(config_hash, run.origin, command)
    trained = make_result(config, run, metrics, recorded, (data.train.total, data.evaluation.total))
    try:
        check_outcome(run, config, trained)
        trained.write(run.directory / TRAINED)
        result = export_result(run, config, trained)
    except UserError:  # a promise or the gate: the tracker shows the run as one without a valid file
        log_summary(run.accelerator, trained_values(trained), run.step)
        raise
    write_report(run.directory, result, run.history.read())
    values = finished_values(result, dense_score_of(run.directory, result), read_latency(run.directory))
    log_result(run.accelerator, result, values, config.log.artifacts)
    result.write(run.directory / RESULT)
    remove_temporary_files(run.directory)
    step, clock = result.training.best_step, run.clock
    trained_until = f"of step {step}/{clock.total_steps} (epoch {clock.epoch(step):g})"
    say(f"{run.directory}\n  {trained_until}, {result_summary(result)}")


def wait_for_result(directory: Path) -> Result:
    """Return the result that rank 0 delivers, on another rank. Raises UserError if it fails, or takes a day.

    Nothing is exchanged meanwhile: a collective operation of the GPUs would time out.
    """
    began = time.monotonic()
    while not os.path.lexists(directory / RESULT):
        if os.path.lexists(directory / ERROR) or time.monotonic() - began > PATIENCE.total_seconds():
            raise UserError(f"{directory}: process 0 has delivered no result; it says why.")
        time.sleep(0.5)
    return Result.read(directory / RESULT)


def export_result(run: Run, config: Config, trained: Result) -> Result:
    """Write ``deployment/`` and return the result with it. Raises UserError if the gate refuses the file."""
    with atomic_directory(run.directory / "deployment", "deployment", MOVE_AWAY) as draft:
        result = replace(trained, deployment=export_checked(run, draft, config.export, trained.metrics))
        bundle.write_card_and_recipe(draft, run_card(config.task, config.data, result), run.directory / "recipe.yaml")
    return result


def dense_score_of(directory: Path, result: Result) -> float | None:
    """Return the score of the dense run that a result is measured by, as tables have it; None if none is known.

    It is looked for at the teacher's place and beside the run. A result that cannot be read is passed over.
    """
    beside = directory.resolve().parent
    places = {beside / Path(result.teacher).name} if result.teacher else set()
    rows = []
    for place in places | {path.parent for path in beside.glob(f"*/{RESULT}")}:
        with suppress(UserError, OSError):
            rows.append(run_row(place, Result.read(place / RESULT)))
    return dense_score(run_row(directory, result), rows)


def final_metrics(run: Run, config: Config) -> dict[str, float]:
    """Return the metrics of the delivered model, on rank 0. Every process calls it.

    The model is evaluated again only if the best metrics are not its own.
    """
    changed = any(modifier.post_training for modifier in run.modifier_list.modifiers.values())
    return run.progress.best if config.train.keep_best and not changed else evaluate_together(run)


def make_result(
    config: Config, run: Run, metrics: dict[str, float], recorded: Provenance, totals: tuple[int, int]
) -> Result:
    """Return the row of the table, without the deployed file. Paths in it are portable (``portable``).

    ``totals``: numbers of training and evaluation rows in the data, before subsetting.
    """
    seconds, removed = run.progress.seconds, removal_summary(run.model, dropped_layers(run))
    teacher = portable_path(config.teacher.path, run.directory) if config.teacher.path else None
    return Result(
        task=config.task.name,
        model=config.model.name,
        recipe=result_name(
            config.recipe.promise, composed(config), *pruned_shares(run, removed.share if removed else 0.0)
        ),
        profile=config.profile,
        seed=config.seed,
        metric=config.task.metric,
        metrics=metrics,
        deployment=NO_DEPLOYMENT,
        sparsity=replace(measure_sparsity(run.model, pruned_names(run)), removed=removed),
        training=Training(
            epochs=run.clock.epoch(run.step),
            steps=run.step,
            seconds=round(seconds, 3),
            samples_per_second=round(run.clock.epoch(run.step) * features_per_epoch(run) / max(seconds, 1e-9), 3),
            device=device_name(run.accelerator),
            precision=precision_name(run.accelerator),
            train_rows=run.num_train_rows,
            eval_rows=len(run.eval_rows),
            train_rows_of=totals[0],
            eval_rows_of=totals[1],
            best_step=run.progress.best_step if config.train.keep_best else run.step,
            skipped=run.progress.skipped,
            unlabeled_rows=run.num_unlabeled_rows,
        ),
        teacher=teacher or (config.teacher.source if config.teacher.given else None),
        provenance=replace(recorded, command=portable_command(recorded.command, run.directory)),
        quantization=quantization_option(run),
        compression=measure_compression(run.model, len(dropped_layers(run))),
    )


def check_outcome(run: Run, config: Config, result: Result) -> None:
    """Raise UserError for a trained model that has less than the name of its recipe promises."""
    zeros, removed = pruned_shares(run, result.sparsity.removed.share if result.sparsity.removed else 0.0)
    if message := shortfall(config.recipe.promise, composed(config), zeros, removed):
        raise UserError(message)


def pruned_shares(run: Run, removed: float) -> tuple[float, float]:
    """Return the fraction of zeros in the matrices of the encoder, and ``removed``, the fraction that is gone."""
    return measure_sparsity(run.model).prunable, removed


def save_model(run: Run, inherits: bool = True) -> None:
    """Write ``model/``. ``inherits``: as in ``write_model``."""
    run.modifier_list.check(run)
    with atomic_directory(run.directory / "model", "model", MOVE_AWAY) as draft:
        write_model(run, draft, inherits)


def write_model(run: Run, directory: Path, inherits: bool) -> None:
    """Write the weights in floating point, the quantization scales, the tokenizer and the recipe into ``directory``.

    Stock ``from_pretrained`` loads it. ``sparse_xp.structured.load`` loads a model with removed heads, or with layers
    of different numbers of neurons. ``inherits``: the recipe comes behind that of the checkpoint (``recipe.inherit``).
    """
    run.model.save_pretrained(directory)
    run.tokenizer.save_pretrained(directory)
    save_quantization(run.model, directory)
    write_text(directory / inherit.FILE, recipe_text(run, inherits))


def recipe_text(run: Run, inherits: bool) -> str:
    """Return the recipe of the run in SparseML's format, behind that of the checkpoint where the run ``inherits``."""
    arguments = {
        "per_device_train_batch_size": run.train.batch_size,
        "per_device_eval_batch_size": run.train.eval_batch_size,
        "precision": precision_name(run.accelerator),
    }
    base = inherit.read_base(run.source) if inherits else None
    return write_recipe(run.modifier_list.modifiers, run.clock, base, arguments)


def dropped_layers(run: Run) -> list[int]:
    """Return the numbers of the layers that ``LayerPruning`` has taken out, in the model that the run began with."""
    names = [name for modifier in run.modifiers(LayerPruning) for name in modifier.removed]
    return sorted({int(name.rpartition(".")[2]) for name in names})


def quantization_option(run: Run) -> str | None:
    """Return the option of ``quantization=`` that describes the run, None for floating point."""
    names = [modifier.option for modifier in run.modifiers(Quantization)]
    return " ".join(names) or None


def pruned_names(run: Run) -> list[str] | None:
    """Return the names of the weights that pruning modifiers own, None if there is no such modifier."""
    # By identity, to get the names after training: removing layers renumbers the others.
    owned = {id(weight) for modifier in run.modifiers(Pruning) for weight in modifier.targets.values()}
    names = [name for name, weight in run.model.named_parameters() if id(weight) in owned]
    return names or None
