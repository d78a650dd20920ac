"""What encoders call their layers: the one table that pruning, quantization, loading and recipes read.

To support a new encoder, add a row to ``ARCHITECTURES``. The names are those of modules in transformers, seen from
one encoder layer. No torch is imported: recipes read the table while a configuration is composed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The names of one family of encoders: of modules inside one layer, and of sizes in config.json."""

    name: str
    #: models of this family, for messages and documentation
    models: tuple[str, ...]
    #: the end of the path of the list of layers: "encoder.layer" for bert.encoder.layer.3
    layers: str
    #: the module that knows the size of a head, as ``attention_head_size``
    self_attention: str
    #: Linears from hidden states to queries, keys and values; they read the same activation
    query_key_value: tuple[str, str, str]
    #: the Linear that joins the heads
    attention_output: str
    #: the feed-forward block: the Linear to its neurons, and the one back to the hidden size
    up: str
    down: str
    #: keys of config.json: number of layers, heads in a layer, neurons of a feed-forward block, hidden size
    layers_key: str
    heads_key: str
    neurons_key: str
    hidden_key: str


ARCHITECTURES = (
    Architecture(
        name="bert",
        models=("BERT", "RoBERTa", "ELECTRA"),
        layers="encoder.layer",
        self_attention="attention.self",
        query_key_value=("attention.self.query", "attention.self.key", "attention.self.value"),
        attention_output="attention.output.dense",
        up="intermediate.dense",
        down="output.dense",
        layers_key="num_hidden_layers",
        heads_key="num_attention_heads",
        neurons_key="intermediate_size",
        hidden_key="hidden_size",
    ),
    Architecture(
        name="distilbert",
        models=("DistilBERT",),
        layers="transformer.layer",
        self_attention="attention",
        query_key_value=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        attention_output="attention.out_lin",
        up="ffn.lin1",
        down="ffn.lin2",
        layers_key="n_layers",
        heads_key="n_heads",
        neurons_key="hidden_dim",
        hidden_key="dim",
    ),
)

_LAYERS = "|".join(re.escape(row.layers) for row in ARCHITECTURES)
#: matches within the name of a parameter or module of an encoder layer: bert.encoder.layer.0.output.dense.weight; in a
#: bare encoder the name has no first part. The group ``number`` is that of the layer.
IN_LAYER = re.compile(rf"(?:^|\.)(?:{_LAYERS})\.(?P<number>\d+)\.")
#: matches the name of an encoder layer itself: bert.encoder.layer.3, transformer.layer.3
LAYER = re.compile(rf"(?:^|\.)(?:{_LAYERS})\.(?P<number>\d+)$")
#: like ``IN_LAYER``, also for encoders that are not in the table
IN_ANY_LAYER = re.compile(r"(?:^|\.)layers?\.(?P<number>\d+)\.")


def architecture_of(modules: Collection[str]) -> Architecture | None:
    """Return the architecture of an encoder layer with these ``modules`` (paths inside the layer), or None."""
    return next((row for row in ARCHITECTURES if row.attention_output in modules and row.up in modules), None)


def same_input(child: str) -> tuple[str, ...]:
    """Return the names, within their parent module, of the Linears that read the same activation as ``child``."""
    for row in ARCHITECTURES:
        names = tuple(path.rpartition(".")[2] for path in row.query_key_value)
        if child in names:
            return names
    return (child,)


def neurons_key(config: object) -> str:
    """Return the name under which a transformers configuration has the width of the feed-forward blocks."""
    # BERT's names are so common that configurations of other families may have them, too: the first row comes last.
    return next(row.neurons_key for row in (*ARCHITECTURES[1:], ARCHITECTURES[0]) if hasattr(config, row.neurons_key))


def layer_count(config: Mapping[str, object]) -> object:
    """Return the number of layers that a config.json states, unchecked; None if it states none."""
    return next((config[row.layers_key] for row in ARCHITECTURES if row.layers_key in config), None)


def known_models() -> str:
    """Return the models that the table covers, as an enumeration for a message."""
    names = [name for row in ARCHITECTURES for name in row.models]
    return f"{', '.join(names[:-1])} and {names[-1]}"
