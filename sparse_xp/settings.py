"""The options of the groups ``model``, ``teacher``, ``train``, ``data``, ``export`` and ``log`` of ``conf/``.

These docstrings are the reference of the options. The other groups: ``tasks/`` (``task``), ``modifiers/``
(``sparsity``, ``quantization``, ``modifier``) and ``config.RecipeSettings`` (``recipe``). ``config.Config`` puts all of
them together. A value is checked when its dataclass is made, so that a wrong one is refused before anything is loaded.

torch is not imported: composing a configuration must not load it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from sparse_xp.clock import TimeSpec, parse_time
from sparse_xp.cpu import CPU_KINDS
from sparse_xp.errors import check_one_of
from sparse_xp.files.text_format import TextFormat

#: kinds of device that a run can be on
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


@dataclass(kw_only=True)
class Model:
    """The encoder that is trained.

    Attributes:
        name: The name in the table of results.
        checkpoint: A hub id, a model directory or a run directory.
        revision: The branch, tag or commit of a checkpoint on the hub. None: its main branch.
        tokenizer: A hub id or a directory. None: the tokenizer of the checkpoint.
        dropout: The probability of hidden and attention dropout, in [0, 1). None: that of the checkpoint; 0 for a task
            whose rows a teacher alone can label (texts for embeddings).
        attn_implementation: ``sdpa`` (the fused attention of PyTorch) or ``eager``.
        new_head: Start with a new head if the checkpoint's trained head does not fit the task, instead of refusing.
        dense: The name of the model that this one was pruned from, which results compare it with.
    """

    name: str
    checkpoint: str | None
    revision: str | None = None
    tokenizer: str | None = None
    dropout: float | None = None
    attn_implementation: str = "sdpa"
    new_head: bool = False
    dense: str | None = None

    def __post_init__(self) -> None:
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout}: expected a probability in [0, 1).")
        check_one_of("model.attn_implementation", self.attn_implementation, ("sdpa", "eager"))


@dataclass(kw_only=True)
class TinyModel(Model):
    """A small BERT with random weights, for tests and for trying out a command.

    The other options are those of ``Model``.

    Attributes:
        layers: The number of layers of the encoder.
        hidden: The hidden size, a multiple of ``heads``.
        heads: The number of attention heads of a layer.
        intermediate: The width of the feed-forward part of a layer.
        sparsity: The fraction of zeros in the encoder's matrices, in [0, 1).
        init_seed: The seed of the weights.
    """

    checkpoint: str | None = None
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    intermediate: int = 128
    sparsity: float = 0.0
    init_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"model.sparsity={self.sparsity}: expected a fraction in [0, 1).")
        if self.hidden % self.heads:
            raise ValueError(f"model.hidden={self.hidden} is not a multiple of model.heads={self.heads}.")


@dataclass(kw_only=True)
class TeacherSource:
    """Where the teacher comes from, and how its logits are cached.

    Attributes:
        source: Where it comes from: ``none``, ``dense``, ``checkpoint``, ``self`` or ``disable``. ``dense``: the
            ``recipe=dense`` run of the same task; it is trained first if it is not finished. ``checkpoint``: the model
            at ``path``. ``self``: the checkpoint that the student starts from, unpruned by this run. ``disable``: no
            teacher, and a SparseML recipe's distillation is ignored too.
        path: For ``checkpoint``: a run directory, a model directory or a hub id.
        revision: The branch, tag or commit of a ``path`` on the hub.
        model: For ``dense``: the model of that run. None: that of the student.
        seed: For ``dense``: the seed of that run. None: that of the student.
        overrides: For ``dense``: further overrides of that run, such as ``[train.epochs=4]``.
        reuse_logits: Compute the logits of the training rows once and read them from the cache in every epoch.
        max_gigabytes: The size of the cache of logits on disk. The least recently used ones are evicted first.
    """

    source: str = "none"
    path: str | None = None
    revision: str | None = None
    model: str | None = None
    seed: int | None = None
    overrides: list[str] = field(default_factory=list)
    reuse_logits: bool = True
    max_gigabytes: float = 10.0

    @property
    def given(self) -> bool:
        """Whether the run has a teacher."""
        return self.source not in ("none", "disable")

    def __post_init__(self) -> None:
        check_one_of("teacher.source", self.source, ("none", "disable", "dense", "checkpoint", "self"))
        if self.max_gigabytes <= 0:
            raise ValueError(f"teacher.max_gigabytes={self.max_gigabytes}: expected a number above 0.")
        if self.source == "checkpoint" and not self.path:
            raise ValueError("teacher=checkpoint needs teacher.path=: a run directory, a model directory or a hub id.")
        if self.source != "checkpoint" and self.path:
            raise ValueError(
                f"teacher.path={self.path} is not used by teacher={self.source}; write teacher=checkpoint."
            )


@dataclass(kw_only=True)
class Train:
    """Length, batches, numerics and checkpoints of a run. Times are epochs, ``'N steps'`` or ``'N%'`` of the run.

    Attributes:
        epochs: The length of the run in epochs.
        steps: The length of the run in optimizer steps. It replaces ``epochs``.
        batch_size: Rows per micro-batch and device.
        tokens: The most tokens of a micro-batch, padding included: as many as fit in memory. An optimizer step still
            has ``batch_size`` times ``gradient_accumulation_steps`` rows per device. They are sorted by length and cut
            into as few micro-batches as this allows, so that short rows make larger ones. Losses are the same but for
            rounding, the draws of dropout, and in 8 bits the ranges of activations, which every micro-batch moves.
            Texts for embeddings are compared within a micro-batch. None: micro-batches of ``batch_size`` rows.
        eval_batch_size: Rows per batch and device in evaluation.
        gradient_accumulation_steps: Micro-batches per optimizer step.
        group_by_length: Make batches of rows of similar length, which need less padding.
        unlabeled_share: With ``data.unlabeled``, the fraction of the rows of each batch that have no label, in [0, 1).
            ``batch_size`` stays the number of all rows: 32 and a share of 0.5 are 16 rows with labels and 16 without.
            An epoch is over the rows with labels.
        learning_rate: The peak learning rate. Recipes refer to it.
        warmup: The length of the warm-up of the learning rate. Recipes refer to it.
        max_grad_norm: The gradient norm to clip to. None: no clipping.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 where the device computes it natively (NVIDIA from
            Ampere on), fp16 on an older NVIDIA GPU, else fp32. Evaluation is in fp32 in any case, and without TF32
            unless PyTorch is told otherwise.
        device: ``cpu``, ``cuda``, ``xpu`` or ``mps``, with a number for one of several (``cuda:1``), or ``auto``: a
            CUDA GPU where there is one, else the CPU.
        deterministic: Compute with deterministic algorithms only, which may be slower. On a GPU, an interrupted run
            then ends bit for bit as an uninterrupted one does on GPUs of one kind, with the same versions. Without it
            a GPU adds in varying order: a run that continues has the same rows, rates and random numbers, and losses
            that differ by rounding, which may tip masks. On a CPU runs repeat bit for bit either way.
        threads: CPU threads of PyTorch, and of the engines that check and score the exported file. None: their own
            choice. Measurements of speed have their own.
        compile: Compile the encoder for training (``torch.compile``): the first steps take a minute or more, the others
            less time. Losses are the same but for rounding, and on a GPU for other draws of dropout. It pays in long
            runs on a GPU, and needs Triton there, a C++ compiler on a CPU.
        eval_every: The time between two evaluations.
        save_every: The time between two checkpoints.
        early_stopping: End the run after so many evaluations without an improvement of the task's metric. Those before
            the recipe is fulfilled (at its final sparsity, say) do not count. None: no early end. The learning rate
            follows the schedule of the full length, and so ends above its last value.
        early_stopping_threshold: The least improvement that counts, in points of the metric.
        keep_checkpoints: How many of the latest checkpoints are kept as model directories, in ``checkpoints/`` of the
            run: ``epoch-3`` loads like the model at its end.
        keep_states: How many of the latest states are kept until the run ends, from which it can resume.
        keep_best: End with the best evaluated model that satisfies the recipe (at its final sparsity, say), instead of
            the last one.
    """

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 16
    tokens: int | None = None
    eval_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    group_by_length: bool = True
    unlabeled_share: float = 0.5
    learning_rate: float = 5e-5
    warmup: TimeSpec = 0.0
    max_grad_norm: float | None = 1.0
    precision: str = "auto"
    device: str = "auto"
    deterministic: bool = False
    threads: int | None = None
    compile: bool = False
    eval_every: TimeSpec = 1.0
    save_every: TimeSpec = 1.0
    early_stopping: int | None = None
    early_stopping_threshold: float = 0.0
    keep_checkpoints: int = 0
    keep_states: int = 1
    keep_best: bool = True

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError(f"train.epochs={self.epochs}: expected a number above 0.")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"train.steps={self.steps}: expected at least 1, or null for train.epochs.")
        for name in ("batch_size", "eval_batch_size", "gradient_accumulation_steps", "keep_states"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)}: expected at least 1.")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(
                f"train.tokens={self.tokens}: expected at least 1, or null for batches of train.batch_size."
            )
        if not 0 <= self.unlabeled_share < 1:
            raise ValueError(f"train.unlabeled_share={self.unlabeled_share}: expected a fraction in [0, 1).")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise ValueError(
                f"train.early_stopping={self.early_stopping}: expected at least 1 evaluation, or null for no early end."
            )
        if not 0 <= self.early_stopping_threshold < math.inf:
            raise ValueError(
                f"train.early_stopping_threshold={self.early_stopping_threshold}: expected points of the metric, at "
                "least 0."
            )
        if self.keep_checkpoints < 0:
            raise ValueError(f"train.keep_checkpoints={self.keep_checkpoints}: expected a number, or 0 to keep none.")
        if self.early_stopping is None and self.early_stopping_threshold:
            raise ValueError(
                f"train.early_stopping_threshold={self.early_stopping_threshold:g} needs train.early_stopping=N."
            )
        if not 0 <= self.learning_rate <= 1:
            raise ValueError(f"train.learning_rate={self.learning_rate}: expected a rate in [0, 1].")
        self._check_warmup()
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(
                f"train.max_grad_norm={self.max_grad_norm}: expected a number above 0, or null for no clipping."
            )
        check_one_of("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        self._check_device()
        for name in ("eval_every", "save_every"):
            if not parse_time(getattr(self, name), f"train.{name}")[0]:
                raise ValueError(f"train.{name}={getattr(self, name)}: expected a time above 0.")

    @property
    def unlabeled_rows(self) -> int:
        """The rows of a micro-batch of ``batch_size`` that have no label, where there are such rows."""
        return math.floor(self.batch_size * self.unlabeled_share + 0.5)

    @property
    def labelled_rows(self) -> int:
        """The rows of a micro-batch of ``batch_size`` that have labels, where there are rows without."""
        return self.batch_size - self.unlabeled_rows

    def _check_device(self) -> None:
        """Raise ValueError for a device that PyTorch could not name; which there are, the run finds out."""
        kind, _, number = self.device.partition(":")
        if kind not in DEVICES:
            check_one_of("train.device", self.device, DEVICES)
        if kind != self.device and (kind not in ("cuda", "xpu") or not re.fullmatch("0|[1-9][0-9]{0,2}", number)):
            raise ValueError(f"train.device={self.device}: expected {kind}, or a number such as cuda:1 or xpu:0.")

    def _check_warmup(self) -> None:
        """Raise ValueError for a warm-up that is longer than the run."""
        number, unit = parse_time(self.warmup, "train.warmup")
        in_steps = self.steps is not None
        length = self.steps if self.steps is not None else self.epochs
        if unit == ("steps" if in_steps else "epochs") and number > length:
            steps = "" if in_steps else f", or steps: train.warmup='{number:g} steps'"
            raise ValueError(
                f"train.warmup={self.warmup}: the run has {length:g} {unit}. Write a part of the run, such as "
                f"train.warmup=5%{steps}."
            )


@dataclass(kw_only=True)
class Data:
    """Where rows come from: the hub by default, or a mirror (``root``), files (``train``), or generated (``embedded``).

    Attributes:
        root: A local mirror of the hub's data sets, with files ``<folder>/<split>.parquet``.
        train: A file of training rows of your own: JSON, JSON lines, CSV, TSV, parquet or CoNLL text.
        validation: A file of evaluation rows of your own. None: a share of the training rows is held out
            (``task.validation_share``).
        unlabeled: A file of rows without labels, which are learnt from the teacher alone: .txt (one text a line), JSON,
            JSON lines, CSV, TSV or parquet with the columns of the texts. Columns of labels are not read.
            ``train.unlabeled_share`` says how many of them a batch has.
        stream: Fetch only ``task.max_train_samples`` rows of a data set on the hub, and cache them.
        embedded: Generate rows instead of reading any (``profile=embedded``).
        embedded_train_rows: The number of generated training rows.
        embedded_eval_rows: The number of generated evaluation rows.
        workers: Processes that tokenize.
        cache: The directory for features, teacher logits and latency tables, which runs share.
        max_rows: The most rows that a file may have. A larger file is refused.
        max_gigabytes: The most gigabytes that a file may have after decompression. A larger file is refused.
        separator: The sign between columns. Of CSV and TSV: ``comma``, ``semicolon``, ``tab``, ``pipe``, or another
            sign; of CoNLL text: ``tab`` or ``space``. None: recognised.
        quoting: ``minimal`` (or ``all``): a text of CSV or TSV may stand in quotes; ``none``: quotes are signs like
            others. None: recognised.
        encoding: The encoding of text files, as Python names it (``latin-1``, ``cp1252``). None: by the byte order
            mark, else UTF-8.
    """

    root: str | None = None
    train: str | None = None
    validation: str | None = None
    unlabeled: str | None = None
    stream: bool = False
    embedded: bool = False
    embedded_train_rows: int = 1536
    embedded_eval_rows: int = 384
    workers: int = 1
    cache: str = "outputs/.cache"
    max_rows: int = 100_000_000
    max_gigabytes: float = 16.0
    separator: str | None = None
    quoting: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.text_format.given and not (self.train or self.unlabeled):
            name, value = next(iter(self.text_format.given.items()))
            raise ValueError(f"data.{name}={value!r} is for files of your own: it needs data.train=FILE.")
        if self.validation and not self.train:
            raise ValueError(f"data.validation={self.validation} needs data.train=FILE.")
        if self.train and self.root:
            raise ValueError("data.train and data.root are both set. Leave one of them out.")
        if self.workers < 1:
            raise ValueError(f"data.workers={self.workers}: expected at least 1.")
        for name in ("max_rows", "max_gigabytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"data.{name}={getattr(self, name)}: expected a number above 0.")

    @property
    def text_format(self) -> TextFormat:
        """How text files are to be read."""
        return TextFormat(self.separator, self.quoting, self.encoding)

    @property
    def source(self) -> str:
        """``files``, ``local``, ``embedded`` or ``hub``."""
        return "files" if self.train else "local" if self.root else "embedded" if self.embedded else "hub"


@dataclass(kw_only=True)
class Export:
    """The exported ONNX file, and the tolerances of its check. A run fails if its file exceeds one of them.

    PyTorch and onnxruntime are compared on the whole evaluation set. Rounding ties make int8 logits diverge, so
    quantized files have their own tolerances.

    Attributes:
        max_abs_diff: The largest absolute difference of any logit.
        max_metric_diff: The largest difference of the task's metric, in percentage points.
        max_rms_diff_int8: For quantized files, the root mean square of the differences of the logits, as a fraction of
            the logits' standard deviation.
        max_metric_diff_int8: ``max_metric_diff`` of quantized files.
        opset: The version of the ONNX operators, 18 to 23.
        batch: Fix the number of rows of an input. None: any number.
        sequence: Fix the number of tokens of an input. None: any number.
        openvino: Also write ``model.xml`` and ``model.bin``, OpenVINO's own format.
        external_data: Write the weights into ``model.onnx.data``, beside the graph. A model of more than 1.5 GiB is
            written so in any case: no ONNX file can have 2 GiB.
        target_cpu: The kind of CPU that the file is for; ``python -m sparse_xp.cpu`` lists them. None: the kind of this
            CPU. It decides which warnings about int8 are printed; if it is not the kind of this CPU, latency is not
            measured.
    """

    max_abs_diff: float = 1e-3
    max_metric_diff: float = 0.1
    max_rms_diff_int8: float = 0.1
    max_metric_diff_int8: float = 0.5
    opset: int = 20
    batch: int | None = None
    sequence: int | None = None
    openvino: bool = False
    external_data: bool = False
    target_cpu: str | None = None

    def __post_init__(self) -> None:
        if self.target_cpu is not None:
            check_one_of("export.target_cpu", self.target_cpu, tuple(CPU_KINDS))
        for name, least in (("batch", 1), ("sequence", 8)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"export.{name}={value}: expected at least {least}, or null for any number.")
        if not 18 <= self.opset <= 23:
            raise ValueError(f"export.opset={self.opset}: expected 18 to 23.")
        if self.openvino and not find_spec("openvino"):
            raise ValueError("export.openvino=true: OpenVINO is not installed: pip install 'sparse-xp[openvino]'")

    def check(self, task: str, max_length: int) -> None:
        """Raise ValueError if ``sequence`` is shorter than ``max_length``, the most tokens of a text of ``task``."""
        if self.sequence is not None and self.sequence < max_length:
            raise ValueError(
                f"export.sequence={self.sequence}: texts of task {task} have up to {max_length} tokens; "
                f"write task.max_length={self.sequence} too."
            )


@dataclass(kw_only=True)
class Log:
    """Logging. These settings never affect results.

    Attributes:
        tracker: ``wandb``, ``tensorboard``, ``mlflow``, ``trackio``, ``csv`` (metrics.csv in the directory of the run)
            or ``none``.
        mode: The mode of W&B: ``offline`` or ``online``.
        project: The tracker's project.
        group: The tracker's group of the run. None: the name of the run's parent directory, which is the sweep's.
        tags: Further tags of the run in the tracker; task, model and recipe are tags in any case.
        job_type: The tracker's kind of job. None: ``teacher`` for the dense run of ``teacher=dense``, ``sweep`` for a
            cell of a sweep, ``train`` for any other.
        artifacts: Upload the deployment folder and the report of a finished run to W&B, if it is online.
        every: Optimizer steps between two lines of ``history.jsonl`` and of the tracker.
        profile_steps: Record so many optimizer steps with PyTorch's profiler. 0: none.
    """

    tracker: str = "wandb"
    mode: str = "offline"
    project: str = "sparse_xp"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    job_type: str | None = None
    artifacts: bool = True
    every: int = 10
    profile_steps: int = 0

    def __post_init__(self) -> None:
        check_one_of("log.tracker", self.tracker, ("wandb", "tensorboard", "mlflow", "trackio", "csv", "none"))
        check_one_of("log.mode", self.mode, ("offline", "online"))
        if self.every < 1:
            raise ValueError(f"log.every={self.every}: expected at least 1 step.")
        if self.profile_steps < 0:
            raise ValueError(f"log.profile_steps={self.profile_steps}: expected a number of steps, or 0 for none.")
