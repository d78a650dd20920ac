"""One experiment, from a configuration to a row of a table."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sparse_xp.clock import Clock
from sparse_xp.config import Config, result_hash
from sparse_xp.console import hush_libraries, say, show_config
from sparse_xp.data.hub import go_offline_if_unreachable, is_local
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import (
    explain_full_disk,
    is_signed,
    neighbours,
    of_run,
    one_at_a_time,
    reading,
    replace_signed,
    whole_directory,
    write_text,
)
from sparse_xp.functional.measured import Sparsity
from sparse_xp.history import History
from sparse_xp.modifiers.hooks import Recipe
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.modifiers.quantization import Quantization
from sparse_xp.recipe import inherit
from sparse_xp.result import NO_DEPLOYMENT, TRAINED, Provenance, Result, Training, provenance, summary
from sparse_xp.run_directory import ERROR, claim_run, clear, find_finished, is_run, stored_hash
from sparse_xp.target_cpu import settled
from sparse_xp.training.environment import device_name, log_artifacts, make_accelerator, precision_name, start_tracker

#: what to do about files of the user's own where a run would write
MOVE_AWAY = "Move it away, and issue the command again."

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sparse_xp.training.state import Run


def run(config: Config, directory: Path, command: str | None = None, show: bool = True) -> Result:
    """Train, evaluate, export and record one run in ``directory``, or continue it, or return it if it is finished.

    ``command``: what to record as the command of this run, by default that of this process. Two processes that are
    asked for the same run make it once: the second waits, and finds it finished. ``show``: whether to print the
    configuration, which is in config.yaml in any case; otherwise the directory alone.
    """
    # The processes of one run with several devices hold it together: the first of them for all.
    config_hash, first = result_hash(config), os.environ.get("RANK", "0") == "0"
    finished = find_finished(directory, config_hash)  # without a lock: the place may be read-only
    if not finished:
        with one_at_a_time(directory, say) if first else nullcontext():
            finished = find_finished(directory, config_hash)
            if not finished:
                return run_alone(config, directory, config_hash, first, command, show)
    if first:
        clear(directory)  # of a process that was killed between its result and this
    say(f"{directory}: finished already, {finished.metric} {finished.metrics[finished.metric]:.2f}")
    return finished


def run_alone(
    config: Config, directory: Path, config_hash: str, first: bool, command: str | None, show: bool
) -> Result:
    """The run, with nobody else at work in ``directory``; ``first``: of its processes, the one that writes."""
    if first:
        claim_run(directory)
        if is_signed(directory / ERROR):  # of an earlier attempt
            (directory / ERROR).unlink()
    check_places(config)
    needs_hub = config.data.source == "hub" or any(
        place and not Path(place).is_dir() for place in (config.model.checkpoint, config.teacher.path)
    )
    if needs_hub:
        go_offline_if_unreachable()
    if first:
        show_config(asdict(config)) if show else say(f"\n{directory}")
    accelerator = make_accelerator(config.train, config.log.tracker, directory)
    try:
        with explain_full_disk(directory, "run"):
            return execute(config, directory, accelerator, config_hash, command)
    finally:
        accelerator.end_training()
        # Accelerate keeps its settings in the process: the next run of a sweep may want others.
        from accelerate.state import AcceleratorState, GradientState

        accelerator.free_memory()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def check_places(config: Config) -> None:
    """Raise UserError for a file or directory that is named and not there, without waiting for torch."""
    for name in ("root", "train", "validation"):
        place = getattr(config.data, name)
        if place and not Path(place).exists():
            near = did_you_mean(Path(place).name, neighbours(Path(place)))
            raise UserError(f"data.{name}={place}: there is no such {'directory' if name == 'root' else 'file'}.{near}")
    for checkpoint in (config.model.checkpoint, config.teacher.path):
        if checkpoint:
            is_local(of_run(checkpoint))


def execute(config: Config, directory: Path, accelerator: Accelerator, config_hash: str, command: str | None) -> Result:
    """The straight line of one run."""
    # Imported here: a configuration is refused, and a finished run recognised, without waiting for torch.
    import torch
    from accelerate.utils import set_seed

    from sparse_xp.data import batches as data
    from sparse_xp.deployment.export import bundle, export
    from sparse_xp.deployment.model_card import run_card
    from sparse_xp.evaluation import evaluate
    from sparse_xp.models import loading as model
    from sparse_xp.report.run_report import write_report
    from sparse_xp.result import row
    from sparse_xp.tasks.rows import load_rows
    from sparse_xp.training import checkpoint
    from sparse_xp.training.loop import train
    from sparse_xp.training.state import Run, Shell
    from sparse_xp.training.teacher import make_teacher

    task, settings, cache = config.task, config.train, Path(config.data.cache)
    hush_libraries()
    set_seed(config.seed)

    # Rows become features. What the first process puts into the cache, the others read.
    with accelerator.main_process_first():
        source = model.locate(config.model, cache / "models")
    tokenizer = model.load_tokenizer(config.model.tokenizer or source, config.model.revision)
    with accelerator.main_process_first():
        loaded, examined = load_rows(task, config.data, train=True), load_rows(task, config.data, train=False)
    train_rows, eval_rows = loaded.rows, examined.rows
    task = task.resolved(train_rows).resolved(eval_rows)  # what the first fill in, the second are compared with
    config = replace(config, task=task)  # so that config.yaml has what was trained
    with accelerator.main_process_first():
        train_features = data.make_features(task, train_rows, loaded.origin, tokenizer, config.data, train=True)
        eval_features = data.make_features(task, eval_rows, examined.origin, tokenizer, config.data, train=False)
    remarks = [
        *config.recipe.remarks,
        *loaded.remarks,
        *examined.remarks,
        *task.remarks(train_features, True),
        *task.remarks(eval_features, False),
    ]
    for remark in remarks:
        say(remark)

    # Student, teacher, and the clock on which the recipe's times are read.
    student, new_weights = model.load_model(
        task,
        source,
        config.model.revision,
        config.model.dropout,
        config.model.attention,
        config.model.new_head,
        inherit.removed_layers(source),
    )
    if task.over_vocabulary and (heads := model.heads_of(new_weights)):
        say(
            f"{source} has no head for {', '.join(heads)}: a new one is trained (its matrix over the vocabulary is "
            "that of the embeddings); prune only what was prepared so (recipe=teacher_preparation)"
        )
    with accelerator.main_process_first():
        config = settled(config, student, directory, cache / "latency", made_integers(directory, config_hash))
    per_epoch = data.steps_per_epoch(len(train_features), settings, accelerator.num_processes)
    clock = Clock(per_epoch, settings.steps) if settings.steps else Clock.of(settings.epochs, per_epoch)
    this = Run(
        directory=directory,
        cache=cache,
        source=source,
        origin=data.digest([loaded.origin, examined.origin]),
        seed=config.seed,
        task=task,
        train=settings,
        eval_batch_size=settings.eval_batch_size,
        device=accelerator.device,
        tokenizer=tokenizer,
        model=student,
        accelerator=accelerator,
        clock=clock,
        recipe=Recipe(config.modifiers(), clock),
        history=History(directory / "history.jsonl", config.log.every, accelerator, accelerator.is_main_process),
        rows=eval_rows,
        train_rows=len(train_rows),
        train_features=train_features,
        eval_features=eval_features,
    )

    if config.teacher.given:
        path, revision = (
            (config.teacher.path, config.teacher.revision) if config.teacher.path else (source, config.model.revision)
        )
        taught = model.load_teacher(task, path, tokenizer, revision, inherit.removed_layers(of_run(path)))
        this.teacher = make_teacher(this, taught, config.teacher, cache / "logits")

    # Structure first, then the optimizer over it, then the state of an interrupted run.
    this.recipe.attach(this)
    groups = model.parameter_groups(student, this.recipe.parameters(this))
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    this.shell = Shell(student, task)
    this.wrapped, this.optimizer = accelerator.prepare(this.shell, optimizer)
    resumed = checkpoint.restore(this)
    this.history.rewind(this.progress.step, this.progress.lines)
    say(
        f"{task.name}: {len(train_rows)} rows, {len(train_features)} features, {clock.total_steps} steps of "
        f"{clock.end:g} epochs from {source} on {device_name(accelerator)} in {precision_name(accelerator)}"
        + (f"; continuing at step {this.progress.step}" if resumed else "")
        + (f"; new weights: {', '.join(new_weights)}" if new_weights else "")
    )
    if accelerator.is_main_process:
        write_config(config, directory, config_hash)
    start_tracker(accelerator, config.log, directory, asdict(config))

    train(this)
    if settings.keep_best:
        checkpoint.load_best(this)
    this.recipe.detach(this)

    # What is delivered: a model for PyTorch, a file for onnxruntime, a row for the table.
    if accelerator.is_main_process:
        changed = any(modifier.late for modifier in this.recipe.modifiers.values())
        metrics = this.progress.best if settings.keep_best and not changed else evaluate(this)
        save_model(this)
        origin = provenance(config_hash, this.origin, command)
        trained = make_result(config, this, metrics, origin, (loaded.total, examined.total))
        trained.write(directory / TRAINED)  # what the gate may stop; sparse_xp.export can finish it
        with whole_directory(directory / "deployment", "deployment", MOVE_AWAY) as draft:
            result = replace(trained, deployment=export(this, draft, config.export, metrics))
            bundle.complete(draft, run_card(config.task, config.data, result), directory / "recipe.yaml")
        write_report(directory, result, this.history.read())
        log_artifacts(accelerator, config.log, directory, row(result))
        result.write(directory / "result.json")
        clear(directory)
        kept = result.training.best_step
        say(f"{directory}\n  of step {kept}/{clock.total_steps} (epoch {clock.epoch(kept):g}), {summary(result)}")
    accelerator.wait_for_everyone()
    return Result.read(directory / "result.json")


def make_result(
    config: Config,
    run: Run,
    metrics: dict[str, float],
    origin: Provenance,
    totals: tuple[int, int],
) -> Result:
    """The row of the table, but for its deployment. Paths are told as others may read them."""
    from sparse_xp.functional.masks import measure
    from sparse_xp.functional.structured import removed
    from sparse_xp.result import told, told_command

    measured = measure(run.model, pruned_names(run))
    seconds = run.progress.seconds
    taught = told(config.teacher.path, run.directory) if config.teacher.path else None
    return Result(
        task=config.task.name,
        model=config.model.name,
        recipe=config.recipe.name,
        profile=config.profile,
        seed=config.seed,
        metric=config.task.metric,
        metrics=metrics,
        deployment=NO_DEPLOYMENT,
        sparsity=Sparsity(measured.prunable, measured.encoder, measured.model, measured.layers, removed(run.model)),
        training=Training(
            epochs=run.clock.end,
            steps=run.clock.total_steps,
            seconds=round(seconds, 3),
            samples_per_second=round(run.clock.end * len(run.train_features) / max(seconds, 1e-9), 3),
            device=device_name(run.accelerator),
            precision=precision_name(run.accelerator),
            train_rows=run.train_rows,
            eval_rows=len(run.rows),
            train_rows_of=totals[0],
            eval_rows_of=totals[1],
            best_step=run.progress.best_step if config.train.keep_best else run.clock.total_steps,
        ),
        teacher=taught or (config.teacher.source if config.teacher.given else None),
        provenance=replace(origin, command=told_command(origin.command, run.directory)),
        quantization=quantization(run),
    )


def made_integers(directory: Path, config_hash: str) -> bool | None:
    """Whether the run of this configuration that was begun in ``directory`` makes integers, None if there is none."""
    told = directory / "recipe.yaml"  # which is written after config.yaml
    if not os.path.lexists(told) or not is_run(directory) or stored_hash(directory) != config_hash:
        return None
    with reading(told, f"Restore it, or move {directory} away: the same command makes the run again."):
        recipe = yaml.safe_load(told.read_text(encoding="utf-8"))
        return any(modifier["kind"] == Quantization.__name__ for modifier in recipe["modifiers"].values())


def write_config(config: Config, directory: Path, config_hash: str) -> None:
    """``config.yaml`` has every resolved value, ``recipe.yaml`` the modifiers by name and kind."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = {"config_hash": config_hash, **asdict(config)}
    fields["task"] = {"kind": type(config.task).__name__, **fields["task"]}
    replace_signed(directory / "config.yaml", yaml.safe_dump(fields, sort_keys=False), "# ", "")
    recipe = {name: {"kind": type(m).__name__, **asdict(m)} for name, m in config.modifiers().items()}
    text = yaml.safe_dump({"recipe": config.recipe.name, "modifiers": recipe}, sort_keys=False)
    replace_signed(directory / "recipe.yaml", text, "# ", "")


