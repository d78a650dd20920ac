"""Masks, parameter selection and sparsity measurement, as pure functions.

Sparsity is a fraction in [0, 1], never per cent. A mask is a bool tensor shaped like its weight; True keeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.patterns import Pattern
from sparse_xp.functional.schedules import RAMPS, ramp, scheduled_sparsity

__all__ = [
    "RAMPS",
    "TOKENS",
    "LayerSparsity",
    "SparsityReport",
    "global_masks",
    "magnitude_scores",
    "mask_from_scores",
    "measure",
    "ramp",
    "scheduled_sparsity",
    "select_parameters",
    "zeros",
]


def magnitude_scores(weight: Tensor) -> Tensor:
    """|w| in float32, detached, shaped like ``weight``."""
    return weight.detach().float().abs()


def mask_from_scores(scores: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    """Bool mask that prunes the ``round(n * sparsity)`` lowest of n scores, or of n blocks; True keeps.

    Python's ``round`` is meant: halves go to the even count, as in SparseML. A block's score is the mean of
    its elements; ``block4`` takes what is left over at the end of a row as one shorter block. Of equal scores
    the earliest flat indices are kept, and no random numbers are drawn. SparseML does the same, except where
    the threshold is the lowest score of all: there it draws with ``random.Random(42)``.

    N:M ignores the level: for any ``sparsity`` above 0, every run of M inputs keeps its N highest scores. Of
    equal scores the *latest* are kept there, again as in SparseML.

    Raises ValueError for a sparsity outside [0, 1], NaN scores, or a shape the pattern does not divide.
    """
    return global_masks({"weight": scores}, sparsity, pattern)["weight"]


def global_masks(scores: dict[str, Tensor], sparsity: float, pattern: Pattern) -> dict[str, Tensor]:
    """Masks under one threshold for all tensors: :func:`mask_from_scores` of their joined (block) scores.

    N:M has no threshold, so there it is the same as tensor by tensor.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity}; want a fraction in [0, 1]")
    if pattern.kind == "n_m" or not scores:
        return {name: _n_m_mask(name, each, sparsity, pattern) for name, each in scores.items()}
    units = {name: _unit_scores(name, each, pattern) for name, each in scores.items()}
    keep = _keep_highest(torch.cat([unit.flatten() for unit in units.values()]), sparsity)
    parts = keep.split([unit.numel() for unit in units.values()])
    masks = (part.view_as(unit) for part, unit in zip(parts, units.values(), strict=True))
    return {name: _spread(mask, pattern, scores[name].shape) for name, mask in zip(units, masks, strict=True)}


def _keep_highest(scores: Tensor, sparsity: float) -> Tensor:
    """Flat mask without the ``round(n * sparsity)`` lowest of n flat scores."""
    num_pruned = round(scores.numel() * sparsity)
    if num_pruned == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # A stable sort would be simpler and ten times slower; kthvalue may not run deterministically on CUDA.
    num_kept = scores.numel() - num_pruned
    threshold = scores.topk(num_kept + 1, sorted=False).values.min()
    keep = scores > threshold
    if num_ties_kept := num_kept - int(keep.sum()):
        ties = (scores == threshold).nonzero().squeeze(1)
        keep[ties[:num_ties_kept]] = True
    return keep


def _unit_scores(name: str, scores: Tensor, pattern: Pattern) -> Tensor:
    """What is ranked: the scores themselves, or the mean of each tile, shaped (out / rows, in / cols)."""
    scores = scores.detach().float()
    if pattern.kind == "unstructured":
        return _checked(name, scores)
    rows, cols = pattern.rows, pattern.cols
    _checked(name, scores, (rows, 1 if pattern.pad else cols), f"blocks [{rows}, {cols}]")
    num_tiles, remainder = divmod(scores.shape[1], cols)
    whole, rest = scores.split([num_tiles * cols, remainder], dim=1)
    means = whole.unflatten(1, (num_tiles, cols)).unflatten(0, (-1, rows)).mean(dim=(1, 3))
    # Padding the rest with its own mean, as block4 is defined, leaves that mean as the score.
    return torch.cat([means, rest.mean(dim=1, keepdim=True)], dim=1) if remainder else means


def _spread(unit_mask: Tensor, pattern: Pattern, shape: torch.Size) -> Tensor:
    """Repeat each unit's verdict over its tile and cut off the padding."""
    if pattern.kind == "unstructured":
        return unit_mask.clone()  # a view would carry the storage of every tensor into a checkpoint
    mask = unit_mask.repeat_interleave(pattern.rows, dim=0).repeat_interleave(pattern.cols, dim=1)
    return mask[:, : shape[1]].contiguous()


