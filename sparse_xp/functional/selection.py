"""Which parameters and modules of a model a pattern means: exact names, regular expressions, or tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.architectures import IN_LAYER

T = TypeVar("T")


def holds_transposed(module: nn.Module) -> bool:
    """Return whether the weight of a Linear is stored as [in, out]: the ``Conv1D`` of GPT-2 in transformers."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def is_linear(module: nn.Module) -> bool:
    """Return whether the matrices of a module are those of Linears: of PyTorch's attention too, which fuses three."""
    return isinstance(module, nn.Linear | nn.MultiheadAttention) or holds_transposed(module)


def is_prunable(module: nn.Module) -> bool:
    """Return whether a module has matrices to prune: a Linear, a convolution, a recurrent network."""
    return is_linear(module) or isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.RNNBase)


def _weights_of(model: nn.Module, kind: Callable[[nn.Module], bool]) -> set[str]:
    """Return the names of the weights of all modules of a ``kind``, tied ones under each of their names."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules(remove_duplicate=False)
        if kind(module)
        for name, weight in module.named_parameters(recurse=False)
        if "weight" in name and weight.dim() > 1
    }


def in_base_model(model: nn.Module) -> Callable[[str], bool]:
    """Return a test for names of parameters below the head; a model without a head has no others."""
    base = getattr(model, "base_model", model)
    prefix = "" if base is model else f"{model.base_model_prefix}."
    return lambda name: name.startswith(prefix)


def in_encoder(model: nn.Module) -> Callable[[str], bool]:
    """Return a test for names of parameters and modules inside the encoder layers.

    In a model whose layers are not known these are all below the head, but for embeddings and the pooler.
    """
    if any(IN_LAYER.search(name) for name, _ in model.named_parameters()):
        return lambda name: IN_LAYER.search(name) is not None
    below_head = in_base_model(model)
    return lambda name: below_head(name) and not re.search(r"embed|pooler", name)


def tied_to_embeddings(model: nn.Module) -> set[int]:
    """Return the ``id`` of every table of embeddings: a Linear that shares one must not be pruned as a Linear."""
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


#: tokens that stand for a set of parameters, with the function that returns their names
TOKENS: dict[str, Callable[[nn.Module], set[str]]] = {
    "__ALL__": lambda model: {name for name, _ in model.named_parameters(remove_duplicate=False)},
    "__ALL_PRUNABLE__": lambda model: _weights_of(model, is_prunable),
    "__BODY__": lambda model: set(filter(in_base_model(model), _weights_of(model, is_linear))),
    "__ENCODER__": lambda model: set(filter(in_encoder(model), _weights_of(model, is_linear))),
}


def select_parameters(model: nn.Module, patterns: Iterable[str], strict: bool = True) -> dict[str, nn.Parameter]:
    """Return the parameters that match any pattern, in model order; a tied tensor once, under its first matching name.

    A pattern is an exact name, ``re:<regex>`` (``re.match``: anchored at the start, free at the end), or a
    token in any case. A bare string stands for a list of one. The tokens:

    - ``__ENCODER__``: weight of every Linear in the encoder layers (``in_encoder``),
    - ``__BODY__``: weight of every Linear below the head: the former, and the pooler if there is one,
    - ``__ALL_PRUNABLE__``: weight of every Linear, convolution and recurrent network, heads and tied decoders included,
    - ``__ALL__``: every parameter, biases and LayerNorm included.

    Raises UserError for an invalid regex and, if ``strict``, for a pattern that matches nothing, and for a token of
    Linears in a network of convolutions (``_missed_by``) or with computed weights (``_computed_by``).
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = _matching_names(model, pattern, parameters)
        if strict and not matched:
            raise UserError(f"No parameter matches '{pattern}'.{_hint(pattern, parameters)}")
        if strict and (computed := _computed_by(model, pattern)):
            raise UserError(
                f"{computed}.weight of {type(model).__name__} is computed by a parametrization, so that its zeros "
                "would not last: call torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') first, or "
                f"name the parameters to prune instead of {pattern}."
            )
        if strict and (missed := _missed_by(model, pattern, matched)):
            raise UserError(
                f"{pattern} means the Linears of an encoder, and {type(model).__name__} has {len(missed)} other "
                f"matrices ({missed[0]}), which would stay dense: write params=['__ALL_PRUNABLE__'] for all, or name "
                "the parameters."
            )
        names |= matched
    first: dict[int, tuple[str, nn.Parameter]] = {}  # by id: tied tensors once
    for name, parameter in parameters.items():
        if name in names:
            first.setdefault(id(parameter), (name, parameter))
    return dict(first.values())


