"""The text of ``model_card.md``: of a run's result, or of less for a model that no run has made."""

from __future__ import annotations

from pathlib import Path

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import EXACT, EXACT_OPENVINO
from sparse_xp.functional.measured import Sparsity
from sparse_xp.portable import portable_path
from sparse_xp.result import Deployment, Result
from sparse_xp.settings import Data
from sparse_xp.tasks import Task
from sparse_xp.text import rows_used, without_labels

EXACT_LINE = """
    options.add_session_config_entry("{}", "{}")""".format(*EXACT)


INTEGERS = """

The matrices and tables of the file are 8-bit integers (int8, symmetric), and what is multiplied by them is rounded to 8
bits (uint8) on the way: QuantizeLinear and DequantizeLinear, which onnxruntime and OpenVINO compute in integers. A
processor with instructions for them (VNNI, AMX, ARM's dot products) makes that fast; `python -m sparse_xp.cpu` says
which yours is."""

OPENVINO = """

`model.xml` with `model.bin` is the same in OpenVINO's own format."""


def run_card(task: Task, data: Data, result: Result) -> str:
    """Return the card of a run's deployment."""
    trained, origin = result.training, result.provenance
    made = f"""- recipe `{result.recipe}` on model `{result.model}`, seed {result.seed}; `recipe.yaml` has its modifiers
- teacher: {result.teacher or "none"}
- quantization: {result.quantization or "none"}
- {trained.epochs:g} epochs, {trained.steps} steps of {rows_used(trained.train_rows, trained.train_rows_of)} rows\
{without_labels(trained.unlabeled_rows)}, on {trained.device} in {trained.precision}
- git {origin.git or "unknown"}, config {origin.config_hash}, data {origin.data_fingerprint}

The command:

    {origin.command}"""
    rows = rows_used(trained.eval_rows, trained.eval_rows_of)
    title = f"{result.recipe} on {result.task}, {result.model}"
    return card(title, task, describe_data(task, data), rows, result.deployment, result.sparsity, made)


def model_card(
    task: Task,
    data: Data,
    checkpoint: str,
    rows: tuple[int, int],
    deployed: Deployment,
    zeros: Sparsity,
    quantization: str = "",
) -> str:
    """Return the card of a model that was trained elsewhere.

    ``rows``: how many were scored, and of how many. ``quantization``: how it was quantized here; empty if it was not.
    """
    name = portable_path(checkpoint)
    made = f"Exported from `{name}` with `python -m sparse_xp.export`; trained elsewhere."
    made += f"\n\nQuantization: {quantization}." if quantization else ""
    title = f"{name} for {task.name}"
    return card(title, task, describe_data(task, data), rows_used(*rows), deployed, zeros, made)


def describe_data(task: Task, data: Data) -> str:
    """Return a description of the evaluation data."""
    if data.source == "embedded":
        return "generated data"
    if data.source == "files":
        return f"the user's file {Path(str(data.validation or data.train)).name}"
    subset = f"/{task.subset}" if task.subset else ""
    return f"`{portable_path(task.dataset or task.folder)}{subset}`, {task.eval_split} split"


def card(title: str, task: Task, data: str, rows: str, deployed: Deployment, zeros: Sparsity, made: str) -> str:
    """Return the text. ``data``, ``rows``: what was scored; ``made``: the section "How it was made"."""
    example = [f'{name}="{value}"' for name, value in task.example().items()]
    words, call = " ".join(example), ", ".join(example)
    labels = f"\nLabels: {', '.join(task.label_names)}.\n" if task.label_names else ""
    scores = "\n".join(f"- {name} {value:.2f}" for name, value in deployed.metrics.items())
    units = f" ({task.metric_units})" if task.metric_units else ""
    nonzero = f", {deployed.nonzero_bytes / 1e6:.2f} MB of it not zero" if deployed.nonzero_bytes is not None else ""
    removed = f"- {zeros.removed.description}\n" if zeros.removed else ""
    return f"""# {title}

A BERT-class encoder for {task.purpose} as an ONNX file.

Task `{task.name}` on {data}; texts of up to {task.max_length} tokens.
{labels}
## Scores of this file

Computed through onnxruntime on {rows} rows, in per cent{units}:

{scores}

Largest difference of a logit to PyTorch: {deployed.max_abs_diff:.1e}, on {this_cpu().short}.

## Size and zeros

{removed}- zeros: {zeros.prunable:.2%} of the prunable weights, {zeros.encoder:.2%} of the encoder, {zeros.model:.2%} \
of the whole model
- `model.onnx`: {deployed.bytes / 1e6:.2f} MB{nonzero}; {deployed.compressed_bytes / 1e6:.2f} MB under \
{deployed.compression}{INTEGERS * deployed.integers}{OPENVINO * (deployed.openvino_max_abs_diff is not None)}
{overflow_note(deployed)}
Unstructured zeros make the file smaller once it is compressed. They do not make stock onnxruntime or OpenVINO faster;
integers and structured removal (fewer layers, heads, neurons) do. `python -m sparse_xp.benchmark` measures it.

## How it was made

{made}

## How to use it

    python -m sparse_xp.predict model=. {words}

or `from sparse_xp import Pipeline; Pipeline(".")({call})`. With onnxruntime alone, on
a row of `samples/`:

    import numpy, onnxruntime
    options = onnxruntime.SessionOptions(){EXACT_LINE * (deployed.portable is False)}
    session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, dict(numpy.load("samples/inp-0000.npz")))  # as in samples/out-0000.npz

`task.json` says how texts become tokens and outputs become answers. `python -m sparse_xp.verify .` checks the folder
and computes the samples: it says whether this machine answers as the one that made the file.
"""


def overflow_note(deployed: Deployment) -> str:
    """Return what a reader must know about CPUs that add two 8-bit products in 16 bits; empty for an fp32 file."""
    if deployed.largest_pair is None:
        return ""
    pair = f"the largest |w1| + |w2| of two factors of one output is {deployed.largest_pair}"
    if deployed.portable:
        return f"""
It computes the same on every x86 CPU, in every session. CPUs without VNNI add two 8-bit products in 16 bits, which
hold 255 (|w1| + |w2|) up to 32767; {pair}.
"""
    key, value = EXACT
    return f"""
**It can overflow on x86 CPUs without VNNI**, and answer differently there. They add two 8-bit products in 16 bits,
which hold 255 (|w1| + |w2|) up to 32767; {pair}. `sparse_xp` computes it
exactly. A session of your own needs one more line:

    Python    options.add_session_config_entry("{key}", "{value}")
    C++       options.AddConfigEntry("{key}", "{value}");
    C#        options.AddSessionConfigEntry("{key}", "{value}");
    OpenVINO  core.compile_model(model, "CPU", {dict([EXACT_OPENVINO])})

`quantization.reduce_range=true` makes a file that needs none.
"""
