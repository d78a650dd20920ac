"""One experiment, from a configuration to a row of a table."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sparse_xp.config import Config, Log, Train, result_hash
from sparse_xp.console import console, say, show_config
from sparse_xp.errors import UserError
from sparse_xp.files import write_text
from sparse_xp.hub import go_offline_if_unreachable
from sparse_xp.result import Result, Sparsity, Training, provenance

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sparse_xp.loop import Run


def run(config: Config, directory: Path) -> Result:
    """Train, evaluate, export and record one run in ``directory``; continue it, or return it, if it is there already."""
    config_hash = result_hash(config)
    if finished := find_finished(directory, config_hash):
        say(f"{directory}: finished already, {finished.metric} {finished.metrics[finished.metric]:.2f}")
        return finished
    needs_hub = config.data.source == "hub" or any(
        place and not Path(place).is_dir() for place in (config.model.checkpoint, config.teacher.path)
    )
    if needs_hub:
        go_offline_if_unreachable()
    directory.mkdir(parents=True, exist_ok=True)
    show_config(asdict(config))
    write_config(config, directory, config_hash)

    accelerator = make_accelerator(config.train, config.log.tracker, directory)
    try:
        return execute(config, directory, accelerator, config_hash)
    finally:
        accelerator.end_training()
        # Accelerate keeps its settings in the process: the next run of a sweep may want others.
        from accelerate.state import AcceleratorState, GradientState

        accelerator.free_memory()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def execute(config: Config, directory: Path, accelerator: Accelerator, config_hash: str) -> Result:
    """The straight line of one run."""
    import torch

    from sparse_xp import checkpoint, data, model
    from sparse_xp.clock import Clock
    from sparse_xp.export import export
    from sparse_xp.history import History
    from sparse_xp.loop import Progress, Run, Shell, evaluate, train
    from sparse_xp.recipe import Recipe
    from sparse_xp.report import write_report
    from sparse_xp.sparsity import measure

    task, settings, cache = config.task, config.train, Path(config.data.cache)
    hush_libraries()
    seed_everything(config.seed)

    # Rows become features.
    source = model.locate(config.model, cache / "models")
    model.is_local(source)
    tokenizer = model.load_tokenizer(config.model.tokenizer or source, config.model.revision)
    train_rows, train_origin = data.load_rows(task, config.data, train=True)
    eval_rows, eval_origin = data.load_rows(task, config.data, train=False)
    train_features = data.make_features(task, train_rows, train_origin, tokenizer, cache / "features", train=True)
    eval_features = data.make_features(task, eval_rows, eval_origin, tokenizer, cache / "features", train=False)

    # Student, teacher, and the clock that the recipe's times are read on.
    student, new_weights = model.load_model(
        task, source, config.model.revision, config.model.dropout, config.model.attention
    )
    teacher = model.load_teacher(task, config.teacher.path, tokenizer) if config.teacher.path else None
    steps = data.epoch_steps(
        len(train_features), settings.batch_size, settings.gradient_accumulation_steps, config.seed, 0, 0, accelerator.num_processes
    )
    clock = Clock.of(settings.epochs, len(steps))
    recipe = Recipe(config.modifiers(), clock)
    history = History(directory / "history.jsonl", config.log.every, accelerator, accelerator.is_main_process)
    this = Run(
        directory=directory, source=source, seed=config.seed, task=task, train=settings, tokenizer=tokenizer,
        model=student, teacher=teacher, accelerator=accelerator, clock=clock, recipe=recipe, history=history,
        rows=eval_rows, train_features=train_features, eval_features=eval_features, progress=Progress(),
    )  # fmt: skip

    # Structure first, then the optimizer over it, then the state of an interrupted run.
    recipe.attach(this)
    optimizer = torch.optim.AdamW(model.parameter_groups(student), lr=settings.learning_rate)
    this.wrapped, this.optimizer = accelerator.prepare(Shell(student), optimizer)
    if teacher:
        teacher.to(accelerator.device)
    if checkpoint.restore(this):
        history.rewind(this.progress.step)
        say(f"continuing at step {this.progress.step} of {clock.total_steps}")
    else:
        history.rewind(0)
        say(
            f"{task.name}: {len(train_rows)} rows, {len(train_features)} features, {clock.total_steps} steps of "
            f"{clock.end:g} epochs from {source} on {accelerator.device} in {accelerator.mixed_precision}"
            f"{'; new weights: ' + ', '.join(new_weights) if new_weights else ''}"
        )
    start_trackers(accelerator, config.log, directory, asdict(config))

    train(this)
    accelerator.wait_for_everyone()
    if settings.keep_best:
        checkpoint.load_best(this)
    recipe.detach(this)
    metrics = this.progress.best if settings.keep_best else evaluate(this)

    # What is delivered: a model for PyTorch, a file for onnxruntime, a row for the table.
    if accelerator.is_main_process:
        save_model(this)
        deployment = export(this, config.export, metrics)
        zeros = measure(student, pruned_names(this))
        result = Result(
            task=task.name, model=config.model.name, recipe=config.recipe.name, profile=config.profile, seed=config.seed,
            metric=task.metric, metrics=metrics, deployment=deployment, sparsity=Sparsity(**asdict(zeros)),
            training=Training(
                epochs=clock.end, steps=clock.total_steps, seconds=round(this.progress.seconds, 3),
                samples_per_second=round(clock.end * len(train_features) / max(this.progress.seconds, 1e-9), 3),
                device=device_name(accelerator), precision=precision_name(accelerator), train_rows=len(train_rows),
                eval_rows=len(eval_rows), best_step=this.progress.best_step or clock.total_steps,
            ),
            teacher=config.teacher.path,
            provenance=provenance(config_hash, data.digest([train_origin, eval_origin, len(train_rows), len(eval_rows)])),
        )  # fmt: skip
        write_report(directory, result, history.read())
        accelerator.log({f"final/{k}": v for k, v in metrics.items()}, step=clock.total_steps)
        result.write(directory / "result.json")
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        shutil.rmtree(directory / "best", ignore_errors=True)
        scores = "  ".join(f"{name} {value:.2f}" for name, value in deployment.metrics.items())
        say(f"{directory}\n  exported file: {scores}  sparsity {zeros.prunable:.1%}  {deployment.bytes / 1e6:.2f} MB "
            f"({deployment.compressed_bytes / 1e6:.2f} MB compressed)")  # fmt: skip
    accelerator.wait_for_everyone()
    return Result.read(directory / "result.json")


def find_finished(directory: Path, config_hash: str) -> Result | None:
    """The result in ``directory`` if its run is finished. Raises UserError if the directory holds another run."""
    stored = directory / "config.yaml"
    if stored.exists():
        theirs = yaml.safe_load(stored.read_text(encoding="utf-8"))["config_hash"]
        if theirs != config_hash:
            raise UserError(
                f"{directory} holds a run of another configuration ({theirs}, this one is {config_hash}); compare its "
                "config.yaml. Remove the directory, or give this run its own with hydra.run.dir=."
            )
    path = directory / "result.json"
    return Result.read(path) if path.exists() else None


def write_config(config: Config, directory: Path, config_hash: str) -> None:
    """``config.yaml``: every resolved value. ``recipe.yaml``: the modifiers that run, by name, kind and fields."""
    fields = {"config_hash": config_hash, **asdict(config)}
    write_text(directory / "config.yaml", yaml.safe_dump(fields, sort_keys=False))
    recipe = {name: {"kind": type(m).__name__, **asdict(m)} for name, m in config.modifiers().items()}
    write_text(directory / "recipe.yaml", yaml.safe_dump({"recipe": config.recipe.name, "modifiers": recipe}, sort_keys=False))


def make_accelerator(settings: Train, tracker: str, directory: Path) -> Accelerator:
    """Device, precision and tracker."""
    import torch
    from accelerate import Accelerator

    if settings.threads:
        torch.set_num_threads(settings.threads)
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=choose_precision(settings.precision, cpu),
        log_with=None if tracker == "none" else tracker,
        project_dir=str(directory),
    )
    if tracker != "none" and not accelerator.log_with:
        raise UserError(f"log.tracker={tracker}, but {tracker} is not installed: pip install {tracker}, or write log=none.")
    return accelerator


def choose_precision(wanted: str, cpu: bool) -> str:
    """Accelerate's name for ``train.precision``. Raises UserError for fp16 on a CPU.

    ``auto``: fp16 on CUDA. On a CPU bf16 where the processor multiplies it natively, which is both sound (float32
    master weights, no loss scaling) and faster there (``benchmarks/precision.py``); float32 elsewhere.
    """
    import torch

    if wanted == "auto":
        if not cpu:
            return "fp16"
        return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"
    if wanted == "fp16" and cpu:
        raise UserError("train.precision=fp16 needs a GPU. On a CPU: train.precision=auto, fp32 or bf16.")
    return {"fp32": "no"}.get(wanted, wanted)


def precision_name(accelerator: Accelerator) -> str:
    """fp32, bf16 or fp16."""
    return {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)


def device_name(accelerator: Accelerator) -> str:
    """What the run ran on, with the number of processes or threads."""
    import torch

    if accelerator.device.type == "cuda":
        return f"{torch.cuda.get_device_name(accelerator.device)} x{accelerator.num_processes}"
    return f"cpu, {torch.get_num_threads()} threads"


def seed_everything(seed: int) -> None:
    """Python, numpy and torch."""
    from accelerate.utils import set_seed

    set_seed(seed)


def hush_libraries() -> None:
    """No bars and warnings of the libraries between our lines: what matters of them is in ours."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    if not console.is_terminal:
        datasets.disable_progress_bars()


