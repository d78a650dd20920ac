"""What a run is made of, one dataclass for each group of ``conf/`` that holds plain values.

Nothing here imports torch: a configuration is composed, checked and refused in the time Hydra takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.util import find_spec

from sparse_xp.clock import TimeSpec, parse_time
from sparse_xp.cpu import CPU_KINDS
from sparse_xp.errors import check_one_of


@dataclass(kw_only=True)
class Model:
    """An encoder: ``checkpoint`` is a hub id, a local directory or a run's, ``tokenizer`` the same (default: that).

    ``dropout`` replaces the checkpoint's hidden and attention dropout where it is given. ``new_head``: where the
    checkpoint's own trained head does not fit the task, start with a new one instead of refusing. ``dense``: the name
    of the model that this one was pruned from.
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
            raise ValueError(f"model.dropout={self.dropout}: want a probability in [0, 1).")
        check_one_of("model.attn_implementation", self.attn_implementation, ("sdpa", "eager"))


@dataclass(kw_only=True)
class TinyModel(Model):
    """A BERT of a few thousand weights, made on the spot from ``init_seed``; ``sparsity`` of its encoder is zero."""

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
            raise ValueError(f"model.sparsity={self.sparsity}: want a fraction in [0, 1).")
        if self.hidden % self.heads:
            raise ValueError(f"model.hidden={self.hidden} is not a multiple of model.heads={self.heads}.")