def _matching_names(model: nn.Module, pattern: str, names: Iterable[str]) -> set[str]:
    """Return those of ``names`` that one pattern matches."""
    if token := TOKENS.get(pattern.upper()):
        return token(model).intersection(names)
    if not pattern.startswith("re:"):
        return {pattern}.intersection(names)
    try:
        regex = re.compile(pattern[3:])
    except re.error as error:
        raise UserError(f"'{pattern}' is not a valid regular expression: {error}.") from error
    return set(filter(regex.match, names))


def _computed_by(model: nn.Module, pattern: str) -> str | None:
    """Return the first module whose matrix a token means, and which is computed of others (weight normalization)."""
    if pattern.upper() not in TOKENS:
        return None
    computed = (
        path for path, module in model.named_modules() if is_prunable(module) and is_parametrized(module, "weight")
    )
    return next(computed, None)


def _missed_by(model: nn.Module, pattern: str, matched: set[str]) -> list[str]:
    """Return the matrices that a token of Linears leaves out of a network that is not made of Linears.

    Encoders of transformers are, whatever else a layer of theirs has.
    """
    tokens: dict[str, Callable[[nn.Module], Callable[[str], bool]]] = {
        "__ENCODER__": in_encoder,
        "__BODY__": in_base_model,
    }
    named_layers = any(IN_LAYER.search(name) for name in matched)
    if pattern.upper() not in tokens or (named_layers and hasattr(model, "base_model_prefix")):
        return []
    return sorted(set(filter(tokens[pattern.upper()](model), _weights_of(model, is_prunable))) - matched)


def _hint(pattern: str, names: Iterable[str]) -> str:
    """Return what to write instead of a pattern that matches nothing, for a message."""
    if pattern.upper() in TOKENS:
        return " Name the parameters, write 're:<regex>', or __ALL_PRUNABLE__ for the matrices of all kinds of modules."
    if pattern.startswith("re:"):
        if any(re.search(pattern[3:], name) for name in names):
            return f" It is matched from the start of the name: write 're:.*{pattern[3:]}'."
        return did_you_mean(pattern[3:], names)
    if re.search(r"[*+?^$|\\\[\](){}]", pattern):
        return f" A regular expression needs a prefix: write 're:{pattern}'."
    return did_you_mean(pattern, [*names, *TOKENS])


def select_modules(modules: Mapping[str, T], patterns: Iterable[str], what: str = "module") -> dict[str, T]:
    """Return those of ``modules`` that match a pattern, in the order of the patterns, then of ``modules``.

    A pattern is an exact name or ``re:<regex>`` (``re.match``: anchored at the start, free at the end). ``what`` names
    the modules in messages. Raises UserError for a pattern that matches nothing and for an invalid regex.
    """
    selected: dict[str, T] = {}
    for pattern in patterns:
        matched = [name for name in modules if name == pattern]
        if pattern.startswith("re:"):
            try:
                matched = list(filter(re.compile(pattern[3:]).match, modules))
            except re.error as error:
                raise UserError(f"'{pattern}' is not a valid regular expression: {error}.") from error
        if not matched:
            listing = f" There are: {', '.join(modules) or 'none'}." if len(modules) <= 24 else ""
            raise UserError(
                f"No {what} matches '{pattern}'.{did_you_mean(pattern.removeprefix('re:'), modules)}{listing}"
            )
        selected |= {name: modules[name] for name in matched}
    return selected
