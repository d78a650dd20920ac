"""Removing groups by the Optimal Brain Surgeon, with repair of the weights that stay, as functions of tensors.

A Linear with weight W [out, in] reads groups of ``size`` inputs: heads, or single neurons. Another weight W' in its
place has the error

    mean over tokens of ||(W - W') x||^2 + damping ||W - W'||^2 = trace((W - W') H (W - W')^T)

with H = mean of x x^T + damping I. Removing a group S and correcting the other columns adds the least error, which is
trace(W_S ((H^-1)_SS)^-1 W_S^T), if W <- W - W_S ((H^-1)_SS)^-1 (H^-1)_S,: (ZipLM, Kurtic et al. 2023, arXiv:2302.04089,
section 3.1, whose H is twice this one, and so are its scores). All of this is in float64: rounding adds up, as every
round changes the whole inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_xp.functional.model_calls import full_precision

#: the damping, as a part of the mean of the diagonal of H
DAMPING = 0.01


@dataclass
class InputMoments:
    """Sums over tokens of what a Linear reads, less ``shift`` [in]: of ``count`` tokens.

    ``total`` [in] and ``products`` [in, in] are float32. The shift is about the mean, so that rounding is small beside
    the variance and not beside the mean.
    """

    count: int
    shift: Tensor
    total: Tensor
    products: Tensor

    @classmethod
    def of_width(cls, width: int, device: torch.device | None = None) -> InputMoments:
        """Return the sums over no tokens."""
        none = torch.zeros(width, device=device)
        return cls(0, none, none.clone(), torch.zeros(width, width, device=device))

    def add(self, inputs: Tensor) -> None:
        """Add ``inputs`` [tokens, in], of any floating type, in float32."""
        with full_precision(inputs.device):
            inputs = inputs.float()
            if not self.count and len(inputs):
                self.shift = inputs.mean(0)
            inputs = inputs - self.shift
            self.count += len(inputs)
            self.total += inputs.sum(0)
            self.products.addmm_(inputs.T, inputs)

    def mean(self, columns: Tensor) -> Tensor:
        """Return the mean of the inputs in ``columns`` [in], bool; [columns], float64."""
        return in_float64(self.shift[columns]) + in_float64(self.total[columns]) / max(1, self.count)

    def second(self, columns: Tensor, centred: bool) -> Tensor:
        """Return the mean of x x^T of the inputs in ``columns`` [in], bool; [columns, columns], float64.

        ``centred``: of x less its mean. A constant is then worth nothing, because a bias can take its place.
        """
        products = in_float64(self.products[columns][:, columns]) / max(1, self.count)
        mean, shifted = self.mean(columns), in_float64(self.total[columns]) / max(1, self.count)
        products.addr_(shifted, shifted, alpha=-1)
        return products if centred else products.addr_(mean, mean)


class Elimination(NamedTuple):
    """What removing groups one after the other comes to.

    ``order``: the numbers of the groups that went, the first one first [removed], int64. ``errors``: what each of them
    added to the error [removed], float64. ``weight``: the repaired weight [out, in], float64, zero where groups went.
    """

    order: Tensor
    errors: Tensor
    weight: Tensor


def in_float64(values: Tensor) -> Tensor:
    """Return ``values`` in float64: in host memory, unless they are on a GPU that surely has this type."""
    return values.double() if values.device.type == "cuda" else values.cpu().double()


def damped_inverse(second: Tensor, damping: float = DAMPING) -> Tensor:
    """Return the inverse of ``second`` + ``damping`` * (mean of its diagonal) * I, [in, in], float64.

    ``second``: the mean of x x^T [in, in], float64. Inputs that are all zero have the identity.
    """
    mean = second.diagonal().mean()
    damped = second + torch.diag_embed(torch.where(mean > 0, damping * mean, 1.0).expand(len(second)))
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return inverse


def group_errors(weight: Tensor, inverse: Tensor, size: int) -> Tensor:
    """Return the error that removing each group of ``size`` inputs adds, the others corrected: [groups], float64.

    trace(W_S ((H^-1)_SS)^-1 W_S^T) for weight W [out, groups * size] and inverse H^-1, both float64.
    """
    if size == 1:
        return weight.square().sum(0) / inverse.diagonal()
    tiles = inverse.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    columns = weight.T.unflatten(0, (-1, size))  # [groups, size, out]
    solved: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(tiles), columns, upper=False)
    return solved.square().sum((1, 2))


def remove_columns(weight: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """Remove ``columns`` [removed], int64, from W [out, in] and correct the others, in place.

    They go out of H^-1 too: it becomes the inverse of H without them, with an identity in their place. Returns the
    error that each of them adds after those before it, [removed], float64: with L L^T = (H^-1)_SS and A = L^-1 W_S^T
    the error is that of A's rows, because L eliminates one column after the other.
    """
    factor = torch.linalg.cholesky(inverse[columns][:, columns])
    both = torch.cat([weight[:, columns].T, inverse[columns]], dim=1)
    coefficients, rows = torch.linalg.solve_triangular(factor, both, upper=False).split([len(weight), len(inverse)], 1)
    weight.addmm_(coefficients.T, rows, alpha=-1)
    inverse.addmm_(rows.T, rows, alpha=-1)
    # Exactly, where rounding has left something.
    weight[:, columns], inverse[columns], inverse[:, columns], inverse[columns, columns] = 0.0, 0.0, 0.0, 1.0
    errors: Tensor = coefficients.square().sum(1)
    return errors


def eliminate_groups(
    weight: Tensor, second: Tensor, size: int, keep: int, at_once: int = 1, damping: float = DAMPING
) -> Elimination:
    """Remove the groups of ``size`` inputs that add the least error, one after the other, until ``keep`` are left.

    ``weight``: W [out, groups * size]. ``second``: the mean of x x^T, float64. After each round the errors are those of
    the repaired weight. A round removes ``at_once`` groups together, those that would add least alone: a round for each
    of 3072 neurons would take minutes. Of equal errors the later groups go first.
    """
    weight, inverse = weight.to(second, copy=True), damped_inverse(second, damping)
    groups = weight.shape[1] // size
    alive = torch.ones(groups, dtype=torch.bool, device=weight.device)
    order, errors = [], []
    left = groups
    while left > keep:
        number = min(at_once, left - keep)
        added = group_errors(weight, inverse, size).masked_fill_(~alive, torch.inf)
        chosen = added.flip(0).argsort(stable=True)[:number].neg_().add_(groups - 1)
        columns = (chosen[:, None] * size + torch.arange(size, device=chosen.device)).flatten()
        errors.append(remove_columns(weight, inverse, columns).view(number, size).sum(1))
        order.append(chosen)
        alive[chosen] = False
        left -= number
    none = weight.new_zeros(0)
    return Elimination(torch.cat([none.long(), *order]), torch.cat([none, *errors]), weight)