def save_model(run: Run) -> None:
    """``model/`` in floating point; how it becomes integers stands beside it.

    It loads with stock ``from_pretrained``, but where heads, or unlike numbers of neurons, were removed: then with
    ``sparse_xp.structured.load``.
    """
    from sparse_xp.functional.fake_quant import save_integers

    run.recipe.check(run)
    with whole_directory(run.directory / "model", "model", MOVE_AWAY) as draft:
        run.model.save_pretrained(draft)
        run.tokenizer.save_pretrained(draft)
        save_integers(run.model, draft)
        write_text(draft / inherit.FILE, recipe_text(run))


def recipe_text(run: Run) -> str:
    """The recipe that ran in the dialect of SparseML, behind that of the checkpoint that it started from."""
    from sparse_xp.recipe.saved import write_recipe

    told = {
        "per_device_train_batch_size": run.train.batch_size,
        "per_device_eval_batch_size": run.train.eval_batch_size,
        "precision": precision_name(run.accelerator),
    }
    return write_recipe(run.recipe.modifiers, run.clock, inherit.read_base(run.source)[0], told)


def quantization(run: Run) -> str | None:
    """The option of ``quantization=`` that the run's integers are those of, None if it has none."""
    names = [modifier.option for modifier in run.recipe.modifiers.values() if isinstance(modifier, Quantization)]
    return " ".join(names) or None


def pruned_names(run: Run) -> list[str] | None:
    """The weights that the run's pruning modifiers own, None (the encoder's) if it has none.

    By the names that they have now: a modifier that removes layers numbers the others anew.
    """
    pruners = [modifier for modifier in run.recipe.modifiers.values() if isinstance(modifier, Pruning)]
    owned = {id(weight) for pruner in pruners for weight in pruner.targets.values()}
    names = [name for name, weight in run.model.named_parameters() if id(weight) in owned]
    return names or None
