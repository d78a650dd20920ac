"""A command of SparseML's or Hugging Face's scripts, answered with the command that does the same here.

``python -m sparse_xp --model_name_or_path X --dataset_name squad ...`` trains nothing: the answer is printed, to paste.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from sparse_xp.choices import OPTIONS_WITH_VALUE
from sparse_xp.configuration import group_options
from sparse_xp.migration.flags import FLAGS
from sparse_xp.migration.tasks import kind_of_script, known_task, unknown_data
from sparse_xp.places import GROUPS
from sparse_xp.recipe.zoo import FILES, NEAREST, STUB, read_stubs

#: Hydra's own options
HYDRA = (
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"),
    *("config-path", "config-name", "config-dir", "experimental-rerun", "info"),
)
TRUE, FALSE = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f")
#: flags that also are words of ours: alone they do not make a command of the old scripts
OURS = ("task", "recipe", "seed")
EXPORT = "python -m sparse_xp.export"


@dataclass
class Typed:
    """A command line in parts. ``kept``: words of ours and options of Hydra."""

    script: str = ""
    flags: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def answer_flags(argv: Sequence[str]) -> str | None:
    """Return the answer to a command with flags of the old scripts; None for any other command."""
    if not all(argument.isprintable() for argument in argv):
        return None  # refused by argv_checks
    typed = read_flags(argv)
    near = [name for name in typed.unknown if difflib.get_close_matches(name, FLAGS, n=1, cutoff=0.75)]
    if not typed.script and not near and not set(typed.flags) - set(OURS):
        return None
    words, notes = export_words(typed) if exports_only(typed) else training_words(typed)
    notes = [*notes, *map(_unknown, typed.unknown)]
    lines = ["These are flags of SparseML's and Hugging Face's scripts. The same command here:", "", shlex.join(words)]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines)


def read_flags(argv: Sequence[str]) -> Typed:
    """Return the parts of a command line; ``--name value``, ``--name=value`` and ``--switch [true]`` are flags."""
    typed, rest = Typed(), list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if word in OPTIONS_WITH_VALUE and rest:
            typed.kept += [word, rest.pop(0)]
        elif not word.startswith("--") or name.replace("_", "-") in HYDRA:
            script = not equals and (word.endswith(".py") or word.startswith("sparseml.") or word == "python")
            if script:
                typed.script = word
            else:
                typed.kept.append(word)
        elif name not in FLAGS:
            typed.unknown.append(name)
            if not equals and rest and not rest[0].startswith("-") and "=" not in rest[0]:
                rest.pop(0)
        elif equals:
            typed.flags[name] = value
        elif FLAGS[name].switch:
            truth = rest and rest[0].lower() in (*TRUE, *FALSE)
            typed.flags[name] = rest.pop(0) if truth else "true"
        else:
            typed.flags[name] = rest.pop(0) if rest and not rest[0].startswith("--") else ""
    return typed


def exports_only(typed: Typed) -> bool:
    """Return whether the command trains nothing."""
    if "model_path" in typed.flags or "export_onnx" in typed.script:
        return True
    return "do_train" not in typed.flags and bool(
        {"do_eval", "onnx_export_path", "export_onnx_path"} & set(typed.flags)
    )


def training_words(typed: Typed) -> tuple[list[str], list[str]]:
    """Return the words of a training command, and what is to be said about its flags."""
    flags = typed.flags
    notes = [f"--{name}: no value" for name, value in flags.items() if not value]
    task, extra = known_task(flags, typed.script)
    words = [f"task={task or 'TASK'}", *extra]
    notes += [] if task else [unknown_data(typed.flags)]
    words += _model(flags.get("model_name_or_path", ""), notes)
    words += _recipe(flags, notes)
    words += _times(flags, notes)
    words += _columns(flags, task or kind_of_script(flags, typed.script), notes)
    for name, value in flags.items():
        words += _plain(name, value)
        if FLAGS[name].note and name != "do_eval":
            notes.append(f"--{name}: {FLAGS[name].note}.")
    if "onnx_export_path" in flags or "export_onnx_path" in flags:
        notes.append("--onnx_export_path: the file is in deployment/ of the run's directory.")
    own = {word.partition("=")[0] for word in typed.kept}  # what is said in our words comes first
    words = [word for word in words if word.partition("=")[0] not in own]
    return ["python", "-m", "sparse_xp", *words, *typed.kept], notes


def export_words(typed: Typed) -> tuple[list[str], list[str]]:
    """Return the words of an export command, and what is to be said about its flags."""
    flags = typed.flags
    notes: list[str] = []
    source = flags.get("model_path") or flags.get("model_name_or_path") or "RUN"
    out = flags.get("onnx_export_path") or flags.get("export_onnx_path")
    if source.startswith(STUB) or _is_plain_model(source):
        task, extra = known_task(flags, typed.script)
        words = [f"task={task or 'TASK'}", *extra, *_model(source, notes), hydra_word("out", out or "exported")]
        notes += [] if task else [unknown_data(typed.flags)]
    else:
        words = [f"run={source}", *([f"out={out}"] if out else [])]
        settled = [
            name for name in ("max_seq_length", "doc_stride", "dataset_name", "task_name", "task") if name in flags
        ]
        if settled:
            notes.append(f"--{', --'.join(settled)}: the run knows its task and its lengths.")
    for name, value in flags.items():
        words += [word for word in _plain(name, value) if word.startswith("export.")]
        if FLAGS[name].note and not name.startswith("do_"):
            notes.append(f"--{name}: {FLAGS[name].note}.")
    for name in ("output_dir", "per_device_eval_batch_size", "preprocessing_num_workers"):
        if name in flags:
            notes.append(f"--{name}: not needed; the export evaluates the file on the rows of the run.")
    return [*EXPORT.split(), *words, *typed.kept], notes


def hydra_word(key: str, value: str) -> str:
    """Return ``key=value``, with quotes of Hydra's grammar where it needs them."""
    plain = re.fullmatch(r"[\w./~+%:-]+(?: [\w.]+)?|\{.*\}|\[.*\]", value, re.S)
    return f"{key}={value if plain else QuotedString(value, Quote.double).with_quotes()}"


