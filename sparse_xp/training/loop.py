"""Training: the loop, with every place where a modifier may act in plain sight."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from sparse_xp.console import Bar
from sparse_xp.data.batches import collate, epoch_batches, epoch_seed, epoch_steps
from sparse_xp.evaluation import evaluate, to_device
from sparse_xp.functional.chunked_loss import lazy_projection
from sparse_xp.functional.dropout import cheap_dropout
from sparse_xp.training import checkpoint
from sparse_xp.training.state import Run

if TYPE_CHECKING:
    pass


def train(run: Run) -> None:
    """Train from ``run.progress.step`` to the end; evaluate, save and log on the way."""
    clock, progress, accelerator = run.clock, run.progress, run.accelerator
    cheap = cheap_dropout(run.model) if run.device.type == "cpu" else nullcontext()
    lazy = lazy_projection(run.model) if run.task.over_vocabulary else nullcontext()
    with cheap, lazy, Bar(clock.total_steps, progress.step, show=accelerator.is_main_process) as bar:
        while progress.step < clock.total_steps:
            epoch, done = divmod(progress.step, clock.steps_per_epoch)
            for batches in steps_of_epoch(run, epoch)[done : done + clock.total_steps - progress.step]:
                began = time.perf_counter()
                loss, norm = optimize(run, batches)
                progress.step += 1
                progress.seconds += time.perf_counter() - began
                bar.advance(progress.step, clock.epoch(progress.step))
                if run.history.due(progress.step, clock.total_steps):
                    loss = accelerator.reduce(loss, "mean")  # each process has only seen its own batches
                    bar.tell(run.history.log(progress.step, clock, loss.item(), norm.item(), run.recipe.logs(run)))
                if due(run, run.train.eval_every):
                    consider(run, bar)
                if due(run, run.train.save_every):
                    checkpoint.save(run)


def optimize(run: Run, batches: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimizer step over ``batches`` (lists of row numbers). Returns the loss and the norm of the gradient."""
    accelerator, model = run.accelerator, run.wrapped
    model.train()
    tensors = [training_batch(run, indices) for indices in batches]
    # A loss is a mean over what its batch has to say: weighted by how much that is, small batches make a large one.
    weights = torch.tensor([float(run.task.loss_weight(batch)) for batch in tensors], device=accelerator.device)
    weights = weights * accelerator.num_processes / accelerator.reduce(weights.sum())
    total = torch.zeros((), device=accelerator.device)
    run.recipe.before_step(run)  # rates and masks for this step
    for number, (indices, batch, weight) in enumerate(zip(batches, tensors, weights, strict=True)):
        with nullcontext() if number == len(batches) - 1 else accelerator.no_sync(model):
            outputs = model(**batch)
            loss = weight * run.recipe.loss(run, indices, batch, outputs, outputs.loss)  # distillation
            accelerator.backward(loss)
        total += loss.detach()
    run.recipe.before_update(run)  # gradients of pruned weights
    limit = run.train.max_grad_norm
    norm = accelerator.clip_grad_norm_(model.parameters(), float("inf") if limit is None else limit)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.recipe.after_update(run)  # pruned weights are zero again
    return total, norm


def training_batch(run: Run, rows: list[int]) -> dict[str, torch.Tensor]:
    """The given rows as the model is to see them in this epoch, where the model is."""
    batch = collate(run.train_features, rows, [*run.inputs, *run.task.stored], run.padding)
    seed = epoch_seed(run.seed, run.progress.step // run.clock.steps_per_epoch)
    return to_device(run, run.task.drawn(batch, rows, seed, run.tokenizer))


def steps_of_epoch(run: Run, epoch: int) -> list[list[list[int]]]:
    """For each optimizer step of the epoch the batches of this process."""
    seed = epoch_seed(run.seed, epoch)
    batches = epoch_batches(run.lengths, run.train.batch_size, seed, run.train.group_by_length)
    here = run.accelerator
    return epoch_steps(batches, run.train.gradient_accumulation_steps, here.process_index, here.num_processes)


def due(run: Run, every: Any) -> bool:
    """Whether the step just made completed another ``every``, or the run. A period is at least one step."""
    step, clock = run.progress.step, run.clock
    period = max(clock.epoch(1), clock.at(every))
    # 0.3 epochs are no whole number of steps: the step that passes each multiple counts, and rounding does not.
    now, before = (math.floor(clock.epoch(s) / period + 1e-9) for s in (step, step - 1))
    return step == clock.total_steps or now > before


def consider(run: Run, bar: Bar) -> None:
    """Evaluate, and keep the model if it is the best so far among those that satisfy the recipe."""
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        metrics = evaluate(run)
        valid = run.recipe.reached(run)
        bar.tell(run.history.evaluation(run.progress.step, run.clock, metrics, valid))
        name = run.task.metric
        if valid and (not run.progress.best or metrics[name] > run.progress.best[name]):
            run.progress.best, run.progress.best_step = metrics, run.progress.step
            checkpoint.save_best(run)
    run.accelerator.wait_for_everyone()
