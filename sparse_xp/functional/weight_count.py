"""``sparse_xp.measure``: the zeros of any model, with what they are counted among."""

from __future__ import annotations

from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.functional.compression import measure_compression
from sparse_xp.functional.layers import find_encoders
from sparse_xp.functional.measured import WeightCount, Zeros
from sparse_xp.functional.quant_modules import quantized_modules
from sparse_xp.functional.selection import in_encoder, select_parameters, tied_to_embeddings
from sparse_xp.functional.sparsity import zeros_by_name
from sparse_xp.functional.structured.config import removal_summary
from sparse_xp.functional.unwrapping import check_own_weights, check_values, unwrap


def measure(model: nn.Module) -> WeightCount:
    """Count the exact zeros of a model: of its prunable weights, of its encoder layers, and of all its parameters.

    The prunable weights of an encoder of transformers, or of a model that holds one, are the matrices of the encoder
    layers, as recipes and papers count them. Those of any other model are the weights of its Linears and convolutions,
    without a Linear that shares the weights of an embedding.

    A model that ``torch.compile`` or ``DistributedDataParallel`` wraps is measured without the wrapper.

    Raises:
        UserError: For anything that is no ``torch.nn.Module``, for weights without values (of the device meta, of lazy
            layers) and for weights under masks of ``torch.nn.utils.prune``.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"measure: expected a torch.nn.Module, not {type(model).__name__}.")
    model = unwrap(model)
    check_values(model)
    check_own_weights(model)
    encoders = find_encoders(model)
    prunable = zeros_by_name((encoder_matrices(model) if encoders else matrices(model)).items())
    everything, inside = zeros_by_name(model.named_parameters()), in_encoder(model)
    one = next(iter(encoders.values())) if len(encoders) == 1 else None
    kinds = "the matrices of the encoder layers" if encoders else "all Linears and convolutions, as it has no encoder"
    return WeightCount(
        prunable=Zeros.total(prunable.values()),
        prunable_weights=kinds,
        encoder=Zeros.total(zeros for name, zeros in everything.items() if inside(name)) if encoders else None,
        model=Zeros.total(everything.values()),
        layers=prunable,
        integers=len(list(quantized_modules(model))),
        removed=removal_summary(one) if one else None,
        compression=measure_compression(model, encoder=one) if one else None,
    )


def encoder_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of the Linears in the encoder layers, by name."""
    return select_parameters(model, "__ENCODER__", strict=False)


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all Linears and convolutions, by name; of GPT-2 those of its Conv1D too."""
    known, kinds = tied_to_embeddings(model), (nn.Linear, nn.modules.conv._ConvNd)
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        is_matrix = isinstance(module, kinds) or type(module).__name__ == "Conv1D"
        if is_matrix and isinstance(weight, nn.Parameter) and id(weight) not in known:
            found[f"{name}.weight".lstrip(".")] = weight
            known.add(id(weight))  # a tied one counts once
    return found