def _plain(name: str, value: str) -> list[str]:
    """Return the word of a flag that has one of its own."""
    template = FLAGS[name].words
    if not template or not value:
        return []
    if FLAGS[name].switch:
        truth = value.lower() in TRUE
        if "{}" not in template:
            return [template] if truth else []
        value = str(truth).lower()
    key, _, pattern = template.partition("=")
    return [hydra_word(key, pattern.format(value))]


def _model(checkpoint: str, notes: list[str]) -> list[str]:
    """Return the option of the group ``model`` that has this checkpoint, or ``model.checkpoint=``."""
    if not checkpoint:
        return []
    known = {str(each.settings().get("checkpoint")): each.name for each in group_options("model")}
    target = checkpoint
    if checkpoint.startswith(STUB):
        target = read_stubs("models", None).get(checkpoint.removeprefix(STUB).partition("?")[0], checkpoint)
    if target.startswith(NEAREST):
        notes.append(f"{checkpoint} has no public copy; the nearest is {target.removeprefix(NEAREST).strip()}.")
        target = target.removeprefix(NEAREST).split()[0]
    for place, name in known.items():
        if target in (place, place.partition("/")[2]):
            return [f"model={name}"]
    return [hydra_word("model.checkpoint", target)]


def _recipe(flags: dict[str, str], notes: list[str]) -> list[str]:
    """Return the words for recipe, its arguments and the teacher."""
    path, teacher = flags.get("recipe", ""), flags.get("distill_teacher", "disable" if flags.get("recipe") else "")
    words = ["recipe=file", hydra_word("recipe.path", path)] if path else ["recipe=dense"]
    packaged = FILES / Path(path).name
    if path and not path.startswith(STUB) and not Path(path).exists() and packaged.is_file():
        notes.append(f"--recipe {path}: there is no such file; the package has a copy: recipe.path={packaged}")
    if arguments := flags.get("recipe_args"):
        try:
            words.append(f"recipe.args={json.dumps(json.loads(arguments))}")
        except ValueError as error:
            notes.append(f"--recipe_args: not JSON ({error}): {arguments}")
    if teacher in ("disable", "self"):
        return [*words, f"teacher={teacher if path or teacher == 'self' else 'none'}"]
    return [*words, "teacher=checkpoint", hydra_word("teacher.path", teacher)] if teacher else words


