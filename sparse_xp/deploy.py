"""Load a trained model with its evaluation rows, and export it without training.

``export_command`` exports a model of the disk by ``deploy``, ``deploy_model`` one in memory by ``deploy_context``.

torch and transformers are imported late: the command's help and its errors about arguments must not load them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.console import silence_libraries
from sparse_xp.data.table import to_dataset
from sparse_xp.errors import UserError
from sparse_xp.files.ownership import read_marker
from sparse_xp.functional.measured import Sparsity
from sparse_xp.models.config_files import read_config
from sparse_xp.models.heads import check_labels
from sparse_xp.models.loading import load_model, load_teacher_model
from sparse_xp.models.positions import check_text_length
from sparse_xp.models.tokenizers import drop_token_types, load_tokenizer
from sparse_xp.post_training import PostTraining
from sparse_xp.recipe.inherit import removed_layers
from sparse_xp.result import Deployment
from sparse_xp.run_directory import CHECKPOINTS, DIRECTORIES, enclosing_kind
from sparse_xp.settings import Data, Export
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.features import make_features
from sparse_xp.tasks.rows import load_rows

if TYPE_CHECKING:
    from sparse_xp.evaluation import EvalContext


@dataclass
class Deployed:
    """What was exported.

    ``metrics``: of the model in PyTorch, in per cent, before it was quantized here. ``task``: with its labels.
    ``rows``: the number of scored rows, and of all evaluation rows. ``zeros``: the sparsity of the model.
    ``float_bytes``: of its weights in float32.
    """

    deployment: Deployment
    metrics: dict[str, float]
    task: Task
    rows: tuple[int, int]
    zeros: Sparsity
    float_bytes: int


def deploy(
    task: Task,
    data: Data,
    settings: Export,
    eval_batch_size: int,
    checkpoint: str | Path,
    revision: str | None,
    out: Path,
    post_training: PostTraining | None = None,
    as_float: bool = False,
    teacher: str | None = None,
) -> Deployed:
    """Evaluate the model in ``checkpoint`` and export it into the directory ``out``.

    ``post_training``: quantize it first, and refuse a file that has lost more than it allows (UserError).
    ``as_float``: leave out the 8 bits of a model that has them. ``teacher``: as of ``load_trained``.
    """
    context, total = load_trained(task, data, eval_batch_size, checkpoint, revision, as_float, teacher)
    return deploy_context(context, total, data, settings, out, post_training)


def deploy_context(
    context: EvalContext,
    total: int,
    data: Data,
    settings: Export,
    out: Path,
    post_training: PostTraining | None = None,
) -> Deployed:
    """Evaluate the model of ``context`` and export it into the directory ``out``.

    ``total``: the number of evaluation rows before any limit. ``post_training``: as of ``deploy``.
    """
    from sparse_xp.deployment.export import export_checked
    from sparse_xp.evaluation import evaluate
    from sparse_xp.functional.sparsity import measure_sparsity
    from sparse_xp.functional.structured.config import removal_summary

    metrics = expected = evaluate(context)
    if post_training:
        post_training.quantize(context, data)
        expected = evaluate(context)
        post_training.check_loss(context.task, metrics, expected)
    deployment = export_checked(context, out, settings, expected)
    if post_training:
        post_training.check_loss(context.task, metrics, deployment.metrics)
    return Deployed(
        deployment=deployment,
        metrics=metrics,
        task=context.task,
        rows=(len(context.eval_rows), total),
        zeros=replace(measure_sparsity(context.model), removed=removal_summary(context.model)),
        float_bytes=4 * sum(parameter.numel() for parameter in context.model.parameters()),
    )


def load_trained(
    task: Task,
    data: Data,
    eval_batch_size: int,
    checkpoint: str | Path,
    revision: str | None,
    as_float: bool = False,
    teacher: str | None = None,
) -> tuple[EvalContext, int]:
    """Return a trained model with the evaluation rows of ``task``, and the number of rows before any limit.

    ``as_float``: without the 8 bits of a model that has them. ``teacher``: the checkpoint that scores of the task
    compare the model with, where they do; None for the model itself.

    Raises UserError if the model is not one of the task, or its head was never trained.
    """
    import torch

    from sparse_xp.evaluation import EvalContext
    from sparse_xp.functional.quant_file import load_quantization

    silence_libraries()
    tokenizer = load_tokenizer(str(checkpoint), revision)
    loaded = load_rows(task, data, train=False)
    task = task.with_labels_from(loaded.rows)
    task.check_labels(loaded.rows)
    rows = to_dataset(loaded.rows)
    config = read_config(str(checkpoint), revision)
    check_labels(task, config, f"the model {checkpoint}", "Choose a model of the task.")
    check_text_length(str(checkpoint), config.to_dict(), task)
    drop_token_types(tokenizer, config)
    # new_head: a missing head is reported here, as nothing will train a new one.
    model, missing = load_model(
        task, str(checkpoint), revision=revision, new_head=True, removed_layers=removed_layers(str(checkpoint))
    )
    if missing:
        raise UserError(
            f"{checkpoint} has no trained head for task {task.name} (missing: {', '.join(missing)}); train it with "
            f"python -m sparse_xp task={task.name} model.checkpoint={checkpoint}."
        )
    if not as_float:
        load_quantization(model, Path(checkpoint))
    features = make_features(task, rows, loaded.fingerprint, tokenizer, data, train=False)
    context = EvalContext(
        task=task,
        tokenizer=tokenizer,
        model=model,
        eval_rows=rows,
        eval_features=features,
        eval_batch_size=eval_batch_size,
        device=torch.device("cpu"),
    )
    if task.compares_with_teacher:
        from sparse_xp.training.reference import add_reference

        compared = load_teacher_model(task.for_teacher(), teacher, tokenizer) if teacher else model
        add_reference(context, compared, Path(data.cache) / "references")
    return context, loaded.total


def check_outside_runs(directory: Path, key: str = "") -> None:
    """Raise UserError if ``directory`` is inside one that is written as a whole, such as the deployment of a run.

    ``key``: what the message puts before the directory.
    """
    real = Path(os.path.realpath(directory))
    inside = enclosing_kind(real.parent)
    if not inside and read_marker(real.parent) == "run" and real.name in (*DIRECTORIES, CHECKPOINTS):
        inside = "run"
    if inside:
        raise UserError(
            f"{key}{directory} is inside of a {inside}, which tells of its own files alone. Name another directory; a "
            "run's own deployment is written by python -m sparse_xp.export run=DIR without out=."
        )
