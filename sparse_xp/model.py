"""Student, teacher, tokenizer: loaded as float32, compared by name, never unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.config import Model, TinyModel
from sparse_xp.console import say
from sparse_xp.data import digest
from sparse_xp.errors import UserError
from sparse_xp.files import of_run, one_at_a_time
from sparse_xp.hub import is_local, unavailable
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


#: SparseML saved the matrices of a quantized model inside of wrappers, ``query.module.weight`` for ``query.weight``
SPARSEML_NAMES = {r"\.module\.(weight|bias)$": r".\1"}

#: what a class of transformers is for, where its head was trained on a task and not in pretraining
TRAINED_HEADS = ("QuestionAnswering", "SequenceClassification", "TokenClassification", "MultipleChoice")
NEW_HEAD = "To train a new head on its encoder, write model.new_head=true; or choose another model.checkpoint."


def locate(model: Model, cache: Path) -> str:
    """The hub id or directory of ``model``; a tiny one is built under ``cache`` first."""
    if model.checkpoint:
        checkpoint = of_run(model.checkpoint)
        is_local(checkpoint)
        return checkpoint
    if not isinstance(model, TinyModel):
        raise UserError(f"model={model.name} has no checkpoint: give model.checkpoint=, a hub id or a local directory.")
    from sparse_xp.embedded import SPARSE, build_checkpoint, vocabulary

    shape = {name: getattr(model, name) for name in ("sparsity", "layers", "hidden", "heads", "intermediate")}
    directory = cache / f"tiny-{digest([shape, SPARSE, model.init_seed, vocabulary()])}"
    with one_at_a_time(directory):
        if not directory.is_dir():
            build_checkpoint(directory, seed=model.init_seed, **shape)
    return str(directory)


def load_tokenizer(checkpoint: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a checkpoint."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint, revision=revision)
    except (OSError, ValueError) as error:
        raise unavailable(f"tokenizer of {checkpoint}", error) from error


def load_model(
    task: Task,
    checkpoint: str,
    revision: str | None = None,
    dropout: float | None = None,
    attention: str = "sdpa",
    new_head: bool = False,
) -> tuple[PreTrainedModel, list[str]]:
    """A model with the head of ``task``, as float32, and the names of weights that the checkpoint did not have.

    Raises UserError if the checkpoint has a trained head that does not fit ``task``, in kind, shape or labels, unless
    ``new_head`` allows to put a new one in its place.
    """
    import torch

    stored = read_config(checkpoint, revision)
    if not new_head:
        check_head(task, checkpoint, stored)
    options: dict[str, Any] = dict(task.model_options)
    if task.label_names:
        options["id2label"] = dict(enumerate(task.label_names))
        options["label2id"] = {name: i for i, name in enumerate(task.label_names)}
    if dropout is not None:
        options |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    try:
        # float32 whatever the file says: masks and small updates are lost in a half-precision master copy.
        model, info = model_class(task, stored).from_pretrained(
            checkpoint,
            revision=revision,
            dtype=torch.float32,
            attn_implementation=attention,
            weights_only=True,
            output_loading_info=True,
            key_mapping=SPARSEML_NAMES,
            ignore_mismatched_sizes=new_head,
            **options,
        )
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint} does not fit task {task.name}: its head has another shape "
            f"({str(error).splitlines()[-1].strip()}). {NEW_HEAD}"
        ) from error
    except (OSError, ValueError) as error:
        raise unavailable(f"model {checkpoint}", error) from error
    mismatched = sorted(name for name, *_ in info["mismatched_keys"])
    if broken := [name for name in mismatched if name.startswith(f"{model.base_model_prefix}.")]:
        raise UserError(f"{checkpoint} is damaged: {broken[0]} has another shape than its config.json says.")
    new = {*info["missing_keys"], *mismatched}
    if all(name.startswith(f"{model.base_model_prefix}.") for name in new):  # the head is the checkpoint's
        if not new_head:
            check_labels(task, stored, f"the checkpoint {checkpoint}", NEW_HEAD)
        elif other_labels(task, stored):
            new |= renew_head(model)
    return model, sorted(new)


def model_class(task: Task, config: PreTrainedConfig) -> Any:
    """The class for ``task`` of the checkpoint's architecture, with layers of the sizes that ``config`` tells of."""
    import transformers

    from sparse_xp.structured import fitting, reduced

    auto = getattr(transformers, task.model_class)
    if not reduced(config):
        return auto
    return fitting(auto._model_mapping[type(config)], config)


def heads_of(new_weights: list[str]) -> list[str]:
    """What the new weights of a model for pretraining are for, in words."""
    marks = {"next sentences": ("seq_relationship",), "masked words": ("predictions", "vocab_", "lm_head")}
    return [what for what, parts in marks.items() if any(part in name for part in parts for name in new_weights)][::-1]