@dataclass(kw_only=True)
class TeacherSource:
    """Where the teacher comes from, and how its logits are kept.

    ``source``: ``none``; ``dense``: the ``recipe=dense`` run of the same task, reused when it exists and trained
    first when it does not (``model``, ``seed`` and ``overrides`` say which); ``checkpoint``: ``path`` is a run
    directory, a model directory or a hub id; ``self``: the checkpoint that the student starts from, as it was;
    ``disable``: none, and a SparseML recipe that distils does not.
    ``reuse_logits``: compute the teacher's logits once for all epochs; all that are kept take ``max_gigabytes`` of
    disk at most, the ones used longest ago go first.
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
        """Whether there is a teacher."""
        return self.source not in ("none", "disable")

    def __post_init__(self) -> None:
        check_one_of("teacher.source", self.source, ("none", "disable", "dense", "checkpoint", "self"))
        if self.max_gigabytes <= 0:
            raise ValueError(f"teacher.max_gigabytes={self.max_gigabytes}: want a number above 0.")
        if self.source == "checkpoint" and not self.path:
            raise ValueError("teacher=checkpoint needs teacher.path=: a run directory, a model directory or a hub id.")
        if self.source != "checkpoint" and self.path:
            raise ValueError(
                f"teacher.path={self.path} is not used by teacher={self.source}; write teacher=checkpoint."
            )


@dataclass(kw_only=True)
class Train:
    """Length, batches, numerics and cadence of a run. Times are epochs, ``'N steps'`` or ``'N%'`` of the run.

    ``steps``: the length in optimizer steps, in place of ``epochs``.
    ``batch_size`` rows go through the model at once on each device, ``gradient_accumulation_steps`` such batches
    make one optimizer step. ``learning_rate`` (the peak) and ``warmup`` are what recipes refer to.
    ``group_by_length`` puts rows of like length together. ``keep_best``: end with the best checkpoint among those
    that satisfy the recipe, instead of with the last.
    """

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 16
    eval_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    group_by_length: bool = True
    learning_rate: float = 5e-5
    warmup: TimeSpec = 0.0
    max_grad_norm: float | None = 1.0
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    eval_every: TimeSpec = 1.0
    save_every: TimeSpec = 1.0
    keep_checkpoints: int = 1
    keep_best: bool = True

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError(f"train.epochs={self.epochs}: want a number above 0.")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"train.steps={self.steps}: want at least 1, or null for train.epochs.")
        for name in ("batch_size", "eval_batch_size", "gradient_accumulation_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)}: want at least 1.")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(
                f"train.max_grad_norm={self.max_grad_norm}: want a number above 0, or null for no clipping."
            )
        check_one_of("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        check_one_of("train.device", self.device, ("auto", "cpu"))
        for name in ("eval_every", "save_every"):
            if not parse_time(getattr(self, name), f"train.{name}")[0]:
                raise ValueError(f"train.{name}={getattr(self, name)}: want a time above 0.")


@dataclass(kw_only=True)
class Data:
    """Where rows come from: the hub, or a local mirror ``root`` of ``<folder>/<split>.parquet``, or ``embedded``.

    ``train``, ``validation``: files of the user's own (JSON, JSON lines, CSV, TSV, parquet, CoNLL text); without
    ``validation`` a share of the training rows is held out (``task.validation_share``).
    ``stream``: of a data set on the hub fetch only as many rows as ``task.max_train_samples`` says, and keep them.
    ``workers``: processes that tokenise.
    ``max_rows``, ``max_gigabytes``: a file that holds, or unpacks to, more is refused.
    ``embedded_train_rows``, ``embedded_eval_rows``: how many rows ``profile=embedded`` generates.
    """

    root: str | None = None
    train: str | None = None
    validation: str | None = None
    stream: bool = False
    embedded: bool = False
    embedded_train_rows: int = 1536
    embedded_eval_rows: int = 384
    workers: int = 1
    cache: str = "outputs/.cache"
    max_rows: int = 100_000_000
    max_gigabytes: float = 16.0

    def __post_init__(self) -> None:
        if self.validation and not self.train:
            raise ValueError(f"data.validation={self.validation} needs data.train=FILE.")
        if self.train and self.root:
            raise ValueError("data.train and data.root are both given: take the files or the mirror.")
        if self.workers < 1:
            raise ValueError(f"data.workers={self.workers}: want at least 1.")
        for name in ("max_rows", "max_gigabytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"data.{name}={getattr(self, name)}: want a number above 0.")

    @property
    def source(self) -> str:
        """``files``, ``local``, ``embedded`` or ``hub``."""
        return "files" if self.train else "local" if self.root else "embedded" if self.embedded else "hub"


@dataclass(kw_only=True)
class Export:
    """The deployment file and its gates, past which the run fails.

    ``max_abs_diff``: of any logit between PyTorch and onnxruntime. ``max_metric_diff``: of the task's metric, in
    per cent, between the two on the whole evaluation set. A value that lies between two integers may be rounded to
    either side, and what follows from it differs: files of integers have limits of their own, ``max_rms_diff_int8`` for
    the root mean square of all differences as a share of the logits' standard deviation.
    ``batch``, ``sequence``: rows and tokens of a file of one shape; by default it takes any number of them.
    ``openvino``: write ``model.xml`` and ``model.bin`` too, OpenVINO's own format.
    ``target_cpu``: the kind of CPU that the file is for (``python -m sparse_xp.cpu`` has them), null for this one. It
    decides what the run says about 8 bits, and that a speed is not measured on a CPU of another kind.
    """

    max_abs_diff: float = 1e-3
    max_metric_diff: float = 0.1
    max_rms_diff_int8: float = 0.1
    max_metric_diff_int8: float = 0.5
    opset: int = 20
    batch: int | None = None
    sequence: int | None = None
    openvino: bool = False
    target_cpu: str | None = None

    def __post_init__(self) -> None:
        if self.target_cpu is not None:
            check_one_of("export.target_cpu", self.target_cpu, tuple(CPU_KINDS))
        for name, least in (("batch", 1), ("sequence", 8)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"export.{name}={value}: want at least {least}, or null for any number.")
        if not 18 <= self.opset <= 23:
            raise ValueError(f"export.opset={self.opset}: want 18 to 23.")
        if self.openvino and not find_spec("openvino"):
            raise ValueError("export.openvino=true: OpenVINO is not installed: pip install 'sparse-xp[openvino]'")

    def check(self, task: str, max_length: int) -> None:
        """Raise ValueError for a file of one shape that is too short for texts of ``max_length`` tokens."""
        if self.sequence is not None and self.sequence < max_length:
            raise ValueError(
                f"export.sequence={self.sequence}: texts of task {task} have up to {max_length} tokens; "
                f"write task.max_length={self.sequence} too."
            )


@dataclass(kw_only=True)
class Log:
    """What is told to whom. Nothing here changes a number.

    ``tracker``: wandb, tensorboard, mlflow, trackio or none. ``mode`` (of wandb): offline or online; ``group``: by
    default the name of the directory that holds the run, which is the sweep. ``artifacts``: give W&B the deployment
    folder and the report of a finished run, when online. ``every``: optimizer steps between two lines of
    ``history.jsonl`` and of the tracker.
    """

    tracker: str = "wandb"
    mode: str = "offline"
    project: str = "sparse_xp"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    artifacts: bool = True
    every: int = 10

    def __post_init__(self) -> None:
        check_one_of("log.tracker", self.tracker, ("wandb", "tensorboard", "mlflow", "trackio", "none"))
        check_one_of("log.mode", self.mode, ("offline", "online"))
        if self.every < 1:
            raise ValueError(f"log.every={self.every}: want at least 1 step.")
