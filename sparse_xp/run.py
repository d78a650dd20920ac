"""One run, from a ``Config`` to a row of the table. ``main.py`` lists the files that a run passes."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sparse_xp.config import Config, composed
from sparse_xp.console import say, show_config, silence_libraries
from sparse_xp.data.hub import check_available, check_hub_id, go_offline_if_unreachable, is_local_checkpoint
from sparse_xp.errors import UserError, did_you_mean, shortened
from sparse_xp.files.locks import file_lock
from sparse_xp.files.reading import explain_read_errors, resolve_model_dir, sibling_names
from sparse_xp.files.signed import is_signed, replace_signed
from sparse_xp.files.writing import explain_full_disk
from sparse_xp.identity import run_hash
from sparse_xp.inputs import check_inputs, record_inputs
from sparse_xp.models.loading import check_same_vocabulary
from sparse_xp.models.positions import check_local_text_length
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.modifiers.quantization import Quantization
from sparse_xp.processes import is_first_process
from sparse_xp.promises import covers_too_little
from sparse_xp.provenance import record_provenance
from sparse_xp.result import RESULT, Result
from sparse_xp.run_directory import ERROR, claim_run, find_finished, is_run, remove_temporary_files, stored_hash
from sparse_xp.target_cpu import with_chosen_precision
from sparse_xp.tasks.rows import Splits, load_splits, load_unlabeled
from sparse_xp.training.environment import check_device, determinism, device_name, devices, precision_name, seed_rank
from sparse_xp.training.optimizer import parameter_groups
from sparse_xp.training.trackers.tracking import check_installed, start_tracker, tracked_run

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sparse_xp.training.state import Run


def run(
    config: Config, directory: Path, command: str | None = None, show: bool = True, splits: Splits | None = None
) -> Result:
    """Start the run of ``config`` in ``directory``, continue it, or return its result if it is finished.

    ``command``: recorded as the command of the run. None: the command of this process. ``show``: whether to print the
    whole configuration, or only the directory. ``splits``: the rows, if they were read before. If two processes start
    the same run, the second waits and then returns the result of the first.
    """
    # In a run over several devices only rank 0 takes the lock.
    first = is_first_process()
    # before locking: the directory may be read-only
    finished = find_finished(directory, run_hash(directory, config))
    check_inputs(directory, config.task, config.data)
    if not finished:
        with file_lock(directory, say) if first else nullcontext():
            config_hash = run_hash(directory, config)  # again: another process may have held the lock
            finished = find_finished(directory, config_hash)
            if not finished:
                return run_alone(config, directory, config_hash, first, command, show, splits)
    if first:
        remove_temporary_files(directory)  # left by a process that was killed after it wrote result.json
    say(f"{directory}: finished already, {finished.metric} {finished.metrics[finished.metric]:.2f}")
    return finished


def run_alone(
    config: Config,
    directory: Path,
    config_hash: str,
    first: bool,
    command: str | None,
    show: bool,
    splits: Splits | None,
) -> Result:
    """Make the run, with ``directory`` locked. ``first``: whether this process is rank 0, the only one that writes."""
    splits = splits or load_data(config, directory)
    if first:
        claim_run(directory)
        if is_signed(directory / ERROR):  # left by an earlier attempt
            (directory / ERROR).unlink()
    check_paths(config)
    check_hub(config)
    check_installed(config.log.tracker)
    check_device(config.train)
    if first:
        show_config(asdict(config)) if show else say(f"\n{directory}")
    # torch is imported late, as in ``execute``
    from sparse_xp.training.checkpoint import recorded_numerics

    began = recorded_numerics(directory)
    with explain_full_disk(directory, "run"), determinism(config.train), devices(config.train, began) as accelerator:
        return execute(config, directory, accelerator, config_hash, command, splits)


def load_data(config: Config, directory: Path) -> Splits | None:
    """Return the rows of a run that is not finished, read from files or generated; None for those of the hub.

    It comes before everything that takes time or prints: what is wrong with a file is told at once.
    """
    on_hub = config.data.source == "hub"
    if os.path.lexists(directory / RESULT) or (on_hub and config.data.unlabeled is None):
        return None
    check_paths(config)
    if on_hub:
        load_unlabeled(config.task, config.data)  # what is wrong with this file is told now
        return None
    return load_splits(config.task, config.data)


def check_paths(config: Config) -> None:
    """Raise UserError for a file or directory that does not exist, before torch is loaded."""
    for name in ("root", "train", "validation", "unlabeled"):
        path = getattr(config.data, name)
        if path and not os.path.exists(path):
            near = did_you_mean(Path(path).name, sibling_names(Path(path)))
            what = "directory" if name == "root" else "file"
            raise UserError(f"data.{name}={shortened(path, 200)}: there is no such {what}.{near}")
    if config.model.tokenizer and not Path(config.model.tokenizer).is_dir():
        check_hub_id(config.model.tokenizer)
    for checkpoint in (config.model.checkpoint, config.teacher.path):
        if checkpoint:
            is_local_checkpoint(resolve_model_dir(checkpoint))
            check_local_text_length(resolve_model_dir(checkpoint), config.task, config.export.sequence)


def check_hub(config: Config) -> None:
    """Raise UserError unless the hub, or its local cache, has the checkpoints that are no directories.

    If the hub does not answer, only the cache is read from here on.
    """
    named = (
        ("model", config.model.checkpoint, config.model.revision),
        ("teacher", config.teacher.path, config.teacher.revision),
    )
    on_hub = [(what, name, revision) for what, name, revision in named if name and not Path(name).is_dir()]
    if on_hub or config.data.source == "hub":
        go_offline_if_unreachable()
    for what, name, revision in on_hub:
        check_available(what, name, revision)


def check_student(config: Config, splits: Splits | None, teacher: Config) -> None:
    """Raise UserError unless device and student can be had and the recipe fits, before a teacher is trained for it.

    ``splits``: the rows, if they were read before; their labels are compared with those of the checkpoint.
    ``teacher``: the run that is to train the teacher; it has to read the same tokens.
    """
    check_device(config.train)
    if not config.model.checkpoint:
        return
    check_paths(config)
    check_hub(config)
    # torch is imported late, as in ``execute``
    from sparse_xp.preparation import read_student, resolve_student

    silence_libraries()
    source, tokenizer = resolve_student(config)
    begins_from, teacher_tokenizer = resolve_student(teacher)
    check_same_vocabulary(begins_from, teacher_tokenizer, tokenizer)
    model, _ = read_student(config, splits.task if splits else config.task, source)
    for modifier in config.modifiers().values():
        modifier.check_model(model)


def execute(
    config: Config,
    directory: Path,
    accelerator: Accelerator,
    config_hash: str,
    command: str | None,
    splits: Splits | None,
) -> Result:
    """Make the run, from its data to the row of the table.

    The steps are in ``preparation.py`` (data and models), in this file (``start`` and ``finish``), in
    ``training/loop.py`` (``train``) and in ``delivery.py``.
    """
    # torch is imported late: a configuration is refused, and a finished run recognised, without waiting for it.
    from accelerate.utils import set_seed

    from sparse_xp.delivery import deliver, final_metrics, wait_for_result, write_model
    from sparse_xp.preparation import assemble, load_student, load_teacher, prepare_data, with_task
    from sparse_xp.training.loop import train
    from sparse_xp.training.profiling import profiled

    silence_libraries()
    set_seed(config.seed)
    for remark in config.recipe.remarks:
        say(remark)
    data = prepare_data(config, accelerator, splits)
    # ``config_hash`` stays that of the configuration as it was given: labels and measured precision follow from it.
    config = with_task(config, data)
    model, new_weights = load_student(config, data)
    with accelerator.main_process_first():
        # A latency target may leave the choice between int8 and fp32 to measurements. A resumed run keeps its choice.
        quantized_before = interrupted_run_quantizes(directory, config_hash)
        config = with_chosen_precision(config, model, directory, Path(config.data.cache) / "latency", quantized_before)
    this = assemble(config, directory, data, model, accelerator)
    this.teacher = load_teacher(config, this)
    start(this, config, config_hash, new_weights, splits.in_files if splits else {})
    with profiled(config.log.profile_steps if accelerator.is_main_process else 0, directory):
        train(this, partial(write_model, inherits=config.recipe.inherit))
    finish(this, config)
    metrics = final_metrics(this, config)
    if accelerator.is_main_process:
        deliver(this, config, data, metrics, config_hash, command)
        return Result.read(directory / RESULT)
    return wait_for_result(directory)


def start(this: Run, config: Config, config_hash: str, new_weights: list[str], in_files: dict[str, int]) -> None:
    """Attach the modifiers, create the optimizer, and restore the state of an interrupted run, in this order.

    Modifiers change the module tree in ``attach`` only, so the restored checkpoint has the same modules. ``in_files``:
    the number of rows in each file of rows.
    """
    import torch

    from sparse_xp.training import checkpoint
    from sparse_xp.training.compiler import compile_encoder
    from sparse_xp.training.state import TrainingWrapper

    accelerator = this.accelerator
    # Modifiers make their state where they find the weights.
    this.model.to(accelerator.device)
    this.modifier_list.attach(this)
    check_coverage(this, config)
    groups = parameter_groups(this.model, this.modifier_list.parameters(this))
    optimizer = torch.optim.AdamW(groups, lr=config.train.learning_rate, fused=True)
    compiled = None
    if config.train.compile:
        say("train.compile: the first steps compile the encoder, which takes a minute or more")
        compiled = compile_encoder(this.model, this.device, can_record_graphs(this))
    this.wrapper = TrainingWrapper(this.model, this.task, compiled)
    this.prepared_model, this.optimizer = accelerator.prepare(this.wrapper, optimizer)
    seed_rank(config.seed, accelerator.process_index)
    resumed = checkpoint.restore(this)
    # A killed run may have logged steps after its last checkpoint; they are made again.
    this.history.rewind(this.progress.step, this.progress.lines)
    say(
        f"{this.task.name}: {this.num_train_rows} rows, {len(this.train_features)} features, {unlabeled_part(this)}"
        f"{this.clock.total_steps} steps of {this.clock.end:g} epochs from {this.source} on {device_name(accelerator)} "
        f"in {precision_name(accelerator)}"
        + (f"; continuing at step {this.step}" if resumed else "")
        + (f"; new weights: {', '.join(new_weights)}" if new_weights else "")
    )
    if accelerator.is_main_process:
        record_inputs(config.task, config.data, config.model, config.teacher, in_files, this.directory)
        write_config(config, this.directory, config_hash)
    recorded = record_provenance(config_hash, this.origin)
    names = [config.task.name, config.model.name, config.recipe.name]
    tracked = tracked_run(config.log, this.directory, names, asdict(config), recorded)
    start_tracker(accelerator, config.log.tracker, tracked, this.history)


def unlabeled_part(this: Run) -> str:
    """Return what the line about the start of a run says of rows without labels; nothing if there are none."""
    if this.unlabeled_features is None:
        return ""
    share = f"{this.train.unlabeled_rows} of {this.train.batch_size} in a batch"
    return f"{this.num_unlabeled_rows} rows without labels ({share}), "


def can_record_graphs(this: Run) -> bool:
    """Return whether ``train.compile`` may record CUDA graphs.

    Gradients and observed ranges lie in the memory of a recording, which the next forward pass writes again.
    """
    one_batch = this.train.gradient_accumulation_steps == 1 and this.train.tokens is None
    one_batch = one_batch and this.accelerator.num_processes == 1 and this.unlabeled_features is None
    return this.device.type == "cuda" and one_batch and not this.modifiers(Quantization)


def check_coverage(this: Run, config: Config) -> None:
    """Raise UserError if the modifiers prune too few of the encoder's weights for the promise of the recipe."""
    from sparse_xp.functional.selection import select_parameters

    matrices = select_parameters(this.model, "__ENCODER__", strict=False).values()
    owned = {id(weight) for modifier in this.modifiers(Pruning) for weight in modifier.targets.values()}
    weights = sum(weight.numel() for weight in matrices)
    covered = sum(weight.numel() for weight in matrices if id(weight) in owned) / weights if weights else 1.0
    if message := covers_too_little(config.recipe.promise, composed(config), covered):
        raise UserError(message)


