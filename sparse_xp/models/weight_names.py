"""Compare the names of a checkpoint's weights with those of a model: what is left over, and which prefix differs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sparse_xp.functional.architectures import IN_ANY_LAYER

#: what may be left over inside an encoder: the ranges of SparseML's quantization, which a run observes anew, and
#: buffers that older versions of transformers saved
_NOT_NEEDED = re.compile(
    r"fake_quant|activation_post_process|\.(quant|module)\.(scale|zero_point)$|(^|\.)(position_ids|token_type_ids|inv_freq|num_batches_tracked)$"
)
#: heads of pretraining; where the encoder is called ``model``, a wrapper of the same name stands before them, too
_PRETRAINING_HEADS = ("cls.", "decoder.", "lm_head.", "predictions.")


def layer_numbers(names: Iterable[str]) -> set[str]:
    """Return the numbers of the encoder layers in names of weights."""
    return {match["number"] for name in names for match in IN_ANY_LAYER.finditer(name)}


def is_pooler(name: str) -> bool:
    """Return whether a weight is one of a pooler, with or without the prefix of its encoder."""
    return ".pooler." in f".{name}"


def left_over_in_encoder(unexpected: Iterable[str], prefix: str, parts: Collection[str]) -> list[str]:
    """Return the ``unexpected`` weights of a checkpoint that belong to its encoder, and not to a head or a pooler.

    ``prefix``: that of the encoder inside the model, "bert.". ``parts``: the names of the encoder's modules, by which a
    name without the prefix is recognised.
    """
    return sorted(
        name
        for name in unexpected
        if (prefix and name.startswith(prefix)) or name.partition(".")[0] in parts
        if not is_pooler(name) and not _NOT_NEEDED.search(name)
        if not name.removeprefix(prefix).startswith(_PRETRAINING_HEADS)
    )


def find_prefixes(missing: Collection[str], unexpected: Collection[str], prefix: str) -> list[str]:
    """Return the prefixes under which ``unexpected`` has every ``missing`` weight of the encoder.

    ``prefix``: that of the encoder inside the model; the missing names begin with it, and the returned prefixes stand
    in its place: ["module.bert."] for ``module.bert.embeddings...``, [] if the names differ by more than a prefix.
    """
    cores = [name.removeprefix(prefix) for name in missing]
    longest = max(cores, key=len, default="")
    found = {name.removesuffix(longest) for name in unexpected if longest and name.endswith(f".{longest}")}
    return sorted(each for each in found if all(each + core in unexpected for core in cores))


def prefix_mapping(found: str, prefix: str) -> dict[str, str]:
    """Return the ``key_mapping`` of ``from_pretrained`` that puts the encoder's ``prefix`` in place of ``found``.

    A wrapper around the whole model (``module.bert.`` for ``bert.``) is stripped from the names of the head, too.
    """
    if prefix and found.endswith(f".{prefix}"):
        return {"^" + re.escape(found.removesuffix(prefix)): ""}
    return {"^" + re.escape(found): prefix}
