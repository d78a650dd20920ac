"""Which task a command of the old scripts is about."""

from __future__ import annotations

import re
from pathlib import Path

from sparse_xp.configuration import group_options

#: the bytes of a file that are looked at for the names of its columns
HEAD = 65536
#: by the words of a script, of ``--task`` or of a recipe: the task for files of one's own
KINDS = {
    "custom_qa": r"question.answering|run_qa|squad",
    "custom_ner": r"token.classification|run_ner|\bner\b|conll",
    "custom_text": r"masked.language.modeling|run_mlm",
    "custom_classification": r"text.classification|sequence.classification|run_glue|sentiment",
}
#: by the names of columns
COLUMNS = {
    "custom_qa": r"\bcontext\b",
    "custom_ner": r"\b(ner_tags|tags|tokens)\b",
    "custom_classification": r"\blabels?\b",
}
#: flags that one kind of task has alone
HINTS = {
    "custom_qa": (
        "doc_stride",
        "version_2_with_negative",
        "n_best_size",
        "max_answer_length",
        "null_score_diff_threshold",
    ),
    "custom_text": ("mlm_probability",),
}
#: configurations of a data set that are tasks of their own, or words of one
SUBSETS = {"squadshifts": "task.subset"}

NO_TASK = (
    "TASK: the flags do not say which. For files of your own (--train_file): task=custom_qa, custom_classification, "
    f"custom_ner or custom_text; otherwise one of {', '.join(each.name for each in group_options('task'))}."
)


def unknown_data(flags: dict[str, str]) -> str:
    """Return the message for a data set that is no task here; empty if the flags name none."""
    names = ("task_name", "dataset_name")
    if "train_file" in flags or not (name := next((each for each in names if flags.get(each)), "")):
        return NO_TASK
    known = ", ".join(each.name for each in group_options("task"))
    return (
        f"TASK: --{name} {flags[name]} is no task here. There are: {known}. "
        "Data of another kind: save them to files, and write task=custom_classification (or custom_qa, custom_ner) "
        "data.train=FILE data.validation=FILE."
    )


def known_task(flags: dict[str, str], script: str) -> tuple[str, list[str]]:
    """Return the task of a command, empty if it cannot be known, and further words for it."""
    names = [each.name for each in group_options("task")]
    subset = flags.get("dataset_config_name", "")
    data = flags.get("dataset_name", "").rpartition("/")[2].lower().replace("-", "_")
    wanted = flags.get("task_name", "").lower() or data
    if wanted == "glue":
        wanted = subset.lower()
    if wanted == "squad" and flags.get("version_2_with_negative", "false").lower() in ("true", "1", "yes"):
        wanted = "squad_v2"
    aliases = {
        "squadv2": "squad_v2",
        "squad2": "squad_v2",
        "sst_2": "sst2",
        "conll_2003": "conll2003",
        "wikitext": "wikitext2",
    }
    wanted = aliases.get(wanted, wanted)
    if wanted in names:
        return wanted, [f"{SUBSETS[wanted]}={subset}"] if subset and wanted in SUBSETS else []
    return (kind_of_script(flags, script), []) if "train_file" in flags else ("", [])


def kind_of_script(flags: dict[str, str], script: str) -> str:
    """Return the task for files of one's own, by the script, its flags, the recipe or the file; empty if unknown."""
    for text in (script, flags.get("task", "")):
        for task, pattern in KINDS.items():
            if re.search(pattern, text):
                return task
    for task, names in HINTS.items():
        if any(name in flags for name in names):
            return task
    head = _head(flags.get("train_file", ""))
    for task, pattern in COLUMNS.items():
        if re.search(pattern, head):
            return task
    return next((task for task, pattern in KINDS.items() if re.search(pattern, flags.get("recipe", ""))), "")


def _head(path: str) -> str:
    """Return the beginning of a file, with the names of its columns; empty if there is none."""
    try:
        with Path(path).open("rb") as file:
            return file.read(HEAD).decode(errors="replace")
    except (OSError, ValueError):
        return ""