def start_trackers(accelerator: Accelerator, log: Log, directory: Path, config: dict[str, Any]) -> None:
    """Open the tracker; a resumed W&B run keeps its id, so that it is one run there too."""
    if log.tracker == "none" or not accelerator.is_main_process:
        return
    options: dict[str, Any] = {}
    if log.tracker == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        known = directory / "wandb_id"
        if not known.exists():
            write_text(known, os.urandom(8).hex())
        options["wandb"] = {
            "mode": log.mode, "id": known.read_text(), "name": directory.name, "group": log.group, "tags": log.tags,
            "dir": str(directory), **({"resume": "allow"} if log.mode == "online" else {}),
        }  # fmt: skip
    flat = {"config": yaml.safe_dump(config)} if log.tracker == "tensorboard" else config
    accelerator.init_trackers(log.project, config=flat, init_kwargs=options)


def save_model(run: Run) -> None:
    """``model/``: loads with stock ``from_pretrained``."""
    from sparse_xp.files import whole_directory

    run.recipe.check(run)
    with whole_directory(run.directory / "model") as draft:
        run.model.save_pretrained(draft)
        run.tokenizer.save_pretrained(draft)


def pruned_names(run: Run) -> list[str] | None:
    """The weights that the run's pruning modifiers own, None (the encoder's) if it has none."""
    from sparse_xp.modifiers.pruning import Pruning

    names = [name for m in run.recipe.modifiers.values() if isinstance(m, Pruning) for name in m.targets]
    return names or None

