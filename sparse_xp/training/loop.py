"""The training loop. ``train_step`` calls the hooks of the modifiers, in the order that ``modifiers/base.py`` lists."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain

import torch
from accelerate.utils import broadcast_object_list

from sparse_xp.clock import TimeSpec
from sparse_xp.console import TrainingProgress, say
from sparse_xp.data.batches import epoch_seed, epoch_steps, split_by_tokens
from sparse_xp.evaluation import to_device
from sparse_xp.functional.chunked_loss import lazy_projection
from sparse_xp.functional.dropout import cheap_dropout
from sparse_xp.functional.padding_mask import has_padding, unread_masks
from sparse_xp.modifiers.display import logged_numbers, progress_text
from sparse_xp.settings import Train
from sparse_xp.training import checkpoint
from sparse_xp.training.kept_models import ModelWriter, keep_model
from sparse_xp.training.loss_scale import check_updated, settle, skipped_counted
from sparse_xp.training.shared_evaluation import evaluate_together
from sparse_xp.training.state import Progress, Run
from sparse_xp.training.steps import PlannedStep, PreparedStep, prepared_steps
from sparse_xp.training.teacher import StoredTeacher
from sparse_xp.training.unlabeled import unlabeled_steps


def train(run: Run, write_model: ModelWriter) -> None:
    """Train from ``run.progress.step`` to the end of the run, with logging, evaluations and checkpoints.

    ``run.clock`` decides when; ``checkpoint.save`` writes everything that is needed to continue exactly.
    ``write_model``: writes a model that is kept.
    """
    clock, progress, accelerator = run.clock, run.progress, run.accelerator
    fast = cheap_dropout(run.model) if run.device.type == "cpu" else unread_masks(run.model)
    lazy = lazy_projection(run.model) if run.task.is_language_model else nullcontext()
    numbers = logged_numbers(modifier.logged for modifier in run.modifier_list.modifiers.values())
    describe = partial(progress_text, numbers=numbers)
    show = accelerator.is_main_process
    bar = TrainingProgress(clock.total_steps, progress.step, describe, show)
    with fast, lazy, bar, prepared_steps(run, planned_steps(run)) as steps:
        began = time.perf_counter()
        for step in steps:
            loss, norm = train_step(run, step)
            progress.step += 1
            bar.advance(progress.step, clock.epoch(progress.step))
            logged = run.history.is_due(progress.step, clock.total_steps)
            evaluated, saved = (completes_period(run, every) for every in (run.train.eval_every, run.train.save_every))
            if not (logged or evaluated or saved):
                continue  # nothing waits for the device
            fp16 = settle(run, began)
            if logged:
                mean = run.mean_over_processes(loss)  # each process has the loss of its own batches
                logs = run.modifier_list.logs(run) | fp16
                bar.show(run.history.log_step(progress.step, clock, mean, norm.item(), logs))
            if evaluated:
                evaluate_and_save_best(run, bar)
            if saved or progress.stopped:
                keep_model(run, write_model)
                checkpoint.save(run)
            if progress.stopped and progress.step < clock.total_steps:
                say(
                    f"step {progress.step}/{clock.total_steps}: train.early_stopping={run.train.early_stopping} "
                    f"ends the run, {run.task.metric} has not improved"
                )
                break
            began = time.perf_counter()
    check_updated(run)


def train_step(run: Run, step: PreparedStep) -> tuple[torch.Tensor, torch.Tensor]:
    """Make one optimizer step.

    Returns the loss and the norm of the gradient before clipping, both scalars on the device.
    """
    accelerator, model = run.accelerator, run.prepared_model
    if not run.model.training:  # an evaluation came between; to walk through all modules takes the host a while
        model.train()
    shares = task_shares(run, step)
    if isinstance(run.teacher, StoredTeacher):
        run.teacher.at_hand = step.logits
    total = torch.zeros((), device=accelerator.device)
    run.modifier_list.before_step(run)  # learning rate and masks
    run.modifier_list.before_batches(run, step.rows, step.batches)
    for number, (indices, host_batch) in enumerate(zip(step.rows, step.batches, strict=True)):
        batch = to_device(run, host_batch)
        # DDP reduces gradients over processes once, in the last micro-batch.
        with nullcontext() if number == len(step.rows) - 1 else accelerator.no_sync(model):
            labelled = run.is_labelled(indices)
            outputs = model(padded=has_padding(host_batch), labelled=labelled, **batch)
            loss = torch.zeros_like(total)  # the task's, of rows without labels
            if labelled:
                terms = zip(shares[number], run.task.losses(outputs), strict=True)
                loss = torch.stack([share * term for share, term in terms]).sum()
            loss = run.modifier_list.loss(run, indices, batch, outputs, loss)  # distillation, say
            accelerator.backward(loss)
        total += loss.detach()
    run.modifier_list.before_update(run)  # zeros in the gradients of pruned weights
    limit = run.train.max_grad_norm
    norm = accelerator.clip_grad_norm_(run.parameters, float("inf") if limit is None else limit)
    with skipped_counted(run):
        run.optimizer.step()
    run.optimizer.zero_grad()
    run.modifier_list.after_update(run)  # zeros in pruned weights again
    return total, norm


def task_shares(run: Run, step: PreparedStep) -> list[tuple[float, ...]]:
    """Return for each micro-batch the weight of each term of the task's loss, so that they make one large batch.

    Micro-batches without labels have a weight of 0. Batches are counted in host memory, where no GPU has to wait.
    """
    found = [
        run.task.loss_counts(batch) if run.is_labelled(rows) else None
        for rows, batch in zip(step.rows, step.batches, strict=True)
    ]
    none = (0,) * next(len(each) for each in found if each is not None)
    counts = [none if each is None else each for each in found]
    return list(zip(*run.shares(*map(list, zip(*counts, strict=True))), strict=True))


def planned_steps(run: Run) -> Iterator[PlannedStep]:
    """Yield what is left of the run's steps.

    A resumed run may start in the middle of an epoch: the steps already made are skipped.
    """
    clock, step = run.clock, run.progress.step
    while step < clock.total_steps and not run.progress.stopped:
        epoch, done = divmod(step, clock.steps_per_epoch)
        for rows in steps_of_epoch(run, epoch)[done : done + clock.total_steps - step]:
            yield epoch, rows
            step += 1


def steps_of_epoch(run: Run, epoch: int) -> list[list[list[int]]]:
    """Return the micro-batches of this process, for each optimizer step of the epoch.

    Those of rows without labels come first: with the last one DDP waits for the gradients of all parameters, and only
    the loss of the task is sure to reach them.
    """
    unlabeled = run.unlabeled_features is not None
    size = run.train.labelled_rows if unlabeled else run.train.batch_size
    batches = run.shuffled_batches(size, epoch_seed(run.seed, epoch))
    rank, processes = run.accelerator.process_index, run.accelerator.num_processes
    steps = epoch_steps(batches, run.train.gradient_accumulation_steps, rank, processes)
    others = unlabeled_steps(run, epoch, [len(step) for step in steps]) if unlabeled else [[] for _ in steps]
    if run.train.tokens is not None:
        together, most = run.task.features_per_row, run.train.tokens
        steps = [split_by_tokens(list(chain(*step)), run.lengths, most, together) for step in steps]
        others = [split_by_tokens(list(chain(*step)), run.all_lengths, most) for step in others]
    return [[*other, *step] for other, step in zip(others, steps, strict=True)]


def completes_period(run: Run, every: TimeSpec) -> bool:
    """Return whether the latest step completed a period of length ``every``, at least one step, or the run."""
    step, clock = run.progress.step, run.clock
    period = max(clock.epoch(1), clock.to_epochs(every))
    # A period need not be a whole number of steps: the step that passes each multiple counts. 1e-9 absorbs rounding.
    now, before = (math.floor(clock.epoch(s) / period + 1e-9) for s in (step, step - 1))
    return step == clock.total_steps or now > before


def evaluate_and_save_best(run: Run, bar: TrainingProgress) -> None:
    """Evaluate, and save the model if it is the best so far among those that satisfy the recipe.

    ``train.early_stopping`` counts the evaluation.
    """
    progress = run.progress
    metrics = evaluate_together(run)
    if run.accelerator.is_main_process:
        valid = run.modifier_list.target_reached(run)
        bar.show(run.history.log_evaluation(progress.step, run.clock, metrics, valid))
        name = run.task.metric
        if valid and (not progress.best or metrics[name] > progress.best[name]):
            progress.best, progress.best_step = metrics, progress.step
            checkpoint.save_best(run)
        if valid:
            count_evaluation(progress, run.train, metrics[name])
    if run.accelerator.num_processes > 1:
        [progress.stopped] = broadcast_object_list([progress.stopped])
    run.accelerator.wait_for_everyone()


def count_evaluation(progress: Progress, settings: Train, score: float) -> None:
    """Count an evaluation of a model that satisfies the recipe, and say whether the run is to stop.

    ``score``: the task's metric. An improvement is measured from the last one, so that many small steps add up.
    """
    if progress.improved is None or score > progress.improved + settings.early_stopping_threshold:
        progress.improved, progress.stale = score, 0
    else:
        progress.stale += 1
    progress.stopped = settings.early_stopping is not None and progress.stale >= settings.early_stopping
