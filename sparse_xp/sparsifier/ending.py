"""What a ``Trainer`` logs of a recipe, and the end of a training that may have been stopped before the recipe's."""

from __future__ import annotations

import warnings

from sparse_xp.sparsifier.sparsifier import Sparsifier


def numbers_to_log(sparsifier: Sparsifier) -> dict[str, float]:
    """Return the numbers of the latest step; ``learning_rate`` among them if the recipe has set it.

    A scheduler of the loop has changed the rate of the optimizer since that step.
    """
    numbers = {name: value for name, value in sparsifier.logs().items() if name != "lr"}
    return numbers | ({"learning_rate": sparsifier.rates[0]} if sparsifier.rates else {})


def finalize_or_warn(sparsifier: Sparsifier, resume: str) -> None:
    """Finalize a recipe, unless training was stopped before it has reached its targets: then warn.

    ``resume``: the call that continues it.
    """
    done, total = sparsifier.steps, sparsifier.total_steps
    if done >= total or sparsifier.modifier_list.target_reached(sparsifier.context):
        sparsifier.finalize()
        return
    warnings.warn(
        f"Training was stopped after step {done} of {total}, before the recipe has reached its targets: the model is "
        f"unfinished. Continue with {resume}, or accept it as it is with sparsifier.finalize(unfinished=True).",
        stacklevel=3,
    )