def _times(flags: dict[str, str], notes: list[str]) -> list[str]:
    """Return the words for evaluation, checkpoints, warm-up, schedule, tracker and metric."""
    words = []
    evaluation = flags.get("eval_strategy", flags.get("evaluation_strategy", "steps" if "eval_steps" in flags else ""))
    saving = flags.get("save_strategy", "steps" if "save_steps" in flags else "")
    for key, strategy, steps in (
        ("train.eval_every", evaluation, flags.get("eval_steps", flags.get("logging_steps", "500"))),
        ("train.save_every", saving, flags.get("save_steps", "500")),
    ):
        if strategy in ("epoch", "steps"):
            words.append(f"{key}={'1' if strategy == 'epoch' else f'{steps} steps'}")
        elif strategy:
            notes.append(f"{key}: never ({strategy}) is not possible; a run evaluates and saves at its end at least.")
    if ratio := flags.get("warmup_ratio"):
        words.append(f"train.warmup={_percent(ratio)}")
    if schedule := flags.get("lr_scheduler_type"):
        words += _schedule(schedule, notes)
    if tracker := flags.get("report_to"):
        tracker = {"wandb": "default", "all": "default"}.get(tracker, tracker)
        known = [each.name for each in group_options("log")]
        words += [f"log={tracker}"] if tracker in known else []
        notes += [] if tracker in known else [f"--report_to {tracker}: there are log={', '.join(known)}."]
    if metric := flags.get("metric_for_best_model", "").removeprefix("eval_"):
        words += [f"task.metric={metric}"] if metric != "loss" else []
        notes += ["--metric_for_best_model loss: the task's metric picks the best model."] if metric == "loss" else []
    return words


def _schedule(name: str, notes: list[str]) -> list[str]:
    decay = "recipe.learning_rate.decay"
    if name in ("constant", "constant_with_warmup"):
        return [f"{decay}.shape=constant", f"{decay}.final_lr=null"]
    if name == "cosine":
        return [f"{decay}.shape=cosine"]
    if name != "linear":
        notes.append(f"--lr_scheduler_type {name}: there are linear, cosine and constant (--help {decay}).")
    return []


def _percent(ratio: str) -> str:
    try:
        return f"{float(ratio) * 100:g}%"
    except ValueError:
        return ratio


def _columns(flags: dict[str, str], task: str, notes: list[str]) -> list[str]:
    """Return the words for the columns of texts and labels, which have their names by the kind of the task."""
    names = ("task.tokens", "task.tags") if task in ("custom_ner", "conll2003") else ("task.text", "task.label")
    return [
        hydra_word(key, flags[flag])
        for flag, key in zip(("text_column_name", "label_column_name"), names, strict=True)
        if flags.get(flag)
    ]


def _is_plain_model(source: str) -> bool:
    """Return whether a directory holds a model, and no run."""
    return (Path(source) / "config.json").is_file()


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*FLAGS, *GROUPS], n=1, cutoff=0.6)
    return f"--{name}: unknown, and left out.{f' Did you mean --{near[0]}?' if near else ''}"
