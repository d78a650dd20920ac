"""A device that is not the CPU, without one: tensors that say they are on ``meta``, and have values all the same.

They are computed on the CPU. As on a GPU, an operation on tensors of both devices is an error, but for scalars.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

ELSEWHERE = torch.device("meta")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Distant(Tensor):
    """A tensor elsewhere. ``inner``: its values, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Distant:
        made: Distant = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=ELSEWHERE
        )
        made.inner = inner.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "data":  # of a parameter that is cut: PyTorch has set the shape alone
            self.inner = value.inner


class Distance(TorchDispatchMode):
    """Makes tensors elsewhere where code asks for them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the result of an operation, where a GPU would have it. Raises RuntimeError for tensors of two devices."""
    distant: list[Tensor] = []
    near: list[Tensor] = []
    tree_map_only(Tensor, lambda t: (distant if isinstance(t, Distant) else near).append(t), (args, kwargs))
    if distant and func not in COPIES and (mixed := [t for t in near if t.dim()]):
        raise RuntimeError(f"{func}: {len(mixed)} tensors on the CPU, the others elsewhere")
    target = kwargs.get("device")
    kwargs = {k: torch.device("cpu") if k == "device" and v == ELSEWHERE else v for k, v in kwargs.items()}
    real_args, real_kwargs = tree_map_only(Distant, lambda t: t.inner, (args, kwargs))
    result = func(*real_args, **real_kwargs)
    first = func._schema.arguments[0] if func._schema.arguments else None
    if first is not None and first.alias_info is not None and first.alias_info.is_write:
        return args[0] if func._schema.returns else None
    goes = target == ELSEWHERE if target is not None else bool(distant)
    return tree_map_only(Tensor, Distant, result) if goes else result


def send(model: nn.Module) -> None:
    """Move a model elsewhere."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and not isinstance(weight.data, Distant):
                module._parameters[name] = nn.Parameter(Distant(weight.detach()), weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Distant(buffer)
