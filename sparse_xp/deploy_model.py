"""``sparse_xp.export``: export a trained model in memory through the gate of ``python -m sparse_xp.export``.

torch and transformers are imported late, as ``import sparse_xp.export`` must not load them.
"""

from __future__ import annotations

import copy
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from sparse_xp.console import say
from sparse_xp.data.batches import collate
from sparse_xp.data.table import to_dataset
from sparse_xp.deploy import Deployed, check_outside_runs, deploy_context
from sparse_xp.deployment.bundle import write_card_and_recipe
from sparse_xp.deployment.model_card import card
from sparse_xp.errors import UserError
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.locks import file_lock
from sparse_xp.files.ownership import check_replaceable, empty_or_own
from sparse_xp.files.paths import check_creatable, checked_path
from sparse_xp.functional.measured import Compression, Sparsity
from sparse_xp.models.heads import check_labels
from sparse_xp.models.labelled_rows import load_labelled_rows
from sparse_xp.models.positions import check_text_length
from sparse_xp.result import Deployment, deployment_summary
from sparse_xp.schema import fits
from sparse_xp.settings import Data, Export
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.features import make_features
from sparse_xp.tasks.named import find_task
from sparse_xp.tasks.rows import LoadedSplit
from sparse_xp.text import rows_used

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sparse_xp.evaluation import EvalContext

#: what to do about a directory that holds something else
ANOTHER = "Name a directory that is not there yet, or one that an export made."
#: The tensors of a model are exchanged while it is exported, and torch.export is not made for several threads.
ONE_EXPORT = threading.Lock()
#: a key of the configuration in a message, and the value that follows it
KEY = re.compile(r"(?<![\w.])(?:task|export)\.([a-z_0-9]+)(?:=(true|false))?")


