"""The tags of gradual pruning: one schedule, several levels of sparsity, and the scores of oBERT."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from sparse_xp.modifiers import Modifier
from sparse_xp.modifiers.gradual_pruning import FROM_PARAM, GradualPruning
from sparse_xp.recipe.fields import (
    Fields,
    to_boolean,
    to_integer,
    to_mapping,
    to_name,
    to_number,
    to_selection,
)
from sparse_xp.recipe.tag_row import (
    END_REQUIRED,
    START_REQUIRED,
    UPDATE_FREQUENCY,
    Argument,
    TagRow,
    argument,
    read_arguments,
)


def read_mask_type(fields: Fields) -> object:
    """Return ``mask_type`` as our modifiers have it: ``2:4`` for tensorrt, two numbers for a tile.

    SparseML allowed ones behind the two numbers of a tile ([1, 4, 1, 1]). Raises RecipeError for a removed type.
    """
    value = fields.take("mask_type", lambda value: value, "unstructured")
    if value == "tensorrt":
        return "2:4"
    if value in ("channel", "filter", "block"):
        raise fields.error(
            "mask_type",
            f"mask_type: {value} has been an error in SparseML since 0.11; expected unstructured, block4, [1, 4] or "
            "'N:M'",
        )
    if isinstance(value, int) and value > 60:  # another program has read the recipe, and written it anew
        n, m = divmod(value, 60)
        raise fields.error("mask_type", f"mask_type: {value} is what YAML 1.1 reads in {n}:{m}; write '{n}:{m}'")
    return read_tile(fields, value) if isinstance(value, list) else value


def read_tile(fields: Fields, value: list[Any]) -> list[Any]:
    """Return [outputs, inputs] of a tile. Raises RecipeError unless it has two sizes; further sizes must be 1."""
    if len(value) < 2 or any(size != 1 for size in value[2:]) or not all(type(size) is int for size in value[:2]):
        raise fields.error("mask_type", f"mask_type: expected [out, in], not {value}")
    if value[0] != 1 and value[1] != 1:
        fields.remark(
            f"mask_type {value[:2]} are tiles of {value[0]} outputs by {value[1]} inputs; SparseML made runs of "
            f"{value[0] * value[1]} consecutive weights of it"
        )
    return value[:2]


def to_initial_sparsity(value: object) -> float | str:
    """Return a number, or the token for the zeros that are there. Raises ValueError for anything else."""
    return FROM_PARAM if value == FROM_PARAM else to_number(value)


def to_levels(value: object) -> float | dict[float, list[str]]:
    """Return a number, or the parameters of each level. Raises ValueError for anything else."""
    if isinstance(value, dict):
        return {to_number(level): to_selection(params) for level, params in value.items()}
    return to_number(value)


MASK_TYPE = Argument("mask_type", "mask_type", read_mask_type)
PARAMS = argument("params", to_selection)
FINAL_SPARSITY = argument("final_sparsity", to_levels)
#: read together by ``read_levels``: one tag may stand for several modifiers
TARGETS = (PARAMS, FINAL_SPARSITY)


def gradual_arguments(global_sparsity: Argument) -> tuple[Argument, ...]:
    """Return the fields that all gradual pruning tags have, in the order in which they are written."""
    return (
        PARAMS,
        argument("init_sparsity", to_initial_sparsity),
        FINAL_SPARSITY,
        UPDATE_FREQUENCY,
        argument("inter_func", to_name, "cubic"),
        MASK_TYPE,
        global_sparsity,
        argument("leave_enabled", to_boolean, True),
        START_REQUIRED,
        END_REQUIRED,
    )


def gradual_tag(
    tag: str,
    modifier: type[GradualPruning],
    *own: Argument,
    global_default: bool = False,
    global_fixed: bool | None = None,
) -> TagRow:
    """Return the row of a gradual pruning tag. ``own``: fields that this tag alone has.

    ``global_default``: ``global_sparsity`` where the recipe does not give it. ``global_fixed``: the tag implies it,
    and the field is ignored; such an older tag is read, and written under the newer one.
    """
    global_sparsity = argument("global_sparsity", to_boolean, global_default)
    if global_fixed is not None:
        global_sparsity = replace(global_sparsity, read=partial(ignore_global_sparsity, value=global_fixed))
    arguments = (*gradual_arguments(global_sparsity), *own)

    def read(fields: Fields) -> Iterable[Modifier]:
        refuse_removed_options(fields)
        schedule = read_arguments(fields, [each for each in arguments if each not in TARGETS])
        if schedule["end"] == "100%":
            raise fields.error("end_epoch", "end_epoch: expected the epoch at which final_sparsity is reached, not -1")
        return [modifier(**level, **schedule) for level in read_levels(fields)]

    return TagRow(tag, read, modifier if global_fixed is None else None, arguments)


def ignore_global_sparsity(fields: Fields, value: bool) -> bool:
    """Ignore the field, and return the ``value`` that the tag implies."""
    fields.ignore("global_sparsity")
    return value


def refuse_removed_options(fields: Fields) -> None:
    """Raise RecipeError for options that SparseML itself had removed."""
    fields.ignore("sparsity_strategy")
    if fields.take("phased", to_boolean, False):
        raise fields.error(
            "phased", "phased: true has been an error in SparseML since 0.9; !ACDCPruningModifier takes turns"
        )
    score = fields.take("score_type", to_name, "magnitude")
    if score != "magnitude":
        tag = "!MovementPruningModifier" if score == "movement" else "!OBSPruningModifier"
        raise fields.error("score_type", f"score_type: {score} went out of SparseML in 0.12; write {tag}")


def read_levels(fields: Fields) -> list[dict[str, Any]]:
    """Return ``params`` and ``final_sparsity`` of each modifier that the tag stands for.

    ``final_sparsity`` may be a mapping of levels to parameters. A parameter that two levels name gets the lower one:
    each further modifier excludes (``but``) what the earlier ones have.
    """
    final = FINAL_SPARSITY.read(fields)
    if not isinstance(final, dict):
        return [{"params": PARAMS.read(fields), "final_sparsity": final}]
    if fields.take("params", to_selection, []):
        raise fields.error("params", "params: expected [] where final_sparsity names the parameters of each level")
    targets: list[dict[str, Any]] = []
    named: list[str] = []
    for level in sorted(final):
        targets.append({"params": final[level], "exclude": list(named), "final_sparsity": level})
        named += final[level]
    return targets


def read_fisher_block_size(fields: Fields) -> int:
    """Return ``fisher_block_size``, with a remark on the default if it is not given."""
    if "fisher_block_size" not in fields.untaken:
        fields.remark("fisher_block_size is not given: 1, as SparseML's code has it (its documents say 50)")
    return fields.take("fisher_block_size", to_integer, 1)


def read_grad_batch_size(fields: Fields) -> int | None:
    """Return the batch size in ``grad_sampler_kwargs``, None if it is not given. Raises RecipeError for other keys."""
    sampler: dict[str, object] = fields.take("grad_sampler_kwargs", to_mapping, {})
    if set(sampler) - {"batch_size"}:
        raise fields.error("grad_sampler_kwargs", "grad_sampler_kwargs: expected batch_size alone")
    return to_integer(sampler["batch_size"]) if "batch_size" in sampler else None


#: the fields of OBSPruningModifier that the other gradual pruning tags do not have
OBS_ARGUMENTS = (
    argument("num_grads", to_integer, 1024),
    argument("damp", to_number, 1e-7),
    Argument("fisher_block_size", "fisher_block_size", read_fisher_block_size),
    argument("num_recomputations", to_integer, 1),
    Argument("grad_sampler_kwargs.batch_size", "grad_batch_size", read_grad_batch_size),
)
