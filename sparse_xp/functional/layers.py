"""Switching encoder layers off and removing them.

A layer that is absent for a whole run is replaced by a ``Bypass``. A layer that may be switched off during a run gets a
``LayerGate``, whose gradient gives the layer's score. At the end ``remove_bypassed`` makes the model one of fewer
layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sparse_xp.functional.architectures import LAYER


class Bypass(nn.Module):
    """Identity in the place of an encoder layer, without parameters."""

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """Return ``hidden_states`` [rows, tokens, hidden]; masks and other arguments are ignored.

        The encoder loops of transformers 5 expect a tensor (``hidden_states = layer_module(hidden_states, ...)`` in
        modeling_bert, modeling_distilbert and modeling_roberta).
        """
        return hidden_states


class LayerGate:
    """A factor g on what a layer changes: its output becomes x + g * (layer(x) - x), until ``remove``.

    g is 1 for an open gate, which changes no bit of the output, and 0 for a closed one, which makes the layer the
    identity like a ``Bypass``. ``tracks_gradient``: ``value.grad`` is dL/dg after a backward pass in training.
    """

    def __init__(self, layer: nn.Module):
        self.is_open, self.tracks_gradient = True, False
        self.value = torch.ones(())
        # First of the hooks: others see what the next layer gets.
        self.remove = layer.register_forward_hook(self, prepend=True).remove

    def set_state(self, is_open: bool, tracks_gradient: bool) -> None:
        """Open or close the gate, and drop its gradient. A closed gate tracks none."""
        self.is_open, self.tracks_gradient = is_open, is_open and tracks_gradient
        self.value = torch.full((), float(is_open), device=self.value.device, requires_grad=self.tracks_gradient)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """Return the gated output of the layer; None leaves it unchanged (a forward hook of PyTorch)."""
        if not torch.is_grad_enabled():
            return None if self.is_open else inputs[0]
        if self.is_open and not self.tracks_gradient:
            return None
        if self.value.device != output.device:
            self.value = self.value.detach().to(output.device).requires_grad_(self.tracks_gradient)
        # A closed layer computes nevertheless: its gradients are zeros, and not missing, which DDP would wait for.
        return torch.lerp(inputs[0].to(output.dtype), output, self.value.to(output.dtype))


def encoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the encoder layers of ``model`` that are not bypassed, by name and in order."""
    return {
        name: module for name, module in model.named_modules() if LAYER.search(name) and not isinstance(module, Bypass)
    }


def bypass_layers(model: nn.Module, names: Iterable[str]) -> None:
    """Replace each named member of a ModuleList by a ``Bypass``; the others keep their names."""
    for name in names:
        parent, _, number = name.rpartition(".")
        model.get_submodule(parent).register_module(number, Bypass())


def remove_bypassed(model: nn.Module) -> None:
    """Delete bypassed layers from every ModuleList, and write the number of layers into the configuration.

    The layers that are left are renumbered: stock ``from_pretrained`` loads the model.
    """
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        bypassed = [number for number, layer in enumerate(layers) if isinstance(layer, Bypass)]
        for number in reversed(bypassed):
            del layers[number]
        if bypassed:
            # transformers maps this name to the one of the architecture (DistilBERT: n_layers).
            model.config.num_hidden_layers = len(layers)  # type: ignore[union-attr]
