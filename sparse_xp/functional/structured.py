"""Attention heads, feed-forward neurons and whole layers: found, scored, silenced, removed, and loaded again.

A head or a neuron is a *group* of weights. It is silenced by zeros in all of them, which changes no shape, and removed
by cutting them out. A layer that has neither left is silenced by a gate (``sparse_xp.functional.layers``). The
functions are for encoders whose layers have the parts in ``PARTS``: BERT, RoBERTa, DistilBERT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from sparse_xp.data.hub import AGAIN, is_count, kind
from sparse_xp.errors import UserError, shortened
from sparse_xp.functional import factored_embeddings as factor
from sparse_xp.functional.cost_model import Costs, Shape, Size, parameter_costs
from sparse_xp.functional.layers import bypass, encoder_layers, remove_bypassed
from sparse_xp.functional.measured import Removed

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

M = TypeVar("M", bound="PreTrainedModel")

#: in a layer: what knows the size of a head; query, key, value, what joins the heads; the feed-forward block's two
PARTS = (
    (
        "attention.self",
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    (
        "attention",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
    ),
)
#: in config.json: the heads and neurons of every layer, those of the full shape, and the numbers of layers that went
KEY = "structure"
#: the most heads or neurons that a layer of a configuration may have
LARGEST = 10_000_000
#: which rows (outputs) and which columns (inputs) of a Linear are meant; None: all
Cut = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Block:
    """The Linears of one encoder layer, by their names in the model."""

    name: str
    head_size: int
    inputs: tuple[str, ...]  # query, key, value
    output: str
    up: str
    down: str

    def cuts(self, heads: Tensor, neurons: Tensor) -> dict[str, Cut]:
        """What each Linear keeps with these ``heads`` [heads] and ``neurons`` [neurons], bool; True keeps."""
        columns = heads.repeat_interleave(self.head_size)
        return {
            **dict.fromkeys(self.inputs, (columns, None)),
            self.output: (None, columns),
            self.up: (neurons, None),
            self.down: (None, neurons),
        }


def blocks(model: nn.Module) -> list[Block]:
    """The encoder layers of ``model``, in order. Raises UserError for a model that has none of a known kind."""
    found = []
    for name, layer in encoder_layers(model).items():
        there = dict(layer.named_modules())
        parts = next((parts for parts in PARTS if parts[2] in there and parts[3] in there), None)
        if parts is None:
            break
        inputs = tuple(f"{name}.{each}" for each in parts[1])
        others = (f"{name}.{each}" for each in parts[2:])
        found.append(Block(name, int(there[parts[0]].attention_head_size), inputs, *others))
    if not found or len(found) != len(encoder_layers(model)):
        raise UserError(
            f"{type(model).__name__}: structured pruning knows the layers of BERT, RoBERTa and DistilBERT, and finds "
            "none of theirs here."
        )
    return found


def sizes_of(model: nn.Module) -> list[Size]:
    """Heads and neurons of each layer, as it is now."""
    return [
        (linear(model, each.inputs[0]).out_features // each.head_size, linear(model, each.up).out_features)
        for each in blocks(model)
    ]


def full_shape(model: Any) -> Shape:
    """The shape of a layer from which nothing has been removed, now or in an earlier run."""
    known = getattr(model.config, KEY, None)
    block = blocks(model)[0]
    hidden = linear(model, block.down).out_features
    heads, neurons = known["full"] if known else (hidden // block.head_size, neurons_in(model.config))
    return Shape(hidden, heads, block.head_size, neurons)


def gone_layers(model: Any) -> list[int]:
    """The layers that went whole, now or in an earlier run, by their numbers among those of the full model."""
    return list((getattr(model.config, KEY, None) or {}).get("gone", ()))


def neurons_in(config: PreTrainedConfig) -> int:
    """The width of the feed-forward blocks that the configuration states."""
    return int(getattr(config, neurons_key(config)))


def neurons_key(config: PreTrainedConfig) -> str:
    """What a configuration calls that width: DistilBERT has a name of its own."""
    return "hidden_dim" if hasattr(config, "hidden_dim") else "intermediate_size"


def linear(model: nn.Module, name: str) -> nn.Linear:
    """The Linear of this name."""
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


# Scores


def gate_gradients(weight: Tensor, gradient: Tensor, size: int) -> Tensor:
    """dL/dg for a gate g = 1 before each group of ``size`` inputs: the sum of weight * gradient over its columns.

    ``weight``, ``gradient``: [out, groups * size] of the Linear that reads the groups; [groups], float32. With one gate
    a head this is the quantity of Michel et al. 2019, arXiv:1905.10650, of a batch instead of a row.
    """
    return (weight.detach().float() * gradient.detach().float()).sum(0).unflatten(0, (-1, size)).sum(1)


def squared_norms(matrices: Sequence[tuple[Tensor, Tensor | None]], output: Tensor, size: int) -> Tensor:
    """The sum of squares of all weights of each group, [groups], float32.

    ``matrices``: weight [groups * size, in] and bias [groups * size] of the Linears that write the groups; ``output``
    [out, groups * size]: the weight of the one that reads them.
    """
    total = output.detach().float().square().sum(0)
    for weight, bias in matrices:
        total = total + weight.detach().float().square().sum(1)
        if bias is not None:
            total = total + bias.detach().float().square()
    return total.unflatten(0, (-1, size)).sum(1)


def without_lowest(scores: Tensor, alive: Tensor, keep: int) -> Tensor:
    """``alive`` [groups] (bool) less its lowest ``scores``, so that ``keep`` are left; of equals the last go."""
    ranked = scores.masked_fill(~alive, -torch.inf).argsort(descending=True, stable=True)
    kept = torch.zeros_like(alive)
    kept[ranked[:keep]] = True
    return kept & alive


# Silencing and removing


def silence(module: nn.Linear, cut: Cut, gradients: bool = False) -> None:
    """Put zeros into the rows and columns that ``cut`` does not keep; with ``gradients`` into those of the gradient."""
    rows, columns = cut
    for parameter, mask in (
        (module.weight, None if rows is None else rows[:, None]),
        (module.weight, columns),
        (module.bias, rows),
    ):
        values = None if parameter is None else parameter.grad if gradients else parameter.data
        if values is not None and mask is not None:
            values.mul_(mask)


def loud(module: nn.Linear, cut: Cut) -> int:
    """How many weights that ``cut`` does not keep are not zero."""
    rows, columns = cut
    found = 0 if rows is None else int(module.weight.detach()[~rows].count_nonzero())
    found += 0 if rows is None or module.bias is None else int(module.bias.detach()[~rows].count_nonzero())
    return found + (0 if columns is None else int(module.weight.detach()[:, ~columns].count_nonzero()))


def cut_out(values: Tensor, cut: Cut) -> Tensor:
    """The rows and columns of a matrix that ``cut`` keeps; of a vector the rows."""
    rows, columns = cut
    values = values if rows is None else values[rows]
    return (values if columns is None or values.ndim == 1 else values[:, columns]).contiguous()


def shrink(module: nn.Linear, cut: Cut) -> None:
    """Cut ``module`` in place; its parameters stay the same objects. A frozen scale for each row is cut, too."""
    from sparse_xp.functional.fake_quant import QuantLinear

    for parameter in (module.weight, module.bias):
        if parameter is not None:
            parameter.grad = None
            parameter.data = cut_out(parameter.data, cut)
    module.out_features, module.in_features = module.weight.shape
    if isinstance(module, QuantLinear) and module.quant.scale is not None and module.quant.scale.ndim:
        module.quant.scale = cut_out(module.quant.scale, cut)


def remove(model: Any, kept: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Remove what is not ``kept`` (heads and neurons by the name of the layer), and say so in the configuration.

    A layer that keeps nothing goes whole; those behind it are numbered anew.
    """
    shape, gone, there = full_shape(model), gone_layers(model), blocks(model)
    numbers = [number for number in range(len(there) + len(gone)) if number not in gone]
    for number, block in zip(numbers, there, strict=True):
        if went(kept[block.name]):
            bypass(model, [block.name])
            gone.append(number)
            continue
        for name, cut in block.cuts(*kept[block.name]).items():
            shrink(linear(model, name), cut)
    note(model, shape, sorted(gone))
    remove_bypassed(model)


