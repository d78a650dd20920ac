"""The schemes of SparseML's newer ``!QuantizationModifier``, as the settings of our Quantization.

A scheme says how the inputs, weights and outputs of a module are quantized. The tag has one for all modules, and
others for classes of modules or modules by name (``scheme_overrides``). Here Linears and Embeddings are quantized:
weights symmetric, activations asymmetric, with one number of bits for all weights and one for all activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparse_xp.errors import did_you_mean
from sparse_xp.recipe.fields import Fields, quoted, to_boolean, to_integer, to_mapping, to_names

#: the fields of the newer class, and those that SparseML 1.4 had in their place
SCHEME_FIELDS = {"scheme", "scheme_overrides", "ignore", "default_scheme", "submodule_schemes", "module_type_schemes"}
#: what SparseML writes for nothing: YAML's own null, and two texts
NOTHING = (None, "null", "None")


@dataclass(frozen=True)
class Scheme:
    """Bits of the inputs, weights and outputs of a module, None for floating point.

    ``per_channel``: one scale for each output of the weights, in place of one for all.
    """

    inputs: int | None = 8
    weights: int | None = 8
    outputs: int | None = None
    per_channel: bool = False

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.inputs is self.weights is self.outputs is None


FLOAT = Scheme(None, None, None)


def read_scheme(fields: Fields) -> dict[str, Any]:
    """Return the settings of Quantization, without times. Raises RecipeError for a scheme that it cannot have."""
    key = "default_scheme" if "default_scheme" in fields.untaken else "scheme"
    scheme = fields.take(key, to_scheme, Scheme())
    exclude: list[str] = fields.take("ignore", to_names, []) + fields.take("exclude_module_types", to_names, [])
    submodules = read_submodule_schemes(fields, scheme)
    overrides: dict[str, Scheme] = {}
    for name in ("scheme_overrides", "module_type_schemes"):
        overrides |= fields.take(name, schemes_by_name(scheme), {})
    linear = overrides.pop("Linear", scheme)
    embedding = overrides.pop("Embedding", Scheme(None, linear.weights, linear.outputs, linear.per_channel))
    for name, override in overrides.items():
        # Modules of other classes, which begin with a capital, are never quantized here.
        if override == FLOAT:
            exclude.append(name)
        elif override != linear and not name[:1].isupper():
            raise fields.error(
                "scheme_overrides",
                f"scheme_overrides: {name} has another scheme than the other modules; expected the same, or null for "
                "its inputs, weights and outputs, which leaves it in floating point",
            )
    return combined_scheme(fields, linear, embedding, exclude) | {"submodules": submodules}


def read_submodule_schemes(fields: Fields, scheme: Scheme) -> list[str] | None:
    """Return the only modules that are quantized, None for all: ``submodule_schemes`` of SparseML 1.4."""
    named: dict[str, Scheme] | None = fields.take("submodule_schemes", schemes_by_name(scheme), None)
    if named and any(each != scheme for each in named.values()):
        raise fields.error("submodule_schemes", "submodule_schemes: expected default for each module")
    return list(named) if named else None


def combined_scheme(fields: Fields, linear: Scheme, embedding: Scheme, exclude: list[str]) -> dict[str, Any]:
    """Return the settings for a scheme of all Linears and one of all Embeddings. Raises RecipeError."""
    if linear == FLOAT:
        exclude = [*exclude, "Linear"]
        linear = Scheme(weights=embedding.weights or 8)
    if linear.inputs is None or linear.weights is None:
        raise fields.error("scheme", "scheme: inputs and weights of Linears are quantized together here; expected both")
    if linear.outputs not in (None, linear.inputs) or embedding.outputs not in (None, linear.inputs):
        raise fields.error("scheme", "scheme: inputs and outputs have one number of bits here")
    if embedding.weights not in (None, linear.weights):
        raise fields.error(
            "scheme_overrides",
            f"scheme_overrides: Embedding: weights of {embedding.weights} bits beside {linear.weights} bits of the "
            "others; expected one number of bits",
        )
    return {
        "weight_bits": linear.weights,
        "activation_bits": linear.inputs,
        "linear_outputs": linear.outputs is not None,
        "quantize_embeddings": embedding.weights is not None,
        "embedding_outputs": embedding.outputs is not None,
        "per_channel": linear.per_channel,
        "exclude": exclude,
    }


def schemes_by_name(default: Scheme) -> Callable[[object], dict[str, Scheme]]:
    """Return the conversion of schemes by class or name of a module. ``default``: what "default" and null stand for."""

    def convert(value: object) -> dict[str, Scheme]:
        found: dict[str, Scheme] = {}
        for name, each in to_mapping(value).items():
            try:
                found[name] = to_scheme(each, default, name)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return found

    return convert


def to_scheme(value: object, default: Scheme = Scheme(), kind: str = "") -> Scheme:
    """Return a scheme from its mapping or name. ``kind``: the class or name of the modules. Raises ValueError."""
    if value in NOTHING or value == "default":
        return default
    if value == "deepsparse":
        return Scheme()
    if value == "tensorrt":
        raise ValueError("tensorrt has symmetric activations, which are asymmetric here; expected default")
    if not isinstance(value, dict):
        raise ValueError(f"expected default, deepsparse or a mapping, not {quoted(value)}")
    parts = to_mapping(value)
    parts.pop("target_hardware", None)
    check_scheme_keys(parts, ("input_activations", "weights", "output_activations"))
    # Tables of embeddings may be asymmetric in SparseML; here they are symmetric, as all weights.
    weights = parts.get("weights", {"symmetric": True})
    return Scheme(
        inputs=bits_of("input_activations", parts.get("input_activations", {}), (False,)),
        weights=bits_of("weights", weights, (True, False) if kind == "Embedding" else (True,)),
        outputs=bits_of("output_activations", parts.get("output_activations"), (False,)),
        per_channel=weights not in NOTHING and to_mapping(weights).get("strategy") == "channel",
    )


def bits_of(name: str, value: object, symmetric: tuple[bool, ...]) -> int | None:
    """Return the bits of one part of a scheme, None for floating point. ``symmetric``: the values that it may have."""
    if value in NOTHING:
        return None
    settings = to_mapping(value)
    check_scheme_keys(settings, ("num_bits", "symmetric", "strategy", "kwargs"))
    if to_boolean(settings.get("symmetric", False)) not in symmetric:
        raise ValueError(f"{name}: expected symmetric: {str(symmetric[0]).lower()}, as it is here")
    strategies = ("tensor", "channel") if name == "weights" else ("tensor",)
    if settings.get("strategy", "tensor") not in strategies:
        raise ValueError(f"{name}: expected strategy: {' or '.join(strategies)}, not {quoted(settings['strategy'])}")
    if settings.get("kwargs") not in (*NOTHING, {}):
        raise ValueError(f"{name}: kwargs are for classes of torch.ao, which is not used here; leave them out")
    return to_integer(settings.get("num_bits", 8))


def check_scheme_keys(settings: dict[str, object], known: tuple[str, ...]) -> None:
    """Raise ValueError for a key that is not ``known``."""
    for key in settings:
        if key not in known:
            raise ValueError(f"it has no {key[:80]}.{did_you_mean(key, known)} It has {', '.join(known)}")