def finish(this: Run, config: Config) -> None:
    """Load the best weights (``train.keep_best``) and detach the modifiers, which leaves a plain model."""
    from sparse_xp.training import checkpoint

    if config.train.keep_best:
        checkpoint.load_best(this)
    this.modifier_list.detach(this)


def interrupted_run_quantizes(directory: Path, config_hash: str) -> bool | None:
    """Return whether the interrupted run in ``directory`` is quantized; None if there is no such run."""
    recipe_path = directory / "recipe.yaml"  # written after config.yaml
    if not os.path.lexists(recipe_path) or not is_run(directory) or stored_hash(directory) != config_hash:
        return None
    with explain_read_errors(
        recipe_path, f"Restore it, or move {directory} away: the same command makes the run again."
    ):
        recipe = yaml.safe_load(recipe_path.read_text(encoding="utf-8"))
        return any(modifier["kind"] == Quantization.__name__ for modifier in recipe["modifiers"].values())


def write_config(config: Config, directory: Path, config_hash: str) -> None:
    """Write config.yaml, with every resolved value, and recipe.yaml, with the modifiers by name and class.

    ``model/recipe.yaml`` is another file: the recipe in SparseML's format (``delivery.recipe_text``).
    """
    directory.mkdir(parents=True, exist_ok=True)
    fields = {"config_hash": config_hash, **asdict(config)}
    fields["task"] = {"kind": type(config.task).__name__, **fields["task"]}
    replace_signed(directory / "config.yaml", yaml.safe_dump(fields, sort_keys=False), "# ", "")
    recipe = {name: {"kind": type(m).__name__, **asdict(m)} for name, m in config.modifiers().items()}
    text = yaml.safe_dump({"recipe": config.recipe.name, "modifiers": recipe}, sort_keys=False)
    replace_signed(directory / "recipe.yaml", text, "# ", "")