def read_config(checkpoint: str, revision: str | None, what: str = "model") -> PreTrainedConfig:
    """The configuration of a checkpoint. Raises UserError if it cannot be had."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint, revision=revision)
    except (OSError, ValueError) as error:
        raise unavailable(f"{what} {checkpoint}", error) from error


def check_head(task: Task, checkpoint: str, config: PreTrainedConfig) -> None:
    """Raise UserError if ``checkpoint`` has a head that was trained for another kind of task than ``task``.

    Loading it would throw that head away unsaid. Encoders without a head, and heads of pretraining, are fine.
    """
    wanted = task.model_class.partition("For")[2]
    for architecture in config.architectures or []:
        head = architecture.partition("For")[2]
        if head in TRAINED_HEADS and head != wanted:
            raise UserError(
                f"{checkpoint} does not fit task {task.name}: it is a {architecture}, the task wants a ...For{wanted}, "
                f"and its trained head would be thrown away. {NEW_HEAD}"
            )


def check_labels(task: Task, config: PreTrainedConfig, whose: str, way_out: str) -> None:
    """Compare the label map of a trained head with that of ``task``, by name.

    ``whose`` head it is, and the ``way_out``, are for the message. Raises UserError, showing both sides, if names or
    order differ. Where one side has numbers only, nothing can be compared: the head is taken, and a line says so. A
    head of another kind has no labels to compare.
    """
    theirs, wanted = labels_of(config), task.model_class.partition("For")[2]
    if config.architectures and not any(name.endswith(f"For{wanted}") for name in config.architectures):
        return
    if other_labels(task, config):
        same = sorted(map(str.casefold, theirs)) == sorted(map(str.casefold, task.label_names or []))
        raise UserError(
            f"{whose[0].upper()}{whose[1:]} was trained for labels {theirs}, task {task.name} has {task.label_names}: "
            f"{'the same in another order' if same else 'names and order must be equal'}, or classes would be taken "
            f"for others. {way_out} If the labels in the data are names, task.classes can have them in that order."
        )
    if task.label_names and (nameless(theirs) or nameless(task.label_names)) and theirs != task.label_names:
        say(
            f"labels of {whose}: {', '.join(theirs)}, of task {task.name}: {', '.join(task.label_names)}; numbers "
            "cannot be compared with names, the order is taken to be the same"
        )


def other_labels(task: Task, config: PreTrainedConfig) -> bool:
    """Whether the labels of a checkpoint are known to be others than the task's, or in another order.

    Upper and lower case are the same, since checkpoints write ``NEGATIVE`` for what the data call ``negative``.
    """
    ours, theirs = task.label_names, labels_of(config)
    if not ours:
        return False
    if len(ours) == len(theirs) and (nameless(ours) or nameless(theirs)):
        return False
    return [name.casefold() for name in ours] != [name.casefold() for name in theirs]


def labels_of(config: PreTrainedConfig) -> list[str]:
    """The names of a checkpoint's labels, in the order of its outputs."""
    labels: dict[Any, str] = dict(config.id2label or {})
    return [str(labels[i]) for i in sorted(labels)]


def nameless(labels: list[str]) -> bool:
    """Whether labels are but numbers: ``LABEL_0``, ``LABEL_1`` ..., as transformers fills up, or ``0``, ``1`` ..."""
    return all(name in (f"LABEL_{i}", str(i)) for i, name in enumerate(labels))


def renew_head(model: PreTrainedModel) -> set[str]:
    """Give all weights outside of the encoder the values of an untrained model; returns their names."""
    encoder = f"{model.base_model_prefix}."
    fresh = type(model)(model.config).state_dict()
    head = {name: weight for name, weight in fresh.items() if not name.startswith(encoder)}
    model.load_state_dict(head, strict=False)
    return set(head)


def load_teacher(
    task: Task, path: str, student_tokenizer: PreTrainedTokenizerBase, revision: str | None = None
) -> PreTrainedModel:
    """A trained model of the same task in eval mode, without gradients.

    ``path``: a run directory (its ``model/`` is taken), a model directory or a hub id. Raises UserError, showing both
    sides, if its labels, its head or its vocabulary are not the student's, or if its head was never trained.
    """
    checkpoint = str(Path(path) / "model") if (Path(path) / "model").is_dir() else path
    is_local(checkpoint)
    config = read_config(checkpoint, revision, "teacher")
    check_labels(task, config, f"the teacher {checkpoint}", "Train a teacher with teacher=dense.")
    # A head of another kind is missing below; one of another shape is not to be replaced either.
    teacher, missing = load_model(task, checkpoint, revision, new_head=True)
    if missing:
        way = "recipe=teacher_preparation" if task.over_vocabulary else "teacher=dense"
        raise UserError(
            f"The teacher {checkpoint} has no trained head for task {task.name} (missing: {', '.join(missing)}): "
            f"it is a {'/'.join(config.architectures or ['?'])}. Train one with {way}."
        )
    vocabulary, wanted = load_tokenizer(checkpoint, revision).get_vocab(), student_tokenizer.get_vocab()
    if vocabulary != wanted:
        token = min((t for t in vocabulary.keys() | wanted.keys() if vocabulary.get(t) != wanted.get(t)), key=str)
        raise UserError(
            f"The teacher {checkpoint} reads other tokens than the student: {len(vocabulary)} against {len(wanted)} in "
            f"the vocabulary, and {token!r} is number {vocabulary.get(token)} there and {wanted.get(token)} here."
        )
    return teacher.eval().requires_grad_(False)


def parameter_groups(model: nn.Module, others: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Two groups for AdamW: the weights that decay, and the biases and LayerNorms that do not (Devlin et al. 2019).

    ``others``: matrices that train beside the model, and decay; they make a third group.
    """
    decaying = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    still = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": 0.0, "decays": True},
        {"params": still, "weight_decay": 0.0, "decays": False},
    ]
    return [*groups, {"params": list(others), "weight_decay": 0.0, "decays": True}] if others else groups