def went(kept: tuple[Tensor, Tensor]) -> bool:
    """Whether nothing of a layer is left."""
    return not any(bool(each.any()) for each in kept)


def note(model: Any, shape: Shape, gone: list[int]) -> None:
    """Write the sizes into the configuration; where stock classes can build this model from it, they do."""
    sizes, config = sizes_of(model), model.config
    known = {"heads": [h for h, _ in sizes], "neurons": [n for _, n in sizes], "full": [shape.heads, shape.neurons]}
    setattr(config, KEY, {**known, "gone": gone} if gone else known)
    if len({neurons for _, neurons in sizes}) == 1:
        setattr(config, neurons_key(config), sizes[0][1])


def removed(model: Any) -> Removed | None:
    """What structured pruning has taken from ``model``, in this run and before; None: nothing."""
    if not reduced(model.config):
        return None
    sizes, shape, gone = sizes_of(model), full_shape(model), gone_layers(model)
    costs: Costs = parameter_costs(shape)
    full = costs.total([(shape.heads, shape.neurons)] * (len(sizes) + len(gone)))
    return Removed(
        1 - costs.total(sizes) / full,
        [h for h, _ in sizes],
        [n for _, n in sizes],
        gone,
        getattr(model.config, factor.KEY, None),
    )


# Loading and saving


