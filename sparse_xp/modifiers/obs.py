"""Pruning by the Optimal Brain Surgeon on blocks (oBERT, Kurtic et al. 2022).

The tensor functions are in ``sparse_xp.functional.fisher``.
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

#: weights in a group of each mask type
GROUPS = {"unstructured": 1, "block4": 4}


@dataclass(kw_only=True)
class OBSPruning(GradualPruning):
    """Gradual pruning by what a weight's loss would cost, and by correction of the others (arXiv:2203.07259).

    At every update ``num_grads`` gradients of the plain task loss, without dropout, each over ``grad_batch_size``
    training rows (None: ``train.batch_size``), estimate the inverse of the Fisher information in blocks of
    ``fisher_block_size`` weights, beginning with 1 / ``damp`` on the diagonal. The weights whose absence is expected
    to cost least go, the rest of their block is corrected, and what is pruned stays pruned. ``num_recomputations``:
    an update is made in so many equal parts, each with gradients of its own.

    The inverse takes d * B floats during an update, for d weights in blocks of B: 85 million weights of BERT-base in
    blocks of 50 take 17 GB. The default of ``fisher_block_size`` is SparseML's (the diagonal alone); the paper's
    is 50.
    """

    global_sparsity: bool = True
    num_grads: int = 1024
    damp: float = 1e-7
    fisher_block_size: int = 1
    num_recomputations: int = 1
    grad_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mask_type, str) or self.mask_type not in GROUPS:
            raise ValueError(f"OBSPruning.mask_type={self.mask_type!r}: want one of {', '.join(GROUPS)}.")
        for name in ("num_grads", "fisher_block_size", "num_recomputations", "grad_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"OBSPruning.{name}={value}: want at least 1.")
        self.damp = float(self.damp)  # YAML reads 1e-7 as a string
        if not 0 < self.damp < math.inf:
            raise ValueError(f"OBSPruning.damp={self.damp}: want a small number above 0, such as 1e-7.")
        self.group = GROUPS[self.mask_type]
        if self.fisher_block_size % self.group:
            raise ValueError(
                f"OBSPruning.fisher_block_size={self.fisher_block_size}: with mask_type={self.mask_type} want a "
                f"multiple of {self.group}, such as 48."
            )

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        for name, weight in self.targets.items():
            # Groups are cut from the flat weights: they have to end where a row ends.
            if weight.shape[-1] % self.group:
                raise UserError(
                    f"mask_type={self.mask_type}: '{name}' has {weight.shape[-1]} inputs, and OBSPruning wants a "
                    f"multiple of {self.group}."
                )

    def prune(self, context: HookContext, levels: dict[str, float]) -> None:
        import torch

        from sparse_xp.functional.fisher import prune_and_compensate

        if not any(levels.values()):  # nothing goes: no gradients are needed to find that out
            self.masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in self.targets.items()}
            return
        before = self.pruned()
        for part in range(1, self.num_recomputations + 1):
            share = part / self.num_recomputations
            wanted = {name: before[name] + (level - before[name]) * share for name, level in levels.items()}
            inverses = self.inverse_fisher(context, part)
            masks = self.select(self.scores_from(inverses, context.step), levels if share == 1 else wanted)
            for name, weight in self.targets.items():
                gone = ~masks[name] & self.masks[name] if name in self.masks else ~masks[name]
                weight.data.copy_(prune_and_compensate(inverses.pop(name), weight, gone, self.group))
            self.masks = masks
            self.agree(context)
            self.zero_pruned()

    def pruned(self) -> dict[str, float]:
        """The fraction of each target that is masked; of all of them together with ``global_sparsity``."""
        counts = {name: int((~mask).sum()) for name, mask in self.masks.items()}
        if self.global_sparsity:
            total = sum(weight.numel() for weight in self.targets.values())
            return dict.fromkeys(self.targets, sum(counts.values()) / total)
        return {name: counts.get(name, 0) / weight.numel() for name, weight in self.targets.items()}

    def scores_from(self, inverses: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The cost of each weight, or of its group; of pruned ones less than any.

        Raises UserError if rounding has eaten an inverse: in float32 that takes gradients with a norm of some
        sqrt(num_grads * damp * 1e7) within one block.
        """
        import torch

        from sparse_xp.functional.fisher import obs_scores

        scores = {name: obs_scores(inverses[name], weight, self.group) for name, weight in self.targets.items()}
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
        """The inverse of each target's Fisher information at the present weights, [blocks, B, B]."""
        from sparse_xp.functional.fisher import add_gradient, first_inverse

        inverses = {
            name: first_inverse(weight.numel(), self.fisher_block_size, self.damp, weight.device)
            for name, weight in self.targets.items()
        }
        for gradients in self.gradients(context, part):
            for name, gradient in gradients.items():
                add_gradient(inverses[name], gradient, self.num_grads)
        return inverses

    def gradients(self, context: HookContext, part: int) -> Iterator[dict[str, Tensor]]:
        """``num_grads`` gradients of the task loss by the targets, zero where a weight is pruned.

        Of the plain model in float32, without dropout. Neither ``.grad`` nor any random state is touched, and the
        rows depend on seed, step and ``part`` alone: a resumed run draws the same.
        """
        import torch

        training = context.model.training
        context.model.eval()
        try:
            for rows in self.batches(context, part):
                batch = context.training_batch(rows)
                with torch.enable_grad():
                    loss = context.task.forward(context.model, batch).loss
                found = torch.autograd.grad(loss, list(self.targets.values()), materialize_grads=True)
                gradients = dict(zip(self.targets, found, strict=True))
                for name, mask in self.masks.items():
                    gradients[name].mul_(mask)
                yield gradients
        finally:
            context.model.train(training)

    def batches(self, context: HookContext, part: int) -> Iterator[list[int]]:
        """Row numbers of ``num_grads`` batches: as many shuffled epochs as it takes."""
        made = 0
        for epoch in range(self.num_grads):  # one batch an epoch at least
            seed = context.seed
            for number in (context.step, part, epoch):
                seed = (seed * 1_000_003 + number) % 2**63
            for batch in context.shuffled_batches(self.grad_batch_size, seed)[: self.num_grads - made]:
                made += 1
                yield batch
            if made == self.num_grads:
                return

    def agree(self, context: HookContext) -> None:
        """Take masks and weights of the first process: on GPUs sums may differ in the last bit between processes."""
        if context.accelerator.num_processes == 1:
            return
        from accelerate.utils import broadcast

        for name, weight in self.targets.items():
            weight.data.copy_(broadcast(weight.data))
            self.masks[name] = broadcast(self.masks[name].to(weight.device).int()).bool()
