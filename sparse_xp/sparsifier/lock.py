"""Keep the zeros of a sparse model in any loop, with one line.

Hooks on the parameters set the gradients of pruned weights to zero. A zero whose gradient is always zero stays zero
under SGD, Adam and AdamW, whatever their momentum and weight decay. Nothing has to be called in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.sparsifier.checks import HELD, check_not_held
from sparse_xp.sparsifier.context import LoopContext
from sparse_xp.sparsifier.devices import LoopDevices
from sparse_xp.sparsifier.models import check_weights, model_source, unwrapped
from sparse_xp.sparsifier.outputs import LoopOutputs


class Lock:
    """The zeros of a model, locked. ``lock`` makes it.

    ``masks``: by name of the parameter, False where a weight is pruned.
    """

    def __init__(self, modifier: ConstantPruning, model: nn.Module):
        self.modifier = modifier
        clock = Clock(1, 1)
        self.context = LoopContext(
            model=model,
            clock=clock,
            modifier_list=ModifierList({"lock": modifier}, clock),
            accelerator=LoopDevices(model),
            task=LoopOutputs(model),
            source=model_source(model),
        )
        modifier.attach(self.context)
        modifier.before_step(self.context)
        self.masks = modifier.masks
        self.hooks = [hooked(weight, masking(modifier, name)) for name, weight in modifier.targets.items()]

    @property
    def sparsity(self) -> float:
        """The fraction of zeros in the locked weights."""
        return self.modifier.measured_sparsity()

    def __repr__(self) -> str:
        return f"Lock({self.context.source}, {self.sparsity:.1%} zeros)"

    def check(self) -> None:
        """Raise UserError if a locked weight is not zero any more."""
        try:
            self.modifier.masks = {
                name: mask.to(self.modifier.targets[name].device) for name, mask in self.masks.items()
            }
            self.modifier.check(self.context)
        except RuntimeError as error:
            raise UserError(
                f"{str(error).partition(' at step')[0]}: something has written into them. Lock after loading weights "
                "and unfreezing them, make the optimizer after that, and take one that moves no weight without a "
                "gradient (Muon does)."
            ) from error

    def remove_pruning(self) -> None:
        """Check the zeros, and let the weights go. The model itself was never changed. Raises as ``check`` does."""
        self.check()
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        HELD.discard(self.context.model)


def hooked(weight: Tensor, hook: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Register a hook on the gradient of a weight, also of one that is frozen and may be unfrozen later."""
    trains = weight.requires_grad
    weight.requires_grad_(True)  # without it PyTorch takes no hook; the hook stays
    handle: RemovableHandle = weight.register_hook(hook)
    weight.requires_grad_(trains)
    return handle


def masking(modifier: ConstantPruning, name: str) -> Callable[[Tensor], Tensor]:
    """Return a hook that sets the gradient of the pruned weights of a target to zero."""

    def hook(gradient: Tensor) -> Tensor:
        return gradient * modifier.factor(name)

    return hook


def as_list(names: Sequence[str]) -> list[str]:
    """Return a list of names; of one, if it is a text."""
    return [names] if isinstance(names, str) else list(names)


def lock(
    model: nn.Module,
    params: Sequence[str] = ("__BODY__",),
    exclude: Sequence[str] = (),
    min_sparsity: float = 0.05,
) -> Lock:
    """Keep the zeros of a sparse model while it trains, in any loop, and return the lock.

    A copy of the model (``copy.deepcopy``) is not locked.

    Args:
        model: A model with zeros. Make its optimizer after this.
        params: The parameters whose zeros to keep, as in ``ConstantPruning``: names, ``re:<pattern>`` or tokens. By
            default every Linear below the head, the pooler among them; those without zeros train as before.
        exclude: Parameters among them to leave out.
        min_sparsity: The fraction of zeros that they must have, so that a dense model is not trained densely.

    Raises UserError for a model with fewer zeros, and for one that is locked already.
    """
    inner = unwrapped(model)
    check_weights(inner)
    check_not_held(inner)
    try:
        modifier = ConstantPruning(params=as_list(params), exclude=as_list(exclude), min_sparsity=min_sparsity)
    except ValueError as error:
        raise UserError(str(error).replace("ConstantPruning.", "")) from error
    locked = Lock(modifier, inner)
    HELD.add(inner)
    return locked
