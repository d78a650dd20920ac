"""Removing attention heads, feed-forward neurons and layers gradually: fewer multiplications, on any engine.

The tensor functions are in ``sparse_xp.functional.structured``, the arithmetic of sizes in ``sparse_xp.functional.cost_model``, the measuring of
an engine in ``sparse_xp.latency``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, When, parse_when
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.cost_model import (
    Costs,
    Size,
    between,
    chosen_sizes,
    even_sizes,
    least_cost,
    multiplication_costs,
    parameter_costs,
)
from sparse_xp.functional.schedules import progress, scheduled_sparsity, update_due
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.pruning import INTER_FUNCS, Pruning, updates_window
from sparse_xp.modifiers.quantization import Quantization

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.functional.layers import Gate
    from sparse_xp.functional.structured import Block
    from sparse_xp.training.state import Run

COUNTED = ("parameters", "multiplications")
SCORES = ("first_order", "second_order", "magnitude")


@dataclass(kw_only=True)
class StructuredPruning(Modifier):
    """From ``start`` to ``end`` ever more heads and neurons are silenced; after training they are removed.

    The target is either ``final_sparsity``, the part that goes of the encoder's ``counted``: ``parameters`` (weights of
    its six matrices) or ``multiplications`` (for a row of ``tokens``, both products of attention among them). Or it is
    ``target_speedup``, and then ``final_sparsity`` does not count: how many times as fast as the dense fp32 model of
    the full shape, by a latency table of the engine. ``latency``: ENGINE:PRECISION:ROWSxTOKENS, measured on this
    machine once and kept, or a table FILE.json (``sparse_xp.latency``). With PRECISION auto the run delivers fp32 or
    int8, whichever reaches the target with more left (``target_cpu.settled``).

    The lowest scores go. ``score``: ``first_order``: |dL/dg| for a gate g before each head and neuron, summed over
    steps with a ``decay`` (Michel et al. 2019, arXiv:1905.10650; Molchanov et al. 2017, arXiv:1611.06440);
    ``second_order``: its square, the diagonal of the Fisher information (Theis et al. 2018, arXiv:1801.05787);
    ``magnitude``: the sum of squares of the weights. The former two gather from the first step of the run.

    ``global_sparsity``: whatever is worth least for what it saves goes, anywhere; otherwise every layer keeps the same
    share of heads and of neurons. A layer keeps at least one head and ``multiple`` neurons, and a multiple of that: the
    width of the vectors that engines compute with. What is silenced stays silenced.

    ``layers``: with ``global_sparsity``, a layer may go whole, too, down to the last one, and at once. What it is worth
    is the same derivative, by a gate on what it changes of the hidden states (with ``magnitude`` the sum of what it has
    left); its heads and neurons do not tell, for without them its LayerNorms are still there.
    """

    final_sparsity: float | None = None
    counted: str = "parameters"
    tokens: int = 128
    target_speedup: float | None = None
    latency: str | None = None
    score: str = "first_order"
    decay: float = 0.99
    global_sparsity: bool = False
    layers: bool = False
    multiple: int = 16
    inter_func: str = "cubic"
    update_frequency: When = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        for name, known in (("counted", COUNTED), ("score", SCORES), ("inter_func", INTER_FUNCS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{kind}.{name}={value}: want one of {', '.join(known)}.{did_you_mean(value, known)}")
        for name in ("tokens", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{kind}.{name}={getattr(self, name)}: want at least 1.")
        if not 0 <= self.decay <= 1:
            raise ValueError(
                f"{kind}.decay={self.decay}: want a factor from 0 (the last step alone) to 1 (a plain sum)."
            )
        if self.layers and not self.global_sparsity:
            raise ValueError(
                f"{kind}.layers=true weighs layers against heads and neurons, which global_sparsity=true does: write "
                "sparsity=structured_global."
            )
        parse_when(self.update_frequency, f"{kind}.update_frequency")
        self.check_target(kind)
        self.blocks: list[Block] = []
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}  # heads and neurons by the name of the layer, True keeps
        self.gathered: dict[str, Tensor] = {}  # scores by the name of the Linear that reads the groups, or of the layer
        self.gates: dict[str, Gate] = {}  # with ``layers``, by the name of the layer
        self.last_update = -1.0

    def check_target(self, kind: str) -> None:
        """Raise ValueError unless there is one target, and all that it needs."""
        if self.target_speedup is None:
            if self.latency is not None:
                raise ValueError(f"{kind}.latency={self.latency} is used with target_speedup only: give that too.")
            if self.final_sparsity is None or not 0 < self.final_sparsity < 1:
                raise ValueError(
                    f"{kind}.final_sparsity={self.final_sparsity}: want the part of the encoder that goes, strictly "
                    "between 0 and 1 (recipe.sparsity= sets it), or target_speedup=4 with a latency."
                )
            return
        if not 1 < self.target_speedup < float("inf"):
            raise ValueError(f"{kind}.target_speedup={self.target_speedup}: want a number above 1, such as 4.")
        if self.latency is None:
            raise ValueError(
                f"{kind}.target_speedup={self.target_speedup:g} needs latency=, the engine and shape that it is for: "
                "sparsity.latency=onnxruntime:int8:1x128."
            )
        from sparse_xp.latency import is_file, parse_specs

        if not is_file(self.latency):
            parse_specs(self.latency)
        elif not Path(self.latency).is_file():
            raise ValueError(
                f"{kind}.latency={self.latency}: there is no such file. python -m sparse_xp.latency makes one."
            )

    @property
    def occupies(self) -> str:
        return "heads and neurons of the encoder"

    def window(self, clock: Clock) -> tuple[float, float]:
        return updates_window(type(self).__name__, self.start, *super().window(clock), clock)

    def attach(self, run: Run) -> None:
        from sparse_xp.functional.layers import Gate
        from sparse_xp.functional.structured import blocks, full_shape, gone_layers, sizes_of

        self.blocks, self.kept, self.gathered, self.last_update = blocks(run.model), {}, {}, -1.0
        self.first = sizes_of(run.model)
        whole = len(self.first) + len(gone_layers(run.model))
        self.costs, self.budget, self.dense = self.target(run, full_shape(run.model), whole)
        now = self.costs.total(self.first)
        smallest = least_cost(self.costs, self.first, self.multiple, self.layers)
        if now <= self.budget:
            raise UserError(
                f"{self.wanted} is reached with nothing removed: {run.source} has {self.told(now)}. Want more."
            )
        if smallest > self.budget:
            raise UserError(
                f"{self.wanted} cannot be reached: with one head and {self.multiple} neurons in "
                f"{'one' if self.layers else 'each'} of its {len(self.first)} layers, {run.source} has "
                f"{self.told(smallest)}. Want less" + (", or a smaller multiple." if self.multiple > 1 else ".")
            )
        if not self.global_sparsity:
            self.last = even_sizes(self.costs, self.first, self.budget, self.multiple)
        if self.layers:
            self.gates = {block.name: Gate(run.model.get_submodule(block.name)) for block in self.blocks}
        self.until = self.window(run.clock)[1]
        self.set_gates()

    def target(self, run: Run, shape: Any, layers: int) -> tuple[Costs, float, float]:
        """What sizes cost, what may be left of that, and the cost of the dense model: so many layers of that shape."""
        if self.target_speedup is None:
            assert self.final_sparsity is not None
            counting = self.counted == "multiplications"
            costs = multiplication_costs(shape, self.tokens) if counting else parameter_costs(shape)
            dense = costs.total([(shape.heads, shape.neurons)] * layers)
            return costs, (1 - self.final_sparsity) * dense, dense
        from sparse_xp.functional.factored_embeddings import find
        from sparse_xp.latency import tables_of_run

        assert self.latency is not None
        with run.accelerator.main_process_first():
            found = tables_of_run(run.directory, self.latency, shape, run.cache / "latency")
        tables = {table.spec.precision: table for table in found}
        quantized = any(isinstance(modifier, Quantization) for modifier in run.recipe.modifiers.values())
        delivers, other = ("int8", "none") if quantized else ("fp32", "int8")
        if delivers not in tables:
            raise UserError(
                f"sparsity.latency={self.latency} is of a model in {', '.join(tables)}, and this run delivers one "
                f"in {delivers}. Write quantization={other}, or another latency."
            )
        table = tables[delivers]
        dense = table.dense(layers)
        factored = find(run.model)
        costs = table.costs_of(None if factored is None else factored.last)
        return costs, dense / self.target_speedup, dense

    @property
    def wanted(self) -> str:
        """The target, for messages."""
        if self.target_speedup is not None:
            return f"StructuredPruning: target_speedup={self.target_speedup:g} by {self.latency}"
        return f"StructuredPruning: final_sparsity={self.final_sparsity:g} of the {self.counted}"

    def told(self, cost: float) -> str:
        """A cost, for messages."""
        if self.target_speedup is not None:
            return f"{self.dense / cost:.2f} times the speed of dense fp32"
        return f"{1 - cost / self.dense:.1%} fewer {self.counted} than its full shape"

    def before_step(self, run: Run) -> None:
        start, end = self.window(run.clock)
        now = run.clock.epoch(run.progress.step)
        if update_due(now, self.last_update, start, end, run.clock.at(self.update_frequency)):
            self.choose(run, progress(now, start, end))
            self.last_update = now
            self.enforce(run)
            self.set_gates()

    def choose(self, run: Run, done: float) -> None:
        """Silence what has to go when ``done`` of the window is over."""
        import torch

        from sparse_xp.functional.structured import linear, without_lowest

        if not self.kept:
            device = linear(run.model, self.blocks[0].up).weight.device
            self.kept = {
                block.name: (
                    torch.ones(heads, dtype=torch.bool, device=device),
                    torch.ones(neurons, dtype=torch.bool, device=device),
                )
                for block, (heads, neurons) in zip(self.blocks, self.first, strict=True)
            }
        if done > 0 and self.score != "magnitude" and not self.gathered:
            raise UserError(
                f"StructuredPruning: nothing is known of heads and neurons at the first step, where start={self.start} "
                "wants them removed. Start later, or take score=magnitude."
            )
        share = scheduled_sparsity(self.inter_func, 0.0, 1.0, done)
        if share == 0:
            return
        scores = {block.name: self.scores(run, block) for block in self.blocks}
        for name, pair in scores.items():
            known = (*pair, *([self.gathered[name]] if name in self.gathered else []))
            if not all(bool(torch.isfinite(score).all()) for score in known):
                raise UserError(f"StructuredPruning: scores of {name} are not finite: training has diverged.")
        whole = [self.layer_score(name, pair) for name, pair in scores.items()] if self.layers else None
        sizes = self.sizes(scores, share, whole)
        for (name, pair), size in zip(self.kept.items(), sizes, strict=True):
            heads, neurons = (
                without_lowest(score, alive, keep) for score, alive, keep in zip(scores[name], pair, size, strict=True)
            )
            self.kept[name] = heads, neurons

    def layer_score(self, name: str, scores: tuple[Tensor, Tensor]) -> float:
        """What a layer is worth as a whole, given the scores of its heads and neurons."""
        if self.score != "magnitude":
            return self.gathered[name].item()
        return sum(score[alive].sum().item() for score, alive in zip(scores, self.kept[name], strict=True))

    def sizes(self, scores: dict[str, tuple[Tensor, Tensor]], share: float, layers: list[float] | None) -> list[Size]:
        """What each layer keeps when ``share`` of all that is to go is gone."""
        if not self.global_sparsity:
            pairs = zip(self.first, self.last, strict=True)
            return [between(first, last, share, self.multiple) for first, last in pairs]
        now = self.costs.total(self.first)
        ranked = [
            [score[alive].sort().values.tolist() for score, alive in zip(scores[name], pair, strict=True)]
            for name, pair in self.kept.items()
        ]
        return chosen_sizes(
            self.costs,
            self.sizes_now(),
            [heads for heads, _ in ranked],
            [neurons for _, neurons in ranked],
            self.budget if share == 1 else now + (self.budget - now) * share,
            self.multiple,
            layers,
            self.budget,
        )

    def sizes_now(self) -> list[Size]:
        """Heads and neurons of each layer that are not silenced."""
        return [(int(heads.sum()), int(neurons.sum())) for heads, neurons in self.kept.values()] or self.first

    def scores(self, run: Run, block: Block) -> tuple[Tensor, Tensor]:
        """What each head and each neuron of a layer is worth, float32."""
        from sparse_xp.functional.structured import linear, squared_norms

        if self.score != "magnitude":
            return self.gathered[block.output], self.gathered[block.down]
        inputs = [(linear(run.model, name).weight, linear(run.model, name).bias) for name in block.inputs]
        up = linear(run.model, block.up)
        return (
            squared_norms(inputs, linear(run.model, block.output).weight, block.head_size),
            squared_norms([(up.weight, up.bias)], linear(run.model, block.down).weight, 1),
        )

    def before_update(self, run: Run) -> None:
        if self.score != "magnitude" and not self.reached(run):
            self.gather(run)
        self.enforce(run, gradients=True)

    def gather(self, run: Run) -> None:
        """Add the gradients of this step to the scores."""
        import torch

        from sparse_xp.functional.structured import gate_gradients, linear

        terms = {}
        for block in self.blocks:
            for name, size in ((block.output, block.head_size), (block.down, 1)):
                module = linear(run.model, name)
                if module.weight.grad is None:  # frozen: nothing can be said of it but by its weights
                    raise UserError(
                        f"StructuredPruning: {name} does not train, so that score={self.score} knows nothing of what "
                        "it reads. Let it train, or take score=magnitude."
                    )
                terms[name] = gate_gradients(module.weight, module.weight.grad, size)
        for name, gate in self.gates.items():
            if gate.weighs and gate.value.grad is not None:
                found, gate.value.grad = gate.value.grad, None
                # No part of what DDP wraps: it takes the mean over processes, and so do they.
                terms[name] = run.accelerator.reduce(found, "mean") if run.accelerator.num_processes > 1 else found
        if scaler := run.accelerator.scaler:  # fp16: gradients are scaled still, and infinite ones make no step
            if not all(bool(torch.isfinite(term).all()) for term in terms.values()):
                return
            terms = {name: term / scaler.get_scale() for name, term in terms.items()}
        for name, term in terms.items():
            term = term.square() if self.score == "second_order" else term.abs()
            self.gathered[name] = term if name not in self.gathered else self.decay * self.gathered[name] + term

    def set_gates(self) -> None:
        """Close those of layers that have nothing left; the others weigh as long as scores are gathered."""
        from sparse_xp.functional.structured import went

        weighs = self.score != "magnitude" and self.last_update < self.until
        for name, gate in self.gates.items():
            gate.set(name not in self.kept or not went(self.kept[name]), weighs)

    def after_update(self, run: Run) -> None:
        # Adam's momentum and weight decay may move a silenced weight, so the zero is put back after every update.
        self.enforce(run)

    def enforce(self, run: Run, gradients: bool = False) -> None:
        """Zeros into what is silenced, or into its gradient."""
        from sparse_xp.functional.structured import linear, silence

        for block in self.blocks if self.kept else ():
            for name, cut in block.cuts(*self.kept[block.name]).items():
                silence(linear(run.model, name), cut, gradients)

    def check(self, run: Run) -> None:
        from sparse_xp.functional.structured import linear, loud

        for block in self.blocks if self.kept else ():
            for name, cut in block.cuts(*self.kept[block.name]).items():
                if revived := loud(linear(run.model, name), cut):
                    raise RuntimeError(
                        f"{revived} removed weights of {name} are no longer zero at step {run.progress.step}."
                    )

    def detach(self, run: Run) -> None:
        from sparse_xp.functional.structured import cut_out, remove, went

        self.check(run)
        for gate in self.gates.values():
            gate.remove()
        self.gates = {}
        if not self.kept:
            return
        cuts = {n: cut for b in self.blocks for n, cut in b.cuts(*self.kept[b.name]).items()}
        gone = tuple(f"{name}." for name, pair in self.kept.items() if went(pair))
        for other in run.recipe.modifiers.values():  # their masks are of the weights that are there
            if isinstance(other, Pruning):
                other.targets = {n: weight for n, weight in other.targets.items() if not n.startswith(gone)}
                other.masks = {
                    n: cut_out(mask, cuts[module]) if (module := n.rpartition(".")[0]) in cuts else mask
                    for n, mask in other.masks.items()
                    if not n.startswith(gone)
                }
        remove(run.model, self.kept)
        self.blocks, self.kept = [], {}

    def reached(self, run: Run) -> bool:
        return self.last_update >= self.window(run.clock)[1]

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        """The scheduled part that is gone from each step on that may change it; None with a target by speed."""
        (start, end), every, last = self.window(clock), clock.at(self.update_frequency), -1.0
        found: dict[int, float | None] = {}
        for step in range(clock.total_steps):
            now = clock.epoch(step)
            if update_due(now, last, start, end, every):
                share = scheduled_sparsity(self.inter_func, 0.0, 1.0, progress(now, start, end))
                known = self.final_sparsity if self.target_speedup is None else None
                found[step], last = None if known is None else known * share, now
        return found

    def logs(self, run: Run) -> dict[str, float]:
        sizes = self.sizes_now()
        cost = self.costs.total(sizes)
        found = {"speedup": self.dense / cost} if self.target_speedup else {"removed": 1 - cost / self.dense}
        return {**found, "layers": float(sum(map(any, sizes)))} if self.layers else found

    def state_dict(self) -> dict[str, Any]:
        return {
            "heads": {name: heads for name, (heads, _) in self.kept.items()},
            "neurons": {name: neurons for name, (_, neurons) in self.kept.items()},
            "gathered": self.gathered,
            "last_update": self.last_update,
            # A table that was measured anew would be another one.
            "costs": {"heads": self.costs.heads, "neurons": self.costs.neurons, "rest": self.costs.rest},
            "budget": self.budget,
            "dense": self.dense,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = {name: (state["heads"][name], state["neurons"][name]) for name in state["heads"]}
        self.gathered, self.last_update = dict(state["gathered"]), state["last_update"]
        self.costs, self.budget, self.dense = Costs(**state["costs"]), state["budget"], state["dense"]
        if not self.global_sparsity:
            self.last = even_sizes(self.costs, self.first, self.budget, self.multiple)
        self.set_gates()