def _n_m_mask(name: str, scores: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    _checked(name, scores, (1, pattern.m), f"the runs of mask_type '{pattern.n}:{pattern.m}'")
    runs = scores.unflatten(1, (-1, pattern.m))
    keep = torch.ones_like(runs, dtype=torch.bool)
    if sparsity > 0:
        lowest = runs.argsort(dim=-1, stable=True)[..., : pattern.m - pattern.n]
        keep.scatter_(-1, lowest, False)
    return keep.flatten(1)


def _checked(name: str, scores: Tensor, tile: tuple[int, int] | None = None, cut: str = "") -> Tensor:
    """The scores, if they hold no NaN and (given a tile) are a matrix that the tile divides."""
    if tile and (scores.dim() != 2 or scores.shape[0] % tile[0] or scores.shape[1] % tile[1]):
        raise ValueError(f"'{name}' of shape {tuple(scores.shape)} (out, in) does not divide into {cut}")
    if scores.isnan().any():
        raise ValueError(f"the scores of '{name}' hold NaN: its weights hold NaN, training has diverged")
    return scores


# bert.encoder.layer.0., distilbert.transformer.layer.0.; without the first part in a bare encoder.
_ENCODER_PATH = re.compile(r"(^|\.)(encoder|transformer)\.layer\.")


def _weights_of(model: nn.Module, *kinds: type[nn.Module]) -> set[str]:
    modules = model.named_modules(remove_duplicate=False)
    return {f"{path}.weight".lstrip(".") for path, module in modules if isinstance(module, kinds)}


def in_base_model(model: nn.Module) -> Callable[[str], bool]:
    """Whether a parameter's name is one of the model without its head; of a model without a head all are."""
    base = getattr(model, "base_model", model)
    prefix = "" if base is model else f"{model.base_model_prefix}."
    return lambda name: name.startswith(prefix)


def tied_to_embeddings(model: nn.Module) -> set[int]:
    """The ``id`` of every table of embeddings: a Linear that shares one must not be pruned as a Linear."""
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


TOKENS: dict[str, Callable[[nn.Module], set[str]]] = {
    "__ALL__": lambda model: {name for name, _ in model.named_parameters(remove_duplicate=False)},
    "__ALL_PRUNABLE__": lambda model: _weights_of(model, nn.Linear, nn.Conv1d, nn.Conv2d),
    "__BODY__": lambda model: set(filter(in_base_model(model), _weights_of(model, nn.Linear))),
    "__ENCODER__": lambda model: set(filter(_ENCODER_PATH.search, _weights_of(model, nn.Linear))),
}


def select_parameters(model: nn.Module, patterns: Iterable[str], strict: bool = True) -> dict[str, nn.Parameter]:
    """Parameters that match any pattern, in model order; a tied tensor once, under its first matching name.

    A pattern is an exact name, ``re:<regex>`` (``re.match``: anchored at the start, free at the end), or a
    token in any case: ``__ENCODER__`` (weight of every Linear in the encoder layers), ``__BODY__`` (weight of every
    Linear of the model without its head: those, and the pooler where there is one), ``__ALL_PRUNABLE__``
    (weight of every Linear, Conv1d and Conv2d, heads and tied decoders included), ``__ALL__`` (biases and
    LayerNorm included). A bare string stands for a list of one.

    Raises UserError for an invalid regex and, if ``strict``, for a pattern that matches nothing.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    wanted: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = _matching_names(model, pattern, parameters)
        if strict and not matched:
            raise UserError(f"No parameter matches '{pattern}'.{_hint(pattern, parameters)}")
        wanted |= matched
    first: dict[int, tuple[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if name in wanted:
            first.setdefault(id(parameter), (name, parameter))
    return dict(first.values())


def _matching_names(model: nn.Module, pattern: str, names: Iterable[str]) -> set[str]:
    if token := TOKENS.get(pattern.upper()):
        return token(model).intersection(names)
    if not pattern.startswith("re:"):
        return {pattern}.intersection(names)
    try:
        regex = re.compile(pattern[3:])
    except re.error as error:
        raise UserError(f"'{pattern}' is not a valid regular expression: {error}.") from error
    return set(filter(regex.match, names))


def _hint(pattern: str, names: Iterable[str]) -> str:
    if pattern.upper() in TOKENS:
        return " Name the parameters, or write 're:<regex>' for this model."
    if pattern.startswith("re:"):
        if any(re.search(pattern[3:], name) for name in names):
            return f" It is matched from the start of the name: write 're:.*{pattern[3:]}'."
        return did_you_mean(pattern[3:], names)
    if re.search(r"[*+?^$|\\\[\](){}]", pattern):
        return f" A regular expression needs a prefix: write 're:{pattern}'."
    return did_you_mean(pattern, [*names, *TOKENS])


@dataclass(frozen=True)
class LayerSparsity:
    """Exact zeros among the ``total`` elements of one tensor."""

    name: str
    zeros: int
    total: int


@dataclass(frozen=True)
class SparsityReport:
    """Fractions of exact zeros; see :func:`measure` for what each is a fraction of."""

    prunable: float
    encoder: float
    model: float
    layers: dict[str, float]


def measure(model: nn.Module, prunable: Iterable[str] | None = None) -> SparsityReport:
    """Count exact zeros, each tied tensor once. The denominators are the numbers of elements of:

    - ``prunable``: the tensors named by ``prunable``, patterns as in :func:`select_parameters`; by default
      ``__ENCODER__``, the Linear weights of the encoder layers. Recipes and papers state this one.
    - ``encoder``: every parameter inside the encoder layers: weights, biases and LayerNorm.
    - ``model``: every parameter of the model, embeddings, pooler and head included.
    - ``layers``: one entry per prunable tensor, in model order, over its own size.

    A fraction of no elements (a model without encoder layers) is NaN.
    """
    layers = _count(select_parameters(model, "__ENCODER__" if prunable is None else prunable).items())
    everything = _count(model.named_parameters())
    return SparsityReport(
        prunable=_fraction(layers),
        encoder=_fraction([each for each in everything if _ENCODER_PATH.search(each.name)]),
        model=_fraction(everything),
        layers={each.name: _fraction([each]) for each in layers},
    )


def zeros(tensor: Tensor) -> int:
    """Number of elements that are exactly 0 (or -0)."""
    return tensor.numel() - int(torch.count_nonzero(tensor.detach()))


def _count(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[LayerSparsity]:
    return [LayerSparsity(name, zeros(parameter), parameter.numel()) for name, parameter in parameters]


def _fraction(counts: Sequence[LayerSparsity]) -> float:
    total = sum(each.total for each in counts)
    return sum(each.zeros for each in counts) / total if total else float("nan")
