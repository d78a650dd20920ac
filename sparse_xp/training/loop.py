"""The training loop. ``train_step`` calls the hooks of the modifiers, in the order that ``modifiers/base.py`` lists."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from functools import partial

import torch
from accelerate.utils import broadcast_object_list

from sparse_xp.clock import TimeSpec
from sparse_xp.console import TrainingProgress, say
from sparse_xp.data.batches import epoch_seed, epoch_steps
from sparse_xp.evaluation import evaluate
from sparse_xp.functional.chunked_loss import lazy_projection
from sparse_xp.functional.dropout import cheap_dropout
from sparse_xp.modifiers.display import logged_numbers, progress_text
from sparse_xp.settings import Train
from sparse_xp.training import checkpoint
from sparse_xp.training.kept_models import ModelWriter, keep_model
from sparse_xp.training.state import Progress, Run


def train(run: Run, write_model: ModelWriter) -> None:
    """Train from ``run.progress.step`` to the end of the run, with logging, evaluations and checkpoints.

    ``run.clock`` decides when; ``checkpoint.save`` writes everything that is needed to continue exactly.
    ``write_model``: writes a model that is kept.
    """
    clock, progress, accelerator = run.clock, run.progress, run.accelerator
    cheap = cheap_dropout(run.model) if run.device.type == "cpu" else nullcontext()
    lazy = lazy_projection(run.model) if run.task.is_language_model else nullcontext()
    numbers = logged_numbers(modifier.logged for modifier in run.modifier_list.modifiers.values())
    describe = partial(progress_text, numbers=numbers)
    show = accelerator.is_main_process
    with cheap, lazy, TrainingProgress(clock.total_steps, progress.step, describe, show) as bar:
        while progress.step < clock.total_steps and not progress.stopped:
            # A resumed run may start in the middle of an epoch: the steps already made are skipped.
            epoch, done = divmod(progress.step, clock.steps_per_epoch)
            for batches in steps_of_epoch(run, epoch)[done : done + clock.total_steps - progress.step]:
                began = time.perf_counter()
                loss, norm = train_step(run, batches)
                progress.step += 1
                progress.seconds += time.perf_counter() - began
                bar.advance(progress.step, clock.epoch(progress.step))
                if run.history.is_due(progress.step, clock.total_steps):
                    mean = run.mean_over_processes(loss)  # each process has the loss of its own batches
                    logs = run.modifier_list.logs(run)
                    bar.show(run.history.log_step(progress.step, clock, mean, norm.item(), logs))
                if completes_period(run, run.train.eval_every):
                    evaluate_and_save_best(run, bar)
                if completes_period(run, run.train.save_every) or progress.stopped:
                    keep_model(run, write_model)
                    checkpoint.save(run)
                if progress.stopped and progress.step < clock.total_steps:
                    say(
                        f"step {progress.step}/{clock.total_steps}: train.early_stopping={run.train.early_stopping} "
                        f"ends the run, {run.task.metric} has not improved"
                    )
                    break


def train_step(run: Run, batches: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make one optimizer step over micro-batches, given as lists of row indices.

    Returns the loss and the norm of the gradient before clipping, both scalars on the device.
    """
    accelerator, model = run.accelerator, run.prepared_model
    model.train()
    tensors = [run.training_batch(indices) for indices in batches]
    shares = task_shares(run, tensors)
    total = torch.zeros((), device=accelerator.device)
    run.modifier_list.before_step(run)  # learning rate and masks
    run.modifier_list.before_batches(run, batches, tensors)
    for number, (indices, batch) in enumerate(zip(batches, tensors, strict=True)):
        # DDP reduces gradients over processes once, in the last micro-batch.
        with nullcontext() if number == len(batches) - 1 else accelerator.no_sync(model):
            outputs = model(**batch)
            terms = zip(shares[number], run.task.losses(outputs), strict=True)
            loss = torch.stack([share * term for share, term in terms]).sum()
            loss = run.modifier_list.loss(run, indices, batch, outputs, loss)  # distillation, say
            accelerator.backward(loss)
        total += loss.detach()
    run.modifier_list.before_update(run)  # zeros in the gradients of pruned weights
    limit = run.train.max_grad_norm
    norm = accelerator.clip_grad_norm_(model.parameters(), float("inf") if limit is None else limit)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.modifier_list.after_update(run)  # zeros in pruned weights again
    return total, norm


def task_shares(run: Run, batches: list[dict[str, torch.Tensor]]) -> list[tuple[float, ...]]:
    """Return for each micro-batch the weight of each term of the task's loss, so that they make one large batch."""
    counts = [run.task.loss_counts(batch) for batch in batches]
    return list(zip(*(run.shares(list(term)) for term in zip(*counts, strict=True)), strict=True))


def steps_of_epoch(run: Run, epoch: int) -> list[list[list[int]]]:
    """Return the micro-batches of this process, for each optimizer step of the epoch."""
    batches = run.shuffled_batches(None, epoch_seed(run.seed, epoch))
    rank, processes = run.accelerator.process_index, run.accelerator.num_processes
    return epoch_steps(batches, run.train.gradient_accumulation_steps, rank, processes)


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
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        metrics = evaluate(run)
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
