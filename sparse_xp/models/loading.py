"""Student, teacher, tokenizer: loaded as float32, compared by name, never unpickled."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.cache import cached
from sparse_xp.console import say
from sparse_xp.data.batches import settings_kept
from sparse_xp.data.hub import AGAIN, is_local, kind, loading, read_header, read_lines, read_object, weight_files
from sparse_xp.errors import UserError
from sparse_xp.files import digest, of_run, reading
from sparse_xp.settings import Model, TinyModel
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


#: SparseML saved the matrices of a quantized model inside of wrappers, ``query.module.weight`` for ``query.weight``
SPARSEML_NAMES = {r"\.module\.(weight|bias)$": r".\1"}

#: what a class of transformers is for, where its head was trained on a task and not in pretraining
TRAINED_HEADS = ("QuestionAnswering", "SequenceClassification", "TokenClassification", "MultipleChoice")
NEW_HEAD = "To train a new head on its encoder, write model.new_head=true; or choose another model.checkpoint."

#: sizes in config.json, with the least and the most that they may be; more would build modules for hours
SIZES = {
    **dict.fromkeys(("vocab_size", "hidden_size", "max_position_embeddings", "dim", "embedding_size"), (1, 10_000_000)),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "type_vocab_size"), (0, 10_000_000)),
    **dict.fromkeys(("num_attention_heads", "n_heads"), (1, 10_000)),
    **dict.fromkeys(("num_hidden_layers", "n_layers"), (1, 1000)),
    "num_labels": (0, 100_000),
}
#: files of which any one has the whole vocabulary of a tokenizer
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")
#: the share of the rows of an embedding that must have a word; tables are padded to round numbers
WHOLE = 0.9
#: the number of an encoder layer in the name of a weight
_NUMBER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


def locate(model: Model, cache: Path) -> str:
    """The hub id or directory of ``model``; a tiny one is built under ``cache`` first."""
    if model.checkpoint:
        checkpoint = of_run(model.checkpoint)
        is_local(checkpoint)
        return checkpoint
    if not isinstance(model, TinyModel):
        raise UserError(f"model={model.name} has no checkpoint: give model.checkpoint=, a hub id or a local directory.")
    from sparse_xp.synthetic.model import SPARSE, build_checkpoint, vocabulary

    shape = {name: getattr(model, name) for name in ("sparsity", "layers", "hidden", "heads", "intermediate")}
    directory = cache / f"tiny-{digest([shape, SPARSE, model.init_seed, vocabulary()])}"
    cached(directory, lambda draft: build_checkpoint(draft, seed=model.init_seed, **shape))
    return str(directory)


def load_tokenizer(checkpoint: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a checkpoint. Raises UserError if it cannot be had, or if its files are damaged."""
    from transformers import AutoTokenizer

    files = check_tokenizer(Path(checkpoint)) if os.path.isdir(checkpoint) else []
    with loading(f"tokenizer of {checkpoint}", checkpoint, *files):
        found = AutoTokenizer.from_pretrained(checkpoint, revision=revision, **only_here(checkpoint))
        # What is wrong in its files shows when it is used first.
        with settings_kept(found):
            found(["a", "A b!"], truncation=True, max_length=8, padding="max_length" if found.pad_token else False)
        special = dict(zip(found.all_special_tokens, found.all_special_ids, strict=True))
    config = Path(checkpoint) / "config.json"
    rows = read_object(config).get("vocab_size") if config.is_file() else None
    if type(rows) is int and (new := {token: number for token, number in special.items() if number >= rows}):
        token, number = new.popitem()
        raise UserError(
            f"{Path(checkpoint) / files[-1]} is damaged: the special token {token!r} is number {number}, and by "
            f"config.json the model has {rows:,} tokens. {AGAIN}"
        )
    return found