@dataclass(frozen=True)
class Exported:
    """What ``sparse_xp.export`` has made and checked.

    ``directory``: the deployment folder. ``task``: with its labels. ``rows``: how many rows were scored.
    ``model_metrics``: of the model in PyTorch, ``metrics``: of the file, both in per cent. ``deployment``: the file in
    numbers: its distance to PyTorch, bytes, bytes under zstd, integers. ``sparsity``, ``compression``: of the model.
    """

    directory: Path
    task: Task
    rows: int
    model_metrics: dict[str, float]
    deployment: Deployment
    sparsity: Sparsity
    compression: Compression

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the exported file, in per cent."""
        return self.deployment.metrics

    def __str__(self) -> str:
        scores = "  ".join(f"{name} {value:.2f}" for name, value in self.model_metrics.items())
        option = "int8" if self.deployment.integers else None
        return (
            f"{self.directory}, {self.task.name} on {self.rows} rows\n"
            f"  in PyTorch: {scores}\n"
            f"  {deployment_summary(self.deployment, self.sparsity, option)}\n"
            f"  largest difference of a logit to PyTorch: {self.deployment.max_abs_diff:.1e}\n"
            f"  times as small as dense fp32, encoder / whole model: {self.compression.ratios}"
        )


def export(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    directory: str | Path,
    *,
    task: str | Task,
    rows: str | Path | Sequence[Mapping[str, Any]] | Dataset | None = None,
    max_length: int | None = None,
    eval_batch_size: int = 32,
    max_abs_diff: float = 1e-3,
    max_metric_diff: float = 0.1,
    max_rms_diff_int8: float = 0.1,
    max_metric_diff_int8: float = 0.5,
    opset: int = 20,
    batch: int | None = None,
    sequence: int | None = None,
    openvino: bool = False,
    external_data: bool = False,
    target_cpu: str | None = None,
) -> Exported:
    """Export a trained model into a deployment folder, and check that the file computes what the model computes.

    The folder is written as a whole or not at all. ``sparse_xp.Pipeline`` answers with it, ``python -m
    sparse_xp.verify`` checks it on another machine. The model and the tokenizer stay as they are. A model on another
    device, in half precision or in training mode is computed on the CPU, in float32 and in evaluation mode;
    ``torch.compile`` and DDP around it are left out. With DDP, export on rank 0 alone.

    Args:
        model: A model of transformers with the head of the task: dense, sparse, structurally pruned or quantized by
            ``sparse_xp``.
        tokenizer: Its tokenizer, a fast one.
        directory: Where the folder is to be. One that an export made is replaced; another that holds files is refused.
        task: The name of a task (``sst2``, ``squad``, ``conll2003``, ``custom_classification``, ...) or a task of
            ``sparse_xp.tasks``. Its labels are compared with those of the model; one without labels gets the model's.
            Where these are only numbers, so are those of the rows, or a ``ClassLabel`` column names them.
        rows: The rows on which model and file are scored: a list of dictionaries, a ``datasets.Dataset``, or the path
            of a file (JSON, JSON lines, CSV, TSV, parquet, CoNLL text), with the columns of the task; or the directory
            of a local mirror (``data.root`` of the command). None: the evaluation rows of the task, from the hub.
        max_length: The number of tokens after which a text is cut. None: the task's.
        eval_batch_size: Rows per batch in evaluation.
        max_abs_diff: The largest absolute difference of any logit between model and file.
        max_metric_diff: The largest difference of a metric, in percentage points.
        max_rms_diff_int8: For quantized models, the root mean square of the differences of the logits, as a fraction of
            the logits' standard deviation.
        max_metric_diff_int8: ``max_metric_diff`` of quantized models.
        opset: The version of the ONNX operators, 18 to 23.
        batch: Fix the number of rows of an input. None: any number.
        sequence: Fix the number of tokens of an input. None: any number.
        openvino: Also write OpenVINO's own format.
        external_data: Write the weights into a file of their own.
        target_cpu: The kind of CPU that the file is for; ``python -m sparse_xp.cpu`` lists them.

    Returns:
        The metrics of the model and of the file, its sizes, the sparsity and the compression. It prints as a summary.

    Raises:
        UserError: If the file differs from the model by more than is allowed; for a model, tokenizer, rows and labels
            that do not fit the task; for a directory that holds something else. Nothing is written then.
    """
    from sparse_xp.functional.compression import measure_compression
    from sparse_xp.models.in_memory import copied_tokenizer, on_cpu_in_float32, transformers_model

    place = checked_place(directory)
    values = {
        "max_abs_diff": max_abs_diff,
        "max_metric_diff": max_metric_diff,
        "max_rms_diff_int8": max_rms_diff_int8,
        "max_metric_diff_int8": max_metric_diff_int8,
        "opset": opset,
        "batch": batch,
        "sequence": sequence,
        "openvino": openvino,
        "external_data": external_data,
        "target_cpu": target_cpu,
    }
    if type(eval_batch_size) is not int or eval_batch_size < 1:
        raise UserError(f"eval_batch_size={eval_batch_size!r}: expected a whole number of at least 1.")
    with python_words():
        found = find_task(task, max_length)
        settings = checked_settings(found, values)
        inner = transformers_model(model)
        with ONE_EXPORT, tempfile.TemporaryDirectory() as cache, on_cpu_in_float32(inner):
            data = Data(cache=cache)
            loaded = load_labelled_rows(found, inner, rows, data)
            context = evaluation_of(inner, copied_tokenizer(tokenizer, inner), loaded, data, eval_batch_size, settings)
            with file_lock(place, say), atomic_directory(place, "deployment", ANOTHER) as draft:
                deployed = deploy_context(context, loaded.total, data, settings, draft)
                write_labelled_config(context, draft)
                write_card_and_recipe(draft, card_of(deployed, inner, rows), None)
            compression = measure_compression(inner)
    return Exported(
        directory=place,
        task=deployed.task,
        rows=deployed.rows[0],
        model_metrics=deployed.metrics,
        deployment=deployed.deployment,
        sparsity=deployed.zeros,
        compression=compression,
    )


def checked_place(directory: object) -> Path:
    """Return the directory of the export. Raises UserError for one that cannot be written; nothing is written yet."""
    place = checked_path("directory", directory)
    check_outside_runs(place)
    check_replaceable(place, empty_or_own("deployment"), ANOTHER)
    check_creatable("directory", place)
    return place


@contextmanager
def python_words() -> Iterator[None]:
    """Let messages of the block name arguments of Python where they name keys of the configuration."""
    try:
        yield
    except UserError as error:
        told = KEY.sub(lambda found: found[1] + (f"={found[2].capitalize()}" if found[2] else ""), str(error))
        raise UserError(told.replace("or null for", "or None for")) from error


def checked_settings(task: Task, values: dict[str, Any]) -> Export:
    """Return the settings of the export. Raises UserError for impossible ``values``, by the names of the fields."""
    hints = get_type_hints(Export)
    for field in fields(Export):
        if not fits(value := values[field.name], hints[field.name]):
            raise UserError(f"{field.name}={value!r}: expected {str(field.type).replace(' | ', ' or ')}.")
        if field.name.startswith("max_") and not value >= 0:  # nor NaN
            raise UserError(f"{field.name}={value}: expected a number of at least 0.")
    try:
        settings = Export(**values)
        settings.check(task.name, task.max_length)
    except ValueError as error:
        raise UserError(str(error)) from error
    return settings


def evaluation_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedSplit,
    data: Data,
    eval_batch_size: int,
    settings: Export,
) -> EvalContext:
    """Return the model with the rows and features that it is scored on.

    Raises UserError if its labels, its longest text or its outputs do not fit the task.
    """
    import torch

    from sparse_xp.evaluation import EvalContext

    task, rows = loaded.task, to_dataset(loaded.rows)
    whose = f"the model ({type(model).__name__})"
    config = copy.deepcopy(model.config)
    config.architectures = None  # those of the checkpoint that the model began with, which need not have its head
    check_labels(task, config, whose, "Give the task of the model.")
    check_text_length(whose, model.config.to_dict(), task, settings.sequence)
    context = EvalContext(
        task=task,
        tokenizer=tokenizer,
        model=model,
        eval_rows=rows,
        eval_features=make_features(task, rows, loaded.fingerprint, tokenizer, data, train=False),
        eval_batch_size=eval_batch_size,
        device=torch.device("cpu"),
    )
    check_outputs(context)
    return context


def check_outputs(context: EvalContext) -> None:
    """Raise UserError unless the model computes the outputs of the task, in their shapes."""
    import torch

    task, kind = context.task, type(context.model).__name__
    batch = collate(context.eval_features, [0], context.inputs, context.padding)
    with torch.no_grad():
        outputs = context.model(**batch)
    for name in task.outputs:
        values = outputs.get(name) if isinstance(outputs, Mapping) else None
        shape = tuple(values.shape[1:]) if isinstance(values, torch.Tensor) else None
        if shape is None or not task.accepts_logits(name, shape, batch["input_ids"].shape[1]):
            has = f"computes no {name}" if shape is None else f"computes {name} of {list(shape)} for each row"
            labels = f", {len(task.label_names)} labels," if task.label_names else ""
            raise UserError(f"model: {kind} {has}. Task {task.name}{labels} needs an {task.model_class}.")
        if values is not None and not bool(values.isfinite().all()):
            raise UserError(
                f"model: {kind} computes NaN or infinity in {name} for the first row, in float32. Look at the model: "
                "its weights are too large, or were not loaded whole."
            )


def write_labelled_config(context: EvalContext, directory: Path) -> None:
    """Write config.json with what the file has: float32, and the labels of the task."""
    config = copy.deepcopy(context.model.config)
    config.dtype, config.architectures = "float32", [type(context.model).__name__]
    config.update(context.task.config_entries)
    if names := context.task.label_names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    config.save_pretrained(directory)


def card_of(deployed: Deployed, model: PreTrainedModel, rows: object) -> str:
    """Return the model card. ``rows``: as of ``export``; a file is named in it."""
    kind, task = type(model).__name__, deployed.task
    is_file = isinstance(rows, str | Path) and not Path(rows).is_dir()
    data = f"the user's file {Path(str(rows)).name}" if is_file else "rows of the user's"
    if rows is None or (isinstance(rows, str | Path) and not is_file):
        data = f"the {task.eval_split} rows of {task.dataset}"
    made = f"Exported with `sparse_xp.export` from a {kind} in memory; trained by the user's own program."
    used = rows_used(*deployed.rows)
    return card(f"{kind} for {task.name}", task, data, used, deployed.deployment, deployed.zeros, made)
