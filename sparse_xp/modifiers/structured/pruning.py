"""The modifier that removes attention heads, feed-forward neurons and layers gradually, for fewer multiplications.

In a run: ``attach`` finds the layers and the target; at every update ``choose`` ranks the groups and extends the masks;
``zero_removed`` keeps masked groups at zero; ``detach`` cuts them out. The tensor functions are in
``functional/structured/``, the arithmetic of sizes in ``functional/cost_model.py``. torch is imported late: composing a
configuration must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.cost_model import Costs, Size, greedy_sizes, interpolate_size, uniform_sizes
from sparse_xp.functional.schedules import RAMPS, share_due
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import Display, LoggedNumber, Span, held_spans
from sparse_xp.modifiers.gradient_scores import SCORES, GateScores, all_finite, check_score
from sparse_xp.modifiers.gradual_pruning import updates_window
from sparse_xp.modifiers.structured.target import COST_METRICS, Target, check_target, cost_target, speedup_target

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from sparse_xp.functional.layers import LayerGate
    from sparse_xp.functional.structured.blocks import Block, LayerMask
    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class StructuredPruning(Modifier):
    """Zero more and more heads and neurons from ``start`` to ``end``, then cut them out of the model.

    It reaches either ``final_sparsity`` or ``target_speedup``. Scores are gathered from the first step of the run. A
    layer keeps at least one head. Removed groups never come back. The rest of the run trains the smaller model, which
    is faster. They are cut out after training instead in a run over several processes, with ``train.compile``, in a
    loop of your own, and beside modifiers that need the shapes of the start (pruning of single weights, distillation of
    attention).

    Attributes:
        final_sparsity: The fraction of the encoder's ``cost_metric`` to remove.
        cost_metric: What is counted: ``parameters`` (weights of a layer's six matrices) or ``multiplications`` (for a
            row of ``tokens``, including both products of attention).
        tokens: The number of tokens of a row, for ``multiplications``.
        target_speedup: How many times as fast as the dense fp32 model of the full shape, by a latency table of the
            engine. It overrides ``final_sparsity``.
        latency: For ``target_speedup``: ENGINE:PRECISION:ROWSxTOKENS, measured once on this machine and cached, or a
            table FILE.json (``sparse_xp.latency``). With PRECISION auto the run delivers fp32 or int8, whichever
            reaches the target with more left (``target_cpu.with_chosen_precision``).
        score: The groups with the lowest scores are removed: ``first_order``, ``second_order``, ``magnitude`` or
            ``obs``. ``first_order``: |dL/dg| for a gate g on each head and neuron, summed over steps. ``second_order``:
            its square (sources in ``GateScores``). For embeddings L is a random projection of them, on a few batches
            for each update. ``magnitude``: the sum of squares of the weights. ``obs``: the error that is left in the
            outputs of the Linear that reads a group after the best correction of its other weights, which are then
            corrected (ZipLM, Kurtic et al. 2023, arXiv:2302.04089), on a few batches for each update.
        decay: The factor by which the sums of the score shrink in every step.
        global_sparsity: Remove the groups with the lowest score per unit of cost, across all layers. Otherwise every
            layer keeps the same share of its heads and neurons.
        layers: With ``global_sparsity``, whole layers may be removed as well; at least one stays. A layer has a gate
            and a score of its own (with ``magnitude``: the sum of what is left in it). The score cannot be derived from
            its heads and neurons, because its LayerNorms act without them.
        multiple: A layer keeps neurons in a whole multiple of this number, the width of an engine's vectors.
        inter_func: The curve of the sparsity: ``cubic``, ``linear`` or ``inverse_cubic``.
        update_frequency: The time between two updates.
    """

    final_sparsity: float | None = None
    cost_metric: str = "parameters"
    tokens: int = 128
    target_speedup: float | None = None
    latency: str | None = None
    score: str = "first_order"
    decay: float = 0.99
    global_sparsity: bool = False
    layers: bool = False
    multiple: int = 16
    inter_func: str = "cubic"
    update_frequency: TimeSpec = 0.05

    display: ClassVar[Display] = Display(bar_style="red")
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("removed", 60), LoggedNumber("speedup", 70))

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        for name, known in (("cost_metric", COST_METRICS), ("inter_func", tuple(RAMPS))):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"{kind}.{name}={value}: expected one of {', '.join(known)}.{did_you_mean(value, known)}"
                )
        check_score(kind, self.score, self.decay, (*SCORES, "obs"))
        for name in ("tokens", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{kind}.{name}={getattr(self, name)}: expected at least 1.")
        if self.layers and not self.global_sparsity:
            raise ValueError(
                f"{kind}.layers=true weighs layers against heads and neurons, which global_sparsity=true does: write "
                "sparsity=structured_global."
            )
        if self.layers and self.score == "obs":
            raise ValueError(
                f"{kind}.layers=true: score=obs has no score for a whole layer. Write score=second_order, or leave "
                "layers out."
            )
        parse_time(self.update_frequency, f"{kind}.update_frequency")
        check_target(kind, self.final_sparsity, self.target_speedup, self.latency)
        self.blocks: list[Block] = []
        self.masks: dict[str, LayerMask] = {}  # by name of the layer; empty before the first update
        #: sums by name of the Linear that reads the groups, and of the layer
        self.gate_scores = GateScores(self.score, self.decay)
        #: parameters with removed groups, and what to multiply them with; None: the masks have changed
        self.factors: tuple[list[nn.Parameter], list[Tensor]] | None = None
        self.gates: dict[str, LayerGate] = {}  # with ``layers``, by name of the layer
        self.last_update = -1.0
        self.is_cut = False  # whether the model has the final shapes; the masks stay those of the shapes before

    @property
    def exclusive_resource(self) -> str:
        return "heads and neurons of the encoder"

    @property
    def needs_batches(self) -> bool:
        return self.score == "obs"

    # The schedule

    def window(self, clock: Clock) -> tuple[float, float]:
        return updates_window(type(self).__name__, self.start, *super().window(clock), clock)

    def share_due(self, clock: Clock, step: int, last_update: float) -> float | None:
        """Return the share of the removal to reach in ``step``; None if the step makes no update."""
        every = clock.to_epochs(self.update_frequency)
        now, ramp_end = clock.epoch(step), clock.to_epochs(self.end)
        return share_due(self.inter_func, now, last_update, self.window(clock), ramp_end, every)

    def target_reached(self, context: HookContext) -> bool:
        return self.last_update >= self.window(context.clock)[1]

    def spans(self, clock: Clock) -> list[Span]:
        return held_spans(self.window(clock), clock)

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        """Return the scheduled share of removed cost at each step that updates it; None with a target by speed."""
        last_update = -1.0
        levels: dict[int, float | None] = {}
        for step in range(clock.total_steps):
            share = self.share_due(clock, step, last_update)
            if share is not None:
                by_cost = self.final_sparsity if self.target_speedup is None else None
                levels[step], last_update = None if by_cost is None else by_cost * share, clock.epoch(step)
        return levels

    # Hooks

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.structured.blocks import encoder_blocks

        encoder_blocks(model)

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.layers import LayerGate, is_first_fixed
        from sparse_xp.functional.structured.blocks import encoder_blocks, sizes_of

        self.blocks, self.masks, self.last_update = encoder_blocks(context.model), {}, -1.0
        self.factors, self.is_cut = None, False
        self.gate_scores.sums = {}
        self.initial_sizes = sizes_of(context.model)
        first = self.blocks[0]
        self.fixed_layers = {first.name} if is_first_fixed(context.model, first.architecture) else set()
        self.target = self.find_target(context)
        self.target.check_reachable(self.initial_sizes, self.multiple, self.layers, context.source)
        self.set_final_sizes()
        if self.layers:
            self.gates = {block.name: LayerGate(context.model.get_submodule(block.name)) for block in self.blocks}
        self.end_of_updates = self.window(context.clock)[1]
        self.set_gates()

    def find_target(self, context: HookContext) -> Target:
        """Return the target for the model of the run."""
        from sparse_xp.functional.structured.config import full_shape, removed_layer_numbers

        shape = full_shape(context.model)
        layers = len(self.initial_sizes) + len(removed_layer_numbers(context.model))
        if self.target_speedup is not None and self.latency is not None:
            return speedup_target(context, self.target_speedup, self.latency, shape, layers)
        assert self.final_sparsity is not None
        return cost_target(self.final_sparsity, self.cost_metric, self.tokens, shape, layers)

    def set_final_sizes(self) -> None:
        """Fix the sizes at the end of the schedule, unless the scores decide over them."""
        if not self.global_sparsity:
            target = self.target
            self.final_sizes = uniform_sizes(target.costs, self.initial_sizes, target.budget, self.multiple)

    def before_step(self, context: HookContext) -> None:
        share = self.share_due(context.clock, context.step, self.last_update)
        if share is not None:
            if self.scores_outputs(context):
                from sparse_xp.modifiers.structured.gradients import output_gradients

                for gradients in output_gradients(context, self.blocks, self.gates, self.score):
                    self.gate_scores.add(gradients, context.accelerator, scaled=False)
            if self.score == "obs":
                self.choose_by_error(context, share)
            else:
                self.choose(context.model, share)
            self.last_update = context.clock.epoch(context.step)
            self.zero_removed(context.model)
            self.set_gates()
            if self.target_reached(context):
                self.cut_if_possible(context)

    def before_update(self, context: HookContext) -> None:
        from sparse_xp.modifiers.structured.gradients import group_gradients, layer_gradients

        gathers = self.gate_scores.needs_gradients and not self.scores_outputs(context)
        if gathers and not self.target_reached(context):
            gradients = group_gradients(context.model, self.blocks, self.score)
            gradients |= layer_gradients(self.gates, context.accelerator)
            self.gate_scores.add(gradients, context.accelerator)
        self.zero_removed(context.model, gradients=True)

    def scores_outputs(self, context: HookContext) -> bool:
        """Return whether gradients are those of the outputs themselves, computed for each update.

        A model that embeds texts begins as its own teacher. Its loss is at the minimum, and the gradients of training
        are noise.
        """
        return context.task.embeds and self.gate_scores.needs_gradients

    def after_update(self, context: HookContext) -> None:
        # Adam's momentum and weight decay may move a removed weight, so the zero is restored after every update.
        self.zero_removed(context.model)

    def check(self, context: HookContext) -> None:
        from sparse_xp.modifiers.structured.masks import check_removed

        if not self.is_cut:
            check_removed(context.model, self.blocks, self.masks, context.step)

    def zero_removed(self, model: nn.Module, gradients: bool = False) -> None:
        """Zero the weights of removed groups, or with ``gradients`` their gradients."""
        from sparse_xp.functional.masks import multiply_gradients, multiply_weights
        from sparse_xp.modifiers.structured.masks import removal_factors

        if self.is_cut:
            return
        parameters, factors = self.factors or ([], [])
        if self.factors is None or any(p.device != f.device for p, f in zip(parameters, factors, strict=True)):
            parameters, factors = self.factors = removal_factors(model, self.blocks, self.masks)
        if parameters:
            (multiply_gradients if gradients else multiply_weights)(parameters, factors)

    def detach(self, context: HookContext) -> None:
        from sparse_xp.functional.layers import remove_bypassed

        self.check(context)
        self.remove_gates()
        if not self.masks:
            return
        self.cut(context)
        remove_bypassed(context.model)
        self.blocks, self.masks, self.factors, self.is_cut = [], {}, None, False

    def cut_if_possible(self, context: HookContext) -> None:
        """Cut removed groups out of the model now, unless something needs its shape until the end."""
        from sparse_xp.modifiers.structured.masks import parameter_cuts

        if self.masks and context.can_resize(parameter_cuts(context.model, self.blocks, self.masks)):
            self.cut(context)

    def cut(self, context: HookContext) -> None:
        """Cut removed groups out of the model, if they are still there. Removed layers are bypassed."""
        from sparse_xp.functional.structured.removal import cut_groups
        from sparse_xp.modifiers.structured.masks import parameter_cuts

        if self.is_cut:
            return
        self.remove_gates()
        # What is kept about these parameters, such as masks and moments, is cut before the parameters change.
        context.resized(parameter_cuts(context.model, self.blocks, self.masks))
        cut_groups(context.model, self.masks)
        self.factors, self.is_cut = None, True

    def remove_gates(self) -> None:
        """Take the gates off the layers."""
        for gate in self.gates.values():
            gate.remove()
        self.gates = {}

    def restore_shapes(self, context: HookContext, state: dict[str, Any]) -> None:
        if state.get("is_cut"):  # not there in a checkpoint of an earlier version
            self.masks = restored_masks(state)
            self.cut(context)

    # The choice

    def choose(self, model: PreTrainedModel, share: float) -> None:
        """Extend the masks until ``share`` of the removal is reached. Raises UserError without usable scores."""
        from sparse_xp.functional.structured.scores import without_lowest
        from sparse_xp.modifiers.structured.masks import full_masks

        self.masks, self.factors = self.masks or full_masks(model, self.blocks, self.initial_sizes), None
        if share == 0:
            return
        if self.gate_scores.needs_gradients and self.gate_scores.is_empty:
            if self.gate_scores.sums and share < 1:
                return  # the gradient scaler has skipped every step so far; the next update removes more
            raise UserError(
                "StructuredPruning: nothing is known of heads and neurons "
                f"{self.gate_scores.why_empty(self.start, 'some')} Start later, or take score=magnitude."
            )
        scores = self.group_scores(model)
        for (name, mask), size in zip(self.masks.items(), self.next_sizes(scores, share), strict=True):
            heads, neurons = (
                without_lowest(score, alive, keep) for score, alive, keep in zip(scores[name], mask, size, strict=True)
            )
            self.masks[name] = heads, neurons

    def choose_by_error(self, context: HookContext, share: float) -> None:
        """Extend the masks as ``choose`` does, by ``score=obs``, and repair the weights that read what is left."""
        from sparse_xp.modifiers.structured.masks import full_masks
        from sparse_xp.modifiers.structured.obs import input_moments, relative_errors, remove_with_repair

        model, blocks = context.model, self.blocks
        self.masks, self.factors = self.masks or full_masks(model, blocks, self.initial_sizes), None
        if share == 0 or (not self.global_sparsity and self.next_sizes({}, share) == self.current_sizes()):
            return  # there is nothing to remove yet
        moments = input_moments(context, blocks)
        compared = self.global_sparsity
        scores = relative_errors(model, blocks, self.masks, moments, self.multiple) if compared else {}
        sizes = self.next_sizes(scores, share)
        self.masks = remove_with_repair(context, blocks, self.masks, moments, sizes, self.multiple)

    def group_scores(self, model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the scores of heads [heads] and neurons [neurons] of each layer, float32.

        Raises UserError if a score, that of a whole layer included, is not finite.
        """
        from sparse_xp.functional.structured.scores import block_norms

        sums, scores = self.gate_scores.sums, {}
        for block in self.blocks:
            gathered = self.gate_scores.needs_gradients
            pair = (sums[block.output], sums[block.down]) if gathered else block_norms(model, block)
            if not all_finite(*pair, *([sums[block.name]] if block.name in sums else [])):
                raise UserError(f"StructuredPruning: scores of {block.name} are not finite: training has diverged.")
            scores[block.name] = pair
        return scores

    def next_sizes(self, scores: dict[str, tuple[Tensor, Tensor]], share: float) -> list[Size]:
        """Return what each layer keeps when ``share`` of the removal is reached."""
        if not self.global_sparsity:
            pairs = zip(self.initial_sizes, self.final_sizes, strict=True)
            return [interpolate_size(first, last, share, self.multiple) for first, last in pairs]
        target, initial = self.target, self.target.costs.total(self.initial_sizes)
        ranked = [
            [score[alive].sort().values.tolist() for score, alive in zip(scores[name], mask, strict=True)]
            for name, mask in self.masks.items()
        ]
        return greedy_sizes(
            target.costs,
            self.current_sizes(),
            heads=[heads for heads, _ in ranked],
            neurons=[neurons for _, neurons in ranked],
            budget=target.budget if share == 1 else initial + (target.budget - initial) * share,
            multiple=self.multiple,
            layers=self.layer_scores(scores) if self.layers else None,
            target=target.budget,
        )

    def layer_scores(self, scores: dict[str, tuple[Tensor, Tensor]]) -> list[float]:
        """Return the scores of whole layers, given those of their heads and neurons; infinite if one has to stay."""
        return [
            float("inf") if name in self.fixed_layers else self.layer_score(name, pair) for name, pair in scores.items()
        ]

    def layer_score(self, name: str, scores: tuple[Tensor, Tensor]) -> float:
        """Return the score of a whole layer, given those of its heads and neurons."""
        if self.gate_scores.needs_gradients:
            return self.gate_scores.sums[name].item()
        return sum(score[alive].sum().item() for score, alive in zip(scores, self.masks[name], strict=True))

    def current_sizes(self) -> list[Size]:
        """Return the heads and neurons of each layer that are not removed yet."""
        import torch

        if not self.masks:
            return self.initial_sizes
        counts = [mask.sum() for pair in self.masks.values() for mask in pair]
        numbers: list[int] = torch.stack(counts).tolist()  # one read from the device
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def set_gates(self) -> None:
        """Close the gates of removed layers; the others track gradients as long as scores are gathered."""
        from sparse_xp.functional.structured.removal import is_removed

        tracks_gradient = self.gate_scores.needs_gradients and self.last_update < self.end_of_updates
        for name, gate in self.gates.items():
            gate.set_state(name not in self.masks or not is_removed(self.masks[name]), tracks_gradient)

    # Log and state

    def logs(self, context: HookContext) -> dict[str, float]:
        sizes, target = self.current_sizes(), self.target
        cost = target.costs.total(sizes)
        numbers = {"speedup": target.dense / cost} if self.target_speedup else {"removed": 1 - cost / target.dense}
        return {**numbers, "layers": float(sum(map(any, sizes)))} if self.layers else numbers

    def state_dict(self) -> dict[str, Any]:
        costs = self.target.costs
        return {
            "heads": {name: heads for name, (heads, _) in self.masks.items()},
            "neurons": {name: neurons for name, (_, neurons) in self.masks.items()},
            "gathered": self.gate_scores.sums,
            "last_update": self.last_update,
            "is_cut": self.is_cut,
            # A latency table measured again would differ, so the run keeps the one that it began with.
            "costs": {"heads": costs.heads, "neurons": costs.neurons, "rest": costs.rest},
            "budget": self.target.budget,
            "dense": self.target.dense,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks, self.factors = restored_masks(state), None
        self.gate_scores.sums, self.last_update = dict(state["gathered"]), state["last_update"]
        self.target = replace(self.target, costs=Costs(**state["costs"]), budget=state["budget"], dense=state["dense"])
        self.set_final_sizes()
        self.set_gates()


def restored_masks(state: dict[str, Any]) -> dict[str, LayerMask]:
    """Return the masks by name of the layer that ``StructuredPruning.state_dict`` has saved."""
    return {name: (state["heads"][name], state["neurons"][name]) for name in state["heads"]}
