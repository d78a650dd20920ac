"""Choose, check and renew the head of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.models.config_files import label_names_of
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


#: the ends of class names (...ForQuestionAnswering) whose heads are trained on a task and not in pretraining
TRAINED_HEADS = ("QuestionAnswering", "SequenceClassification", "TokenClassification", "MultipleChoice")
NEW_HEAD_ADVICE = "To train a new head on its encoder, write model.new_head=true; or choose another model.checkpoint."


def find_model_class(task: Task, config: PreTrainedConfig) -> Any:
    """Return the class for ``task`` of the checkpoint's architecture; its layers have the sizes in ``config``.

    Raises UserError if transformers has none.
    """
    import transformers

    from sparse_xp.functional.structured.config import is_reduced
    from sparse_xp.functional.structured.loading import reduced_class
    from sparse_xp.models.embedding_model import embedding_class

    auto = getattr(transformers, task.model_class)
    if type(config) not in auto._model_mapping:
        raise UserError(
            f"config.json: the library has no model of type {config.model_type!r} for task {task.name}, which needs "
            f"an {task.model_class}. Choose another checkpoint."
        )
    if task.embeds:
        return embedding_class(reduced_class(auto._model_mapping[type(config)], config))
    if not is_reduced(config):
        return auto
    return reduced_class(auto._model_mapping[type(config)], config)


def describe_new_heads(new_weights: list[str]) -> list[str]:
    """Return what the new weights of a model for pretraining predict: "masked words", "next sentences"."""
    # Each family calls the head for masked words otherwise; it is what is new besides the other two.
    sentences = [name for name in new_weights if "seq_relationship" in name]
    words = [name for name in new_weights if name not in sentences and "pooler." not in name]
    return ["masked words"] * bool(words) + ["next sentences"] * bool(sentences)


def check_head(task: Task, checkpoint: str, config: PreTrainedConfig) -> None:
    """Raise UserError if ``checkpoint`` has a head that was trained for another kind of task than ``task``.

    Loading it would throw that head away silently. Encoders without a head, and heads of pretraining, are fine.
    """
    wanted = task.model_class.partition("For")[2]
    for architecture in config.architectures or []:
        head = architecture.partition("For")[2]
        if head in TRAINED_HEADS and head != wanted:
            raise UserError(
                f"{checkpoint} does not fit task {task.name}: its class is {architecture}, and the task needs "
                f"...For{wanted}. Its trained head would be thrown away. {NEW_HEAD_ADVICE}"
            )


def check_labels(task: Task, config: PreTrainedConfig, whose: str, way_out: str) -> None:
    """Compare the label map of a trained head with that of ``task``, by name.

    Raises UserError, showing both sides, if names or order differ. If one side has only numbers, the head is accepted
    with a warning. A head of another kind of task is not compared.

    ``whose``: the owner of the head, ``way_out``: advice; both for the message.
    """
    theirs, wanted = label_names_of(config), task.model_class.partition("For")[2]
    if config.architectures and not any(name.endswith(f"For{wanted}") for name in config.architectures):
        return
    if labels_differ(task, config):
        same = sorted(map(str.casefold, theirs)) == sorted(map(str.casefold, task.label_names or []))
        raise UserError(
            f"{whose[0].upper()}{whose[1:]} was trained for labels {theirs}, task {task.name} has {task.label_names}: "
            f"{'the same in another order' if same else 'names and order must be equal'}, or classes would be taken "
            f"for others. {way_out} If the labels in the data are names, task.classes can have them in that order."
        )
    if (
        task.label_names
        and (are_placeholders(theirs) or are_placeholders(task.label_names))
        and theirs != task.label_names
    ):
        say(
            f"labels of {whose}: {', '.join(theirs)}, of task {task.name}: {', '.join(task.label_names)}; numbers "
            "cannot be compared with names, the order is taken to be the same"
        )


def labels_differ(task: Task, config: PreTrainedConfig) -> bool:
    """Return whether the labels of a checkpoint differ from the task's, in names or order.

    Case is ignored: checkpoints write ``NEGATIVE`` for what the data call ``negative``.
    """
    ours, theirs = task.label_names, label_names_of(config)
    if not ours:
        return False
    if len(ours) == len(theirs) and (are_placeholders(ours) or are_placeholders(theirs)):
        return False
    return [name.casefold() for name in ours] != [name.casefold() for name in theirs]


def are_placeholders(labels: list[str]) -> bool:
    """Return whether labels are numbers only: ``LABEL_0`` (the default of transformers) or ``0``, and so on."""
    return all(name in (f"LABEL_{i}", str(i)) for i, name in enumerate(labels))


def renew_head(model: PreTrainedModel) -> set[str]:
    """Reset all weights outside the encoder to those of an untrained model; return their names."""
    encoder = f"{model.base_model_prefix}."
    fresh = type(model)(model.config).state_dict()
    head = {name: weight for name, weight in fresh.items() if not name.startswith(encoder)}
    model.load_state_dict(head, strict=False)
    return set(head)
