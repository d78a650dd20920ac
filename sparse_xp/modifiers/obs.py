"""Second-order pruning: the Optimal Brain Surgeon on blocks of weights (oBERT, Kurtic et al. 2022).

An update gathers gradients, estimates the inverse Fisher information of each target from them, and asks it for scores
and for corrections of the remaining weights. The tensor functions are in ``sparse_xp.functional.fisher``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError
from sparse_xp.modifiers.gradual_pruning import GradualPruning

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext

#: the number of weights that each mask type prunes together
GROUP_SIZES = {"unstructured": 1, "block4": 4}


@dataclass(kw_only=True)
class OBSPruning(GradualPruning):
    """Gradual pruning by the Optimal Brain Surgeon on blocks (oBERT, Kurtic et al. 2022, arXiv:2203.07259).

    At every update the inverse of the empirical Fisher information is estimated from gradients of the task loss,
    without dropout or distillation. The weights whose removal is expected to increase the loss least are pruned, and
    the remaining weights of their block are corrected for it. Pruned weights stay pruned.

    The other options are those of ``GradualPruning``.

    Attributes:
        mask_type: ``unstructured`` or ``block4`` (groups of 4 inputs).
        global_sparsity: Compare the scores of all targets (the default here).
        num_grads: The number of gradients per estimate.
        damp: The damping; the estimate begins with 1 / ``damp`` on the diagonal.
        fisher_block_size: The number of weights per block, B. The inverse takes d * B floats during an update, for d
            weights: 17 GB for the 85 million weights of BERT-base in blocks of 50. The default is SparseML's, the
            diagonal alone; the paper uses 50.
        num_recomputations: Split each update into this many equal parts, each with its own estimate.
        grad_batch_size: The number of training rows per gradient. None (the default): ``train.batch_size``.
    """

    global_sparsity: bool = True
    num_grads: int = 1024
    damp: float = 1e-7
    fisher_block_size: int = 1
    num_recomputations: int = 1
    grad_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mask_type, str) or self.mask_type not in GROUP_SIZES:
            raise ValueError(f"OBSPruning.mask_type={self.mask_type!r}: expected one of {', '.join(GROUP_SIZES)}.")
        for name in ("num_grads", "fisher_block_size", "num_recomputations", "grad_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"OBSPruning.{name}={value}: expected at least 1.")
        self.damp = float(self.damp)  # YAML reads 1e-7 as a string
        if not 0 < self.damp < math.inf:
            raise ValueError(f"OBSPruning.damp={self.damp}: expected a small number above 0, such as 1e-7.")
        self.group_size = GROUP_SIZES[self.mask_type]
        if self.fisher_block_size % self.group_size:
            raise ValueError(
                f"OBSPruning.fisher_block_size={self.fisher_block_size}: mask_type={self.mask_type} needs a "
                f"multiple of {self.group_size}, such as 48."
            )

    @property
    def needs_batches(self) -> bool:
        return True

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        for name, weight in self.targets.items():
            # Groups are slices of the flattened weight, so a row must be a whole number of groups.
            if weight.shape[-1] % self.group_size:
                raise UserError(
                    f"mask_type={self.mask_type}: '{name}' has {weight.shape[-1]} inputs, and OBSPruning needs a "
                    f"multiple of {self.group_size}."
                )

    def prune(self, context: HookContext, levels: dict[str, float]) -> None:
        import torch

        from sparse_xp.functional.fisher import prune_and_compensate

        if not any(levels.values()):  # nothing is pruned yet: no estimate is needed
            self.masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in self.targets.items()}
            return
        before = self.masked_fractions()
        for part in range(1, self.num_recomputations + 1):
            share = part / self.num_recomputations
            partial_levels = {name: before[name] + (level - before[name]) * share for name, level in levels.items()}
            inverses = self.inverse_fisher(context, part)
            # The last part uses ``levels`` themselves: rounding must not move the final sparsity.
            masks = self.select(self.scores_from(inverses, context.step), levels if share == 1 else partial_levels)
            for name, weight in self.targets.items():
                newly_pruned = ~masks[name] & self.masks[name] if name in self.masks else ~masks[name]
                # ``pop`` frees each inverse as soon as it is used: they are the largest tensors of a run.
                weight.data.copy_(prune_and_compensate(inverses.pop(name), weight, newly_pruned, self.group_size))
            self.masks = masks
            self.synchronize(context)
            self.zero_pruned()

    def masked_fractions(self) -> dict[str, float]:
        """Return the masked fraction of each target, or of all of them together with ``global_sparsity``."""
        counts = {name: int((~mask).sum()) for name, mask in self.masks.items()}
        if self.global_sparsity:
            total = sum(weight.numel() for weight in self.targets.values())
            return dict.fromkeys(self.targets, sum(counts.values()) / total)
        return {name: counts.get(name, 0) / weight.numel() for name, weight in self.targets.items()}

    def scores_from(self, inverses: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the expected increase of the loss if a weight (or its group) is pruned, -inf for pruned weights.

        Raises UserError if an inverse is not finite. In float32 rounding destroys it where the norm of the gradients
        within one block reaches about sqrt(num_grads * damp * 1e7).
        """
        import torch

        from sparse_xp.functional.fisher import obs_scores

        scores = {name: obs_scores(inverses[name], weight, self.group_size) for name, weight in self.targets.items()}
        for name, score in scores.items():
            if not bool(torch.isfinite(score).all()):
                raise UserError(
                    f"OBSPruning: no finite inverse of the Fisher information of '{name}' at step {step}. Either "
                    f"training has diverged, or damp={self.damp:g} is too small for gradients as large as these: write "
                    "a larger one (sparsity.damp=1e-4)."
                )
        return {
            name: score.masked_fill_(~self.masks[name], -math.inf) if name in self.masks else score
            for name, score in scores.items()
        }

    def inverse_fisher(self, context: HookContext, part: int) -> dict[str, Tensor]:
        """Return the inverse of each target's Fisher information at the current weights, [blocks, B, B]."""
        from sparse_xp.functional.fisher import add_gradient, first_inverse

        inverses = {
            name: first_inverse(weight.numel(), self.fisher_block_size, self.damp, weight.device)
            for name, weight in self.targets.items()
        }
        # Each gradient is a rank-one update of the inverse, so the Fisher information itself is never stored.
        for gradients in self.gradients(context, part):
            for name, gradient in gradients.items():
                add_gradient(inverses[name], gradient, self.num_grads)
        return inverses

    def gradients(self, context: HookContext, part: int) -> Iterator[dict[str, Tensor]]:
        """Yield ``num_grads`` gradients of the task loss by target, zero where a weight is pruned.

        The model runs in float32 and without dropout. Neither ``.grad`` nor any random state changes. The rows depend
        on seed, step and ``part`` only, so that a resumed run uses the same. Frozen targets have gradients here too.
        """
        import torch

        training, frozen = context.model.training, [w for w in self.targets.values() if not w.requires_grad]
        context.model.eval()
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            for batch in context.gradient_batches(self.num_grads, self.grad_batch_size, part):
                with torch.enable_grad():
                    loss = context.task_loss(batch)
                values = torch.autograd.grad(loss, list(self.targets.values()), materialize_grads=True)
                gradients = dict(zip(self.targets, values, strict=True))
                for name, mask in self.masks.items():
                    gradients[name].mul_(mask)
                yield gradients
        finally:
            context.model.train(training)
            for weight in frozen:
                weight.requires_grad_(False)

    def synchronize(self, context: HookContext) -> None:
        """Copy masks and weights from rank 0: on GPUs sums may differ in the last bit between processes."""
        if context.accelerator.num_processes == 1:
            return
        for name, weight in self.targets.items():
            weight.data.copy_(context.broadcast(weight.data))
            self.masks[name] = context.broadcast(self.masks[name].to(weight.device).int()).bool()
