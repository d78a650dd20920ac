"""What encoders call their layers: the one table that pruning, quantization, loading and recipes read.

To support a new encoder, add a row to ``ARCHITECTURES``. The names are those of modules in transformers, seen from
one encoder layer. No torch is imported: recipes read the table while a configuration is composed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The names of one kind of encoder layer: of its modules, and of sizes in config.json."""

    name: str
    #: models with these layers, for messages and documentation
    models: tuple[str, ...]
    #: the values of model_type in config.json whose layers are these, and whose encoders ask nothing else of them
    model_types: tuple[str, ...]
    #: a regular expression for the end of the path of the list of layers: "encoder.layer" for bert.encoder.layer.3
    layers: str
    #: the module that splits hidden states into heads, and its attribute for the size of a head
    self_attention: str
    head_size: str = "attention_head_size"
    #: Linears from hidden states to queries, keys and values; they read the same activation. One, if they are fused
    query_key_value: tuple[str, ...]
    #: Linears from relative positions to keys and queries, which some models of this kind have
    position_projections: tuple[str, ...] = ()
    #: how many matrices with the rows of all heads each of these Linears stacks: 3 for a fused one
    attention_parts: int = 1
    #: the Linear that joins the heads
    attention_output: str
    #: Linears from hidden states to the neurons of the feed-forward block: one, or value and gate
    up: tuple[str, ...]
    #: how many matrices with the rows of all neurons each of them stacks: 2 if value and gate are fused
    up_parts: int = 1
    #: the Linear from the neurons back to the hidden size
    down: str
    #: embeddings of the encoder that are read as a matrix and not looked up by index, so that they are no int8 table
    matrices: tuple[str, ...] = ()
    #: the positional argument of ``self_attention`` that has a bias for each head of the full model, if there is one
    head_bias_argument: int | None = None
    #: whether a layer returns a tuple of hidden states and attention
    returns_tuple: bool = False
    #: whether several steps of the encoder share one layer, so that no layer can be smaller than others or absent
    shares_layers: bool = False
    #: attributes of a layer that the encoder reads, so that what takes its place needs them
    layer_attributes: tuple[str, ...] = ()
    #: a list in config.json with an entry for each layer
    layer_list_key: str | None = None
    #: why no other layer can take the place of the first one; "" if one can
    first_layer: str = ""
    #: the key of config.json that says whether ``first_layer`` holds for a model; None: for all
    first_layer_key: str | None = None
    #: keys of config.json: number of layers, heads in a layer, neurons of a feed-forward block, hidden size
    layers_key: str = "num_hidden_layers"
    heads_key: str = "num_attention_heads"
    neurons_key: str = "intermediate_size"
    hidden_key: str = "hidden_size"
    #: keys of config.json: probabilities of dropout in embeddings, attention and feed-forward blocks
    dropout_keys: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")

    @property
    def linears(self) -> frozenset[str]:
        """Paths, within a layer, of the Linears that every model of this kind has."""
        return frozenset((*self.query_key_value, self.attention_output, *self.up, self.down))

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward block multiplies its neurons by gates."""
        return len(self.up) * self.up_parts == 2


ARCHITECTURES = (
    Architecture(
        name="bert",
        models=("BERT", "RoBERTa", "XLM-R", "ELECTRA"),
        model_types=(
            "bert",
            "camembert",
            "data2vec-text",
            "electra",
            "ernie",
            "layoutlm",
            "megatron-bert",
            "rembert",
            "roberta",
            "roberta-prelayernorm",
            "roformer",
            "xlm-roberta",
            "xlm-roberta-xl",
        ),
        layers=r"encoder\.layer",
        self_attention="attention.self",
        query_key_value=("attention.self.query", "attention.self.key", "attention.self.value"),
        attention_output="attention.output.dense",
        up=("intermediate.dense",),
        down="output.dense",
    ),
    Architecture(
        name="distilbert",
        models=("DistilBERT",),
        model_types=("distilbert",),
        layers=r"transformer\.layer",
        self_attention="attention",
        query_key_value=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        attention_output="attention.out_lin",
        up=("ffn.lin1",),
        down="ffn.lin2",
        layers_key="n_layers",
        heads_key="n_heads",
        neurons_key="hidden_dim",
        hidden_key="dim",
        dropout_keys=("dropout", "attention_dropout"),
    ),
    Architecture(
        name="mpnet",
        models=("MPNet",),
        model_types=("mpnet",),
        layers=r"encoder\.layer",
        self_attention="attention.attn",
        query_key_value=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        attention_output="attention.attn.o",
        up=("intermediate.dense",),
        down="output.dense",
        head_bias_argument=2,
        returns_tuple=True,
    ),
    Architecture(
        name="deberta-v2",
        models=("DeBERTa-v2", "DeBERTa-v3"),
        model_types=("deberta-v2",),
        layers=r"encoder\.layer",
        self_attention="attention.self",
        query_key_value=("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
        position_projections=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
        attention_output="attention.output.dense",
        up=("intermediate.dense",),
        down="output.dense",
        matrices=("encoder.rel_embeddings",),
        returns_tuple=True,
        first_layer="a convolution follows it",
        first_layer_key="conv_kernel_size",
    ),
    Architecture(
        name="modernbert",
        models=("ModernBERT",),
        model_types=("modernbert",),
        layers="layers",
        self_attention="attn",
        head_size="head_dim",
        query_key_value=("attn.Wqkv",),
        attention_parts=3,
        attention_output="attn.Wo",
        up=("mlp.Wi",),
        up_parts=2,
        down="mlp.Wo",
        layer_attributes=("attention_type",),
        layer_list_key="layer_types",
        first_layer="it is the only one without a norm before its attention",
        dropout_keys=("embedding_dropout", "attention_dropout", "mlp_dropout"),
    ),
    Architecture(
        name="nomic_bert",
        models=("NomicBERT", "EuroBERT"),
        model_types=("nomic_bert", "eurobert", "gte"),
        layers="layers",
        self_attention="self_attn",
        head_size="head_dim",
        query_key_value=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output="self_attn.o_proj",
        up=("mlp.gate_proj", "mlp.up_proj"),
        down="mlp.down_proj",
    ),
    Architecture(
        name="albert",
        models=("ALBERT",),
        model_types=("albert",),
        layers=r"encoder\.albert_layer_groups\.\d+\.albert_layers",
        self_attention="attention",
        query_key_value=("attention.query", "attention.key", "attention.value"),
        attention_output="attention.dense",
        up=("ffn",),
        down="ffn_output",
        shares_layers=True,
    ),
)

_LAYERS = "|".join(dict.fromkeys(row.layers for row in ARCHITECTURES))
#: matches within the name of a parameter or module of an encoder layer: bert.encoder.layer.0.output.dense.weight; in a
#: bare encoder the name has no first part. The group ``number`` is that of the layer.
IN_LAYER = re.compile(rf"(?:^|\.)(?:{_LAYERS})\.(?P<number>\d+)\.")
#: matches the name of an encoder layer itself: bert.encoder.layer.3, transformer.layer.3
LAYER = re.compile(rf"(?:^|\.)(?:{_LAYERS})\.(?P<number>\d+)$")
#: like ``IN_LAYER``, also for encoders that are not in the table
IN_ANY_LAYER = re.compile(r"(?:^|\.)layers?\.(?P<number>\d+)\.")

#: values of model_type in config.json whose first position of a text is that after the padding token's number, so that
#: 514 position embeddings are for 512 tokens
OFFSET_POSITIONS = frozenset({
    "camembert", "data2vec-text", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip


def architecture_of(model_type: str, weighted: Collection[str]) -> Architecture | None:
    """Return the architecture of an encoder layer with these ``weighted`` modules (paths inside the layer), or None.

    ``model_type``: that of config.json. All modules count: a layer with others besides is of another architecture. The
    names alone do not tell: BigBird has BERT's, and computes attention in another way for short texts.
    """
    names = set(weighted)
    for row in ARCHITECTURES:
        if model_type in row.model_types and row.linears <= names <= row.linears.union(row.position_projections):
            return row
    return None


def same_input(child: str) -> tuple[str, ...]:
    """Return the names, within their parent module, of the Linears that read the same activation as ``child``."""
    for row in ARCHITECTURES:
        for paths in (row.query_key_value, row.position_projections, row.up):
            names = tuple(path.rpartition(".")[2] for path in paths)
            if len(names) > 1 and child in names:
                return names
    return (child,)


def is_matrix(embedding: str) -> bool:
    """Return whether an embedding with this name is read as a matrix: its rows are not looked up by index."""
    return any(f".{embedding}".endswith(f".{name}") for row in ARCHITECTURES for name in row.matrices)


def neurons_key(config: object) -> str:
    """Return the name under which a transformers configuration has the width of the feed-forward blocks."""
    # BERT's names are so common that configurations of other families may have them, too: they come last.
    keys = sorted({row.neurons_key for row in ARCHITECTURES}, key=lambda key: key == ARCHITECTURES[0].neurons_key)
    return next(key for key in keys if hasattr(config, key))


def layer_count(config: Mapping[str, object]) -> object:
    """Return the number of layers that a config.json states, unchecked; None if it states none."""
    return next((config[row.layers_key] for row in ARCHITECTURES if row.layers_key in config), None)


def longest_text(config: Mapping[str, object]) -> int | None:
    """Return the number of tokens that a model with this config.json can read, special ones included; None for any.

    Raises ValueError if the number of position embeddings is not a whole number, or leaves none for a text.
    """
    positions = config.get("max_position_embeddings")
    if positions is None or config.get("position_biased_input") is False:  # relative positions: DeBERTa
        return None
    padding = config.get("pad_token_id", 1) if config.get("model_type") in OFFSET_POSITIONS else -1
    if type(positions) is not int or type(padding) is not int or positions - padding - 1 < 1:
        raise ValueError("max_position_embeddings: expected a whole number that leaves positions for a text")
    return positions - padding - 1


def dropout_keys(config: object) -> list[str]:
    """Return the names of the probabilities of dropout that a transformers configuration has."""
    return [
        key for key in dict.fromkeys(key for row in ARCHITECTURES for key in row.dropout_keys) if hasattr(config, key)
    ]


def known_models(structured: bool = False) -> str:
    """Return the models that the table covers, as an enumeration; ``structured``: whose layers can differ in size."""
    names = [name for row in ARCHITECTURES if not (structured and row.shares_layers) for name in row.models]
    return f"{', '.join(names[:-1])} and {names[-1]}"
