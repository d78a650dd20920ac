"""The layers of an encoder, found by name, weighed by a gate, bypassed, and removed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError, did_you_mean

T = TypeVar("T")

# bert.encoder.layer.3, distilbert.transformer.layer.3; without the first part in a bare encoder.
_LAYER = re.compile(r"(^|\.)(encoder|transformer)\.layer\.\d+$")


class Bypass(nn.Module):
    """Stands where an encoder layer was, and has no parameters: the hidden states leave as they came."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """[rows, tokens, width] in and out; masks and the like are ignored.

        A tensor is what the encoder loops of transformers 5 want (``hidden_states = layer_module(hidden_states, ...)``
        in modeling_bert, modeling_distilbert and modeling_roberta).
        """
        return hidden_states


class Gate:
    """A factor g before what a layer changes: x + g * (layer(x) - x) leaves it, until ``remove``.

    ``open``: g is 1, which changes no bit of what the layer gives; otherwise 0: the hidden states leave as they came,
    as from a ``Bypass``. ``weighs``: ``value.grad`` is dL/dg, while the layer is open and trains.
    """

    def __init__(self, layer: nn.Module):
        self.open, self.weighs = True, False
        self.value = torch.ones(())
        # First of the hooks: what others hear is what the next layer gets.
        self.remove = layer.register_forward_hook(self, prepend=True).remove

    def set(self, open: bool, weighs: bool) -> None:
        """Open or close it; its gradient begins anew."""
        self.open, self.weighs = open, open and weighs
        self.value = torch.full((), float(open), device=self.value.device, requires_grad=self.weighs)

    def __call__(self, layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor | None:
        """The output of the layer, behind the gate; None leaves it as it is."""
        if not torch.is_grad_enabled():
            return None if self.open else given[0]
        if self.open and not self.weighs:
            return None
        if self.value.device != found.device:
            self.value = self.value.detach().to(found.device).requires_grad_(self.weighs)
        # A closed layer computes nevertheless: its gradients are zeros, and not missing, which DDP would wait for.
        return torch.lerp(given[0].to(found.dtype), found, self.value.to(found.dtype))


def encoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The encoder layers that are there, by name and in order."""
    return {n: m for n, m in model.named_modules() if _LAYER.search(n) and not isinstance(m, Bypass)}


def select_modules(modules: Mapping[str, T], patterns: Iterable[str], what: str = "module") -> dict[str, T]:
    """Those of ``modules`` that match a pattern, in the order of the patterns, then of ``modules``.

    A pattern is an exact name or ``re:<regex>`` (``re.match``: anchored at the start, free at the end). ``what`` they
    are is for messages. Raises UserError for a pattern that matches nothing and for an invalid regex.
    """
    selected: dict[str, T] = {}
    for pattern in patterns:
        found = [name for name in modules if name == pattern]
        if pattern.startswith("re:"):
            try:
                found = list(filter(re.compile(pattern[3:]).match, modules))
            except re.error as error:
                raise UserError(f"'{pattern}' is not a valid regular expression: {error}.") from error
        if not found:
            few = f" There are: {', '.join(modules) or 'none'}." if len(modules) <= 24 else ""
            raise UserError(f"No {what} matches '{pattern}'.{did_you_mean(pattern.removeprefix('re:'), modules)}{few}")
        selected |= {name: modules[name] for name in found}
    return selected


def bypass(model: nn.Module, names: Iterable[str]) -> None:
    """Put a ``Bypass`` in the place of each named member of a ModuleList; the others keep their names."""
    for name in names:
        parent, _, number = name.rpartition(".")
        model.get_submodule(parent).register_module(number, Bypass())


def remove_bypassed(model: nn.Module) -> None:
    """Shorten every list of layers to those that are not bypassed, and say so in the configuration.

    What is left is numbered anew: the model is one that stock ``from_pretrained`` builds from its configuration.
    """
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        bypassed = [number for number, layer in enumerate(layers) if isinstance(layer, Bypass)]
        for number in reversed(bypassed):
            del layers[number]
        if bypassed:
            # Under the name that DistilBERT, say, has for it (n_layers), through the map of its configuration.
            model.config.num_hidden_layers = len(layers)  # type: ignore[union-attr]
