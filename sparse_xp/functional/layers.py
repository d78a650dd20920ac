"""Switching encoder layers off and removing them.

A layer that is absent for a whole run is replaced by a ``Bypass``. A layer that may be switched off during a run gets a
``LayerGate``, whose gradient gives the layer's score. At the end ``remove_bypassed`` makes the model one of fewer
layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.architectures import ARCHITECTURES, LAYER, Architecture, architecture_of, known_models

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: hidden states [rows, tokens, hidden], or a tuple that begins with them
LayerOutput = Tensor | tuple[Tensor, Tensor | None]


class Bypass(nn.Module):
    """Identity in the place of an encoder layer, without parameters.

    ``layer``: the layer that it replaces, of this ``architecture``.
    """

    def __init__(self, layer: nn.Module, architecture: Architecture):
        super().__init__()
        self.returns_tuple = architecture.returns_tuple
        for name in architecture.layer_attributes:
            setattr(self, name, getattr(layer, name))

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor | tuple[Tensor, None]:
        """Return ``hidden_states`` [rows, tokens, hidden]; masks and other arguments are ignored."""
        return (hidden_states, None) if self.returns_tuple else hidden_states


class LayerGate:
    """A factor g on what a layer changes: its output becomes x + g * (layer(x) - x), until ``remove``.

    g is 1 for an open gate, which changes no bit of the output, and 0 for a closed one, which makes the layer the
    identity like a ``Bypass``. ``tracks_gradient``: ``value.grad`` is dL/dg after a backward pass in training.
    """

    def __init__(self, layer: nn.Module):
        self.is_open, self.tracks_gradient = True, False
        self.value = torch.ones((), device=next((weight.device for weight in layer.parameters()), None))
        # First of the hooks: others see what the next layer gets.
        self.remove = layer.register_forward_hook(self, prepend=True).remove

    def set_state(self, is_open: bool, tracks_gradient: bool) -> None:
        """Open or close the gate, and drop its gradient. A closed gate tracks none."""
        self.is_open, self.tracks_gradient = is_open, is_open and tracks_gradient
        self.value = torch.full((), float(is_open), device=self.value.device, requires_grad=self.tracks_gradient)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: LayerOutput) -> LayerOutput | None:
        """Return the gated output of the layer; None leaves it unchanged (a forward hook of PyTorch).

        Of a tuple, the first member is the hidden states; the others stay as they are.
        """
        if self.is_open and not (self.tracks_gradient and torch.is_grad_enabled()):
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        gated = self.gate(inputs[0], hidden) if torch.is_grad_enabled() else inputs[0]
        return (gated, *output[1:]) if isinstance(output, tuple) else gated

    def gate(self, before: Tensor, after: Tensor) -> Tensor:
        """Return ``before`` + g * (``after`` - ``before``): hidden states [rows, tokens, hidden] around the layer."""
        if self.value.device != after.device:
            self.value = self.value.detach().to(after.device).requires_grad_(self.tracks_gradient)
        # A closed layer computes nevertheless: its gradients are zeros, and not missing, which DDP would wait for.
        return torch.lerp(before.to(after.dtype), after, self.value.to(after.dtype))


def model_type_of(model: nn.Module) -> str:
    """Return the ``model_type`` in the configuration of ``model``; "" for a module that is not of transformers."""
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def encoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the encoder layers of ``model`` that are not bypassed, by name and in order."""
    return {
        name: module for name, module in model.named_modules() if LAYER.search(name) and not isinstance(module, Bypass)
    }


def find_encoders(model: nn.Module) -> dict[str, PreTrainedModel]:
    """Return by name the outermost models of transformers in ``model`` that have encoder layers.

    The name of ``model`` itself is empty. Layers that are called ``layers`` alone may be those of a decoder, and count
    for a known ``model_type`` only.
    """
    from transformers import PreTrainedModel

    found: dict[str, PreTrainedModel] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or not outer for outer in found)
        if isinstance(module, PreTrainedModel) and not inside and _has_encoder_layers(module):
            found[name] = module
    return found


def _has_encoder_layers(model: PreTrainedModel) -> bool:
    """Return whether ``model`` has layers that are named as those of an encoder."""
    known = any(model.config.model_type in row.model_types for row in ARCHITECTURES)
    return any(known or name.rpartition(".")[0].rpartition(".")[2] != "layers" for name in encoder_layers(model))


def weighted_paths(layer: nn.Module) -> list[str]:
    """Return the paths, within ``layer``, of all modules with parameters of their own but norms.

    In a layer of a known architecture these are its Linears.
    """
    return [
        path
        for path, module in layer.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and "Norm" not in type(module).__name__
    ]


def removable_architecture(model: PreTrainedModel, name: str) -> Architecture:
    """Return the architecture of the encoder layer ``name``. Raises UserError if the model cannot be without it."""
    architecture = architecture_of(model_type_of(model), weighted_paths(model.get_submodule(name)))
    kind = type(model).__name__
    if architecture is None or architecture.shares_layers:
        reason = "is used by several layers of the encoder" if architecture else "has parts that are not known"
        raise UserError(
            f"{kind}: {name} {reason}, so that it cannot be removed. Layers can be removed from "
            f"{known_models(structured=True)}."
        )
    if is_first_fixed(model, architecture) and name.endswith(".0"):
        raise UserError(f"{kind}: {name} cannot be removed: {architecture.first_layer}. Remove others.")
    return architecture


def is_first_fixed(model: PreTrainedModel, architecture: Architecture) -> bool:
    """Return whether no other layer can take the place of the first one of ``model``."""
    key = architecture.first_layer_key
    return bool(architecture.first_layer) and (key is None or bool(getattr(model.config, key, 0)))


def bypass_layers(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Replace each named layer by a ``Bypass``; the others keep their names.

    Raises UserError for a layer that the model cannot be without.
    """
    for name in names:
        architecture = removable_architecture(model, name)
        parent, _, number = name.rpartition(".")
        layer = model.get_submodule(name)
        model.get_submodule(parent).register_module(number, Bypass(layer, architecture))


def remove_bypassed(model: PreTrainedModel) -> None:
    """Delete bypassed layers from every ModuleList, and write the number of layers into the configuration.

    The layers that are left are renumbered: stock ``from_pretrained`` loads the model.
    """
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        bypassed = [number for number, layer in enumerate(layers) if isinstance(layer, Bypass)]
        for number in reversed(bypassed):
            del layers[number]
        if bypassed:
            _record_removal(model.config, bypassed, len(layers))


def _record_removal(config: PreTrainedConfig, removed: Sequence[int], left: int) -> None:
    """Write into a transformers configuration that the layers with these numbers are ``removed``."""
    for key in {row.layer_list_key for row in ARCHITECTURES if row.layer_list_key}:
        if entries := getattr(config, key, None):
            setattr(config, key, [entry for number, entry in enumerate(entries) if number not in removed])
    # transformers maps this name to the one of the architecture (DistilBERT: n_layers).
    config.num_hidden_layers = left
