"""Load the student and the teacher: in float32, with labels compared by name, and never unpickled.

A run passes ``source`` (which checkpoint), ``tokenizers``, and this module: ``config_files`` (config.json), ``heads``
(does the head fit the task?) and ``weights`` (is the encoder complete?).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparse_xp.console import say
from sparse_xp.data.hub import is_local_checkpoint
from sparse_xp.errors import UserError
from sparse_xp.files.reading import resolve_model_dir
from sparse_xp.functional.architectures import dropout_keys
from sparse_xp.models.config_files import read_config
from sparse_xp.models.heads import (
    NEW_HEAD_ADVICE,
    check_head,
    check_labels,
    find_model_class,
    labels_differ,
    renew_head,
)
from sparse_xp.models.positions import check_text_length
from sparse_xp.models.tokenizers import load_tokenizer
from sparse_xp.models.weights import SPARSEML_NAMES, load_weights
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    task: Task,
    checkpoint: str,
    *,
    revision: str | None = None,
    dropout: float | None = None,
    attn_implementation: str = "sdpa",
    new_head: bool = False,
    removed_layers: Sequence[str] = (),
) -> tuple[PreTrainedModel, list[str]]:
    """Return a model with the head of ``task`` in float32, and the names of weights that the checkpoint lacks.

    ``new_head``: replace a head that does not fit. ``removed_layers``: names, or ``re:`` patterns, of layers that the
    checkpoint lacks although its configuration counts them (``recipe.inherit.removed_layers``).

    Raises UserError if the checkpoint has a trained head that does not fit ``task`` in kind, shape or labels, without
    ``new_head``; and if its encoder is incomplete or its files are damaged.
    """
    import torch

    config = read_config(checkpoint, revision)
    if not new_head:
        check_head(task, checkpoint, config)
    cls = find_model_class(task, config)
    options = {
        **_label_options(task),
        **_dropout_options(config, dropout),
        # float32 whatever the file says: masks and small updates are lost in a half-precision master copy.
        "dtype": torch.float32,
        "attn_implementation": supported_attention(cls, config, attn_implementation),
        "revision": revision,
        "key_mapping": SPARSEML_NAMES,
    }
    model, info = load_weights(cls, checkpoint, config, options, removed_layers)
    model.config.update(task.config_entries)
    if task.embeds:
        from sparse_xp.models.embedding_model import add_sentence_head, sentence_head

        head = sentence_head(checkpoint, revision, config.hidden_size, task.head_options)
        add_sentence_head(model, head, checkpoint, revision)
        return model, []
    mismatched = {name: shapes for name, *shapes in info["mismatched_keys"]}
    if mismatched and not new_head:
        name, (theirs, ours) = min(mismatched.items())
        raise UserError(
            f"{checkpoint} does not fit task {task.name}: its head has another shape ({name}: {list(theirs)} in the "
            f"checkpoint, {list(ours)} in the model). {NEW_HEAD_ADVICE}"
        )
    new = {*info["missing_keys"], *mismatched}
    head_is_loaded = all(name.startswith(f"{model.base_model_prefix}.") for name in new)
    if head_is_loaded and not new_head:
        check_labels(task, config, f"the checkpoint {checkpoint}", NEW_HEAD_ADVICE)
    elif head_is_loaded and labels_differ(task, config):
        new |= renew_head(model)
    return model, sorted(new)


def _label_options(task: Task) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` that follow from the task: its kind of head and its labels."""
    options: dict[str, Any] = dict(task.model_options)
    if task.label_names:
        options["id2label"] = dict(enumerate(task.label_names))
        options["label2id"] = {name: i for i, name in enumerate(task.label_names)}
    return options


def _dropout_options(config: PreTrainedConfig, dropout: float | None) -> dict[str, float]:
    """Return ``model.dropout`` under the names that it has in this kind of model; nothing for None.

    Raises UserError if no name is known.
    """
    if dropout is None:
        return {}
    keys = dropout_keys(config)
    if not keys:
        raise UserError(
            f"model.dropout={dropout}: no probability of dropout is known in the configuration of a {config.model_type}"
            ". Leave model.dropout out, and write the probabilities into the config.json of the checkpoint."
        )
    return dict.fromkeys(keys, dropout)


def supported_attention(cls: Any, config: PreTrainedConfig, attn_implementation: str) -> str:
    """Return ``attn_implementation``, or ``eager`` for a class of models that computes no attention otherwise.

    The choice of another one than asked for is printed.
    """
    concrete = cls._model_mapping[type(config)] if hasattr(cls, "_model_mapping") else cls
    if attn_implementation != "sdpa" or concrete._supports_sdpa:
        return attn_implementation
    say(f"{concrete.__name__} has no fused attention (model.attn_implementation=sdpa); eager is taken")
    return "eager"


def load_teacher_model(
    task: Task,
    path: str,
    student_tokenizer: PreTrainedTokenizerBase,
    revision: str | None = None,
    removed_layers: Sequence[str] = (),
) -> PreTrainedModel:
    """Return a trained model of the same task in eval mode, without gradients.

    ``path``: a run directory (its ``model/`` is loaded), a model directory or a hub id. Raises UserError, showing both
    sides, if its labels, head or vocabulary differ from the student's, or if its head was never trained.
    """
    checkpoint = resolve_model_dir(path)
    is_local_checkpoint(checkpoint)
    config = read_config(checkpoint, revision, "teacher")
    check_text_length(checkpoint, config.to_dict(), task)
    check_labels(task, config, f"the teacher {checkpoint}", "Train a teacher with teacher=dense.")
    # ``new_head``: a head that does not fit is among the missing weights, reported below with a clearer message.
    teacher, missing = load_model(task, checkpoint, revision=revision, new_head=True, removed_layers=removed_layers)
    if missing:
        command = "recipe=teacher_preparation" if task.is_language_model else "teacher=dense"
        raise UserError(
            f"The teacher {checkpoint} has no trained head for task {task.name} (missing: {', '.join(missing)}): "
            f"its class is {'/'.join(config.architectures or ['?'])}. Train one with {command}."
        )
    check_same_vocabulary(checkpoint, load_tokenizer(checkpoint, revision), student_tokenizer)
    teacher.eval()
    teacher.requires_grad_(False)
    return teacher


def check_same_vocabulary(checkpoint: str, teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Raise UserError, with the first token that differs, unless teacher and student have the same vocabulary.

    ``checkpoint``: the teacher's.
    """
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    if theirs == ours:
        return
    token = min((t for t in theirs.keys() | ours.keys() if theirs.get(t) != ours.get(t)), key=str)
    there, here = (f"number {known[token]}" if token in known else "missing" for known in (theirs, ours))
    raise UserError(
        f"The teacher {checkpoint} reads other tokens than the student: {len(theirs)} against {len(ours)} in the "
        f"vocabulary, and {token!r} is {there} there and {here} here."
    )