def only_here(checkpoint: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told, lest it runs code from a checkpoint, or asks the hub about a directory."""
    return {"trust_remote_code": False, **({"local_files_only": True} if os.path.isdir(checkpoint) else {})}


def check_tokenizer(directory: Path) -> list[str]:
    """The names of the files that make the tokenizer in ``directory``. Raises UserError for a damaged one."""
    with reading(directory, AGAIN):
        there = [name for name in os.listdir(directory) if os.path.lexists(directory / name)]
    main = next((name for name in VOCABULARIES if name in there), None)
    if main is None:
        raise UserError(f"{directory} has no tokenizer: want tokenizer.json, vocab.txt, or vocab.json. {AGAIN}")
    if "config.json" in there:  # tells the class of the tokenizer where tokenizer_config.json does not
        check_config(directory / "config.json")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if name in there:
            check_tokens(directory / name)
    added = len(read_object(directory / "added_tokens.json")) if "added_tokens.json" in there else 0
    if main in ("tokenizer.json", "vocab.json"):
        words = read_object(directory / main)
    if main == "tokenizer.json":
        from tokenizers import Tokenizer

        with loading("", str(directory), main):
            Tokenizer.from_file(str(directory / main))
    if main == "vocab.txt":
        check_whole(directory / main, added + len(read_lines(directory / main)), directory / "config.json")
    if main == "vocab.json":
        if "merges.txt" not in there:
            raise UserError(f"{directory}/merges.txt is missing. {AGAIN}")
        merged = {line.replace(" ", "") for line in read_lines(directory / "merges.txt")}
        made = [word for word in words if len(word) > 1 and not re.fullmatch("<.*>", word)]
        if sum(word in merged for word in made) < WHOLE * len(made):
            raise UserError(f"{directory}/merges.txt is damaged (it does not make the words of vocab.json). {AGAIN}")
    return [main, *(name for name in ("merges.txt", "tokenizer_config.json") if name in there)]


def check_tokens(path: Path) -> None:
    """Raise UserError for values that no tokenizer can have, and that ``from_pretrained`` accepts silently."""
    stored = read_object(path)
    for name, value in stored.items():
        text = value.get("content") if isinstance(value, dict) else value
        if re.fullmatch("[a-z]+_token", name) and value is not None and not isinstance(text, str):
            raise UserError(f"{path} is damaged: {name} is {kind(value)}, want a token. {AGAIN}")
    longest = stored.get("model_max_length")
    if longest is not None and (type(longest) not in (int, float) or not longest >= 1):
        raise UserError(f"{path} is damaged: model_max_length is not a number above 0. {AGAIN}")


def check_whole(path: Path, words: int, config: Path) -> None:
    """Raise UserError if a vocabulary was cut short: if it has far fewer words than the table of embeddings."""
    wanted = read_object(config).get("vocab_size") if config.is_file() else None
    padding = 128 if type(wanted) is int and wanted % 64 == 0 else 0
    if type(wanted) is int and words < WHOLE * wanted - padding:
        raise UserError(f"{path} is damaged (it has {words:,} words, and config.json says {wanted:,}). {AGAIN}")


def load_model(
    task: Task,
    checkpoint: str,
    revision: str | None = None,
    dropout: float | None = None,
    attention: str = "sdpa",
    new_head: bool = False,
    removed_layers: Sequence[str] = (),
) -> tuple[PreTrainedModel, list[str]]:
    """A model with the head of ``task``, as float32, and the names of weights that the checkpoint did not have.

    ``removed_layers``: names, or ``re:`` patterns, of layers that the checkpoint lacks although its configuration
    counts them (``recipe.inherit.removed_layers``).

    Raises UserError if the checkpoint has a trained head that does not fit ``task``, in kind, shape or labels, unless
    ``new_head`` allows to put a new one in its place; and if its encoder is not whole, or its files are damaged.
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
    # float32 whatever the file says: masks and small updates are lost in a half-precision master copy.
    options |= {"dtype": torch.float32, "attn_implementation": attention, "revision": revision}
    cls = model_class(task, stored)
    model, info = load_weights(cls, checkpoint, stored, options | {"key_mapping": SPARSEML_NAMES}, removed_layers)
    mismatched = {name: shapes for name, *shapes in info["mismatched_keys"]}
    if mismatched and not new_head:
        name, (theirs, ours) = min(mismatched.items())
        raise UserError(
            f"{checkpoint} does not fit task {task.name}: its head has another shape ({name}: {list(theirs)} in the "
            f"checkpoint, {list(ours)} in the model). {NEW_HEAD}"
        )
    new = {*info["missing_keys"], *mismatched}
    if all(name.startswith(f"{model.base_model_prefix}.") for name in new):  # the head is the checkpoint's
        if not new_head:
            check_labels(task, stored, f"the checkpoint {checkpoint}", NEW_HEAD)
        elif other_labels(task, stored):
            new |= renew_head(model)
    return model, sorted(new)


def load_weights(
    cls: Any, checkpoint: str, config: PreTrainedConfig, options: dict[str, Any], removed_layers: Sequence[str] = ()
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of ``cls``, and what ``from_pretrained`` tells of names; only weights of a head or pooler may be new.

    Raises UserError if weights of the encoder are missing, of another shape, or of more layers than ``config`` says.
    """
    files = [path.name for path in check_weights(checkpoint, config)]
    with loading(f"model {checkpoint}", checkpoint, *files[:1], *(["config.json"] if files else [])):
        model, info = cls.from_pretrained(
            checkpoint,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **only_here(checkpoint),
            **options,
        )
    where = str(Path(checkpoint) / files[0]) if files else checkpoint
    inside = "" if model.base_model is model else f"{model.base_model_prefix}."
    if broken := sorted(name for name, *_ in info["mismatched_keys"] if name.startswith(inside)):
        raise UserError(f"{where} is damaged: {broken[0]} has another shape than its config.json says. {AGAIN}")
    lacking = [name for name in info["missing_keys"] if name.startswith(inside) and ".pooler." not in f".{name}"]
    left_out = layer_patterns(removed_layers)
    if lost := sorted(name for name in lacking if not any(layer.match(name) for layer in left_out)):
        raise UserError(
            f"{where} is damaged: {lost[0]} is missing ({len(lost):,} of the encoder's weights are), and config.json "
            f"says that it is there. {AGAIN}"
        )
    known = {number[1] for name in model.state_dict() for number in _NUMBER.finditer(name)}
    more = {name: number[1] for name in info["unexpected_keys"] for number in _NUMBER.finditer(name)}
    if left := sorted({number for number in more.values() if number not in known}, key=int):
        say(f"{where}: config.json tells of fewer layers than it has: {', '.join(left)} left out")
    return model, info


def layer_patterns(names: Sequence[str]) -> list[re.Pattern[str]]:
    """Compile names or ``re:`` patterns of layers into patterns that match the names of their weights."""
    patterns = []
    for name in names:
        # An invalid expression matches nothing here; the run that has it in its recipe reports it.
        with suppress(re.error, OverflowError, RecursionError):
            patterns.append(re.compile(name[3:] if name.startswith("re:") else re.escape(name) + r"\."))
    return patterns


def check_weights(checkpoint: str, config: PreTrainedConfig) -> Collection[Path]:
    """The files of a directory's weights; none for a hub id.

    Raises UserError if they are damaged, or so short that they cannot hold the encoder that ``config`` tells of: it
    would be made up in memory, however large.
    """
    if not os.path.isdir(checkpoint):
        return []
    files = weight_files(Path(checkpoint))
    for path in files:
        for name, told in read_header(path).items() if path.suffix == ".safetensors" else ():
            if name.endswith((".weight", ".bias")) and "F" not in told["dtype"]:
                raise UserError(
                    f"{path} is damaged: {name} is of type {told['dtype']}, and weights are floating-point numbers. "
                    f"{AGAIN}"
                )
    with reading(files[0], AGAIN):
        size = sum(os.path.getsize(path) for path in files)
    wanted = weights_of(config)
    if wanted > size:
        raise UserError(
            f"{files[0]} is damaged: it has {size:,} bytes, and by config.json the encoder has {wanted:,} weights. "
            f"{AGAIN}"
        )
    return files


def weights_of(config: PreTrainedConfig) -> int:
    """How many weights the encoder has that ``config`` tells of, without a pooler; 0 if that cannot be said."""
    import torch
    import transformers

    from sparse_xp.functional.structured import fitting

    found: Any = transformers.AutoModel._model_mapping.get(type(config), None)
    if found is None or isinstance(found, tuple):  # several
        return 0
    cls: type[PreTrainedModel] = found
    with torch.device("meta"):
        model = fitting(cls, config)(config)
    return sum(each.numel() for name, each in model.named_parameters() if not name.startswith("pooler."))


def model_class(task: Task, config: PreTrainedConfig) -> Any:
    """The class for ``task`` of the checkpoint's architecture, with layers of the sizes that ``config`` tells of.

    Raises UserError if the library has none.
    """
    import transformers

    from sparse_xp.functional.structured import fitting, reduced

    auto = getattr(transformers, task.model_class)
    if type(config) not in auto._model_mapping:
        raise UserError(
            f"config.json: the library has no model of type {config.model_type!r} for task {task.name}, which wants "
            f"an {task.model_class}. Choose another checkpoint."
        )
    if not reduced(config):
        return auto
    return fitting(auto._model_mapping[type(config)], config)


def heads_of(new_weights: list[str]) -> list[str]:
    """What the new weights of a model for pretraining are for, in words."""
    marks = {"next sentences": ("seq_relationship",), "masked words": ("predictions", "vocab_", "lm_head")}
    return [what for what, parts in marks.items() if any(part in name for part in parts for name in new_weights)][::-1]


def read_config(checkpoint: str, revision: str | None, what: str = "model") -> PreTrainedConfig:
    """The configuration of a checkpoint. Raises UserError if it cannot be had, or if no model can be built from it."""
    from transformers import AutoConfig

    if os.path.isdir(checkpoint):
        check_config(Path(checkpoint) / "config.json")
    with loading(f"{what} {checkpoint}", checkpoint, "config.json"):
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, **only_here(checkpoint))
        labels_of(config)
        if os.path.isdir(checkpoint):
            weights_of(config)
    return config


def check_config(path: Path) -> None:
    """Raise UserError for a config.json with values that no model has, or that the libraries accept silently."""
    stored = read_object(path)
    wrong = []
    for name, (least, most) in SIZES.items():
        value = stored.get(name)
        if value is not None and (type(value) is not int or not least <= value <= most):
            told = str(value) if type(value) in (int, float) else kind(value)
            wrong.append(f"{name} is {told:.40}, want a whole number from {least} to {most:,}")
    for name, want in (("id2label", dict), ("label2id", dict), ("architectures", list), ("quantization_config", dict)):
        if not isinstance(stored.get(name), want | None):
            wrong.append(f"{name} is {kind(stored[name])}, want {kind(want())}")
    names = stored.get("architectures")
    if isinstance(names, list) and not all(isinstance(name, str) for name in names):
        wrong.append("architectures is a list of other things than names")
    # Of the form OWNER/NAME it is code, which transformers would fetch and run.
    if any("/" in str(stored.get(name) or "") for name in ("attn_implementation", "_attn_implementation")):
        wrong.append("attn_implementation is code from the hub, which is never run")
    if wrong:
        raise UserError(f"{path} is damaged: {wrong[0]}. {AGAIN}")


def check_head(task: Task, checkpoint: str, config: PreTrainedConfig) -> None:
    """Raise UserError if ``checkpoint`` has a head that was trained for another kind of task than ``task``.

    Loading it would throw that head away silently. Encoders without a head, and heads of pretraining, are fine.
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
    task: Task,
    path: str,
    student_tokenizer: PreTrainedTokenizerBase,
    revision: str | None = None,
    removed_layers: Sequence[str] = (),
) -> PreTrainedModel:
    """A trained model of the same task in eval mode, without gradients.

    ``path``: a run directory (its ``model/`` is taken), a model directory or a hub id. Raises UserError, showing both
    sides, if its labels, its head or its vocabulary are not the student's, or if its head was never trained.
    """
    checkpoint = of_run(path)
    is_local(checkpoint)
    config = read_config(checkpoint, revision, "teacher")
    check_labels(task, config, f"the teacher {checkpoint}", "Train a teacher with teacher=dense.")
    # A head of another kind is missing below; one of another shape is not to be replaced either.
    teacher, missing = load_model(task, checkpoint, revision, new_head=True, removed_layers=removed_layers)
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