def resize(model: Any, sizes: Sequence[Size]) -> None:
    """Give the layers new Linears for so many heads and neurons, with fresh weights."""
    for block, (heads, neurons) in zip(blocks(model), sizes, strict=True):
        hidden, width = linear(model, block.down).out_features, heads * block.head_size
        new = {
            **dict.fromkeys(block.inputs, (hidden, width)),
            block.output: (width, hidden),
            block.up: (hidden, neurons),
            block.down: (neurons, hidden),
        }
        for name, (inputs, outputs) in new.items():
            old = linear(model, name)
            if (old.in_features, old.out_features) != (inputs, outputs):
                parent, _, child = name.rpartition(".")
                made = nn.Linear(inputs, outputs, bias=old.bias is not None, device=old.weight.device)
                setattr(model.get_submodule(parent), child, made)


def reduced(config: PreTrainedConfig) -> bool:
    """Whether something was removed from the model that ``config`` is of."""
    return bool(getattr(config, KEY, None) or getattr(config, factor.KEY, None))


def fitting(cls: type[M], config: PreTrainedConfig) -> type[M]:
    """``cls``, or where ``config`` tells of what was removed a subclass that builds its modules accordingly."""
    if not reduced(config):
        return cls
    known, dimensions = getattr(config, KEY, None), getattr(config, factor.KEY, None)
    if wrong := wrong_structure(known):
        raise UserError(f"config.json is damaged: its {KEY!r} {wrong}. {AGAIN}")

    def __init__(self: Any, config: PreTrainedConfig, *more: Any, **options: Any) -> None:
        cls.__init__(self, config, *more, **options)
        if dimensions:
            factor.resize(self, dimensions)
        if not known:
            return
        try:
            resize(self, list(zip(known["heads"], known["neurons"], strict=True)))
        except (KeyError, ValueError) as error:
            raise UserError(f"config.json is damaged: its {KEY!r} {known} is of other layers. {AGAIN}") from error

    # Under the name of the stock class: that is what config.json is to have as the architecture.
    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})


def wrong_structure(known: Any) -> str:
    """What is wrong with what a configuration has under ``KEY``, as the end of a sentence; an empty string: nothing."""
    if not known:
        return ""
    if not isinstance(known, dict):
        return f"is {kind(known)} in place of an object"
    for name in ("heads", "neurons", "full", *(["gone"] if "gone" in known else [])):
        values = known.get(name)
        if not isinstance(values, list) or not all(is_count(value) and value <= LARGEST for value in values):
            return f"{shortened(str(known), 200)} has {name!r} that is no list of whole numbers up to {LARGEST:,}"
    if len(known["full"]) != 2 or 0 in known["full"]:
        return f"{shortened(str(known), 200)} has 'full' that is not two numbers above 0"
    heads, neurons = known["full"]
    if any(n > heads for n in known["heads"]) or any(n > neurons for n in known["neurons"]):
        return f"{shortened(str(known), 200)} has layers larger than 'full'"
    gone = known.get("gone", [])
    if len(set(gone)) < len(gone) or any(number >= len(known["heads"]) + len(gone) for number in gone):
        return f"{shortened(str(known), 200)} has 'gone' that is not numbers of layers"
    return ""


def expand(model: Any) -> None:
    """Undo removal in place: zeros where heads and neurons were (the last of each layer), the same logits.

    The layers have their full shape, which stock ``from_pretrained`` loads, and are no faster than that. Those that
    went whole stay away: no weights make a layer with LayerNorms pass on what it is given. Embeddings are one table.
    """
    factor.merge(model)
    if not getattr(model.config, KEY, None):
        return
    shape = full_shape(model)
    old = {name: value.clone() for name, value in model.state_dict().items()}
    resize(model, [(shape.heads, shape.neurons)] * len(blocks(model)))
    for name, value in model.state_dict().items():
        value.zero_()
        value[tuple(slice(0, size) for size in old[name].shape)] = old[name]
    setattr(model.config, neurons_key(model.config), shape.neurons)
    delattr(model.config, KEY)
