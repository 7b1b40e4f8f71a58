"""A model that really stops early: texts in, answers out, every text at the layer where its policy lets it go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.dynamic.gates import LayerGate
from probes.exits.dynamic.heads import Heads
from probes.exits.dynamic.looks import Look
from probes.exits.dynamic.passes import LeavingPass
from probes.exits.dynamic.rules import Confidence, exit_places
from probes.exits.latency import LatencyPlan, run_rounds
from probes.exits.resample import Resamples
from probes.stats import percentile_interval

if TYPE_CHECKING:
    import torch

    from probes.capture.batching import Batch
    from probes.models import Model

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
FULL = "full"
_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Policy:
    """When to stop, and what to answer then.

    `layers` are the exits in rising order; the last takes everything that is left. With one layer alone the policy is
    a static exit and has no `rule`.
    """

    heads: Heads
    layers: tuple[int, ...]
    pooling: str
    rule: Confidence | None = None
    threshold: float = np.inf

    def __post_init__(self) -> None:
        if self.rule is None and len(self.layers) > 1:
            raise InputError(
                f"{len(self.layers)} exits came without a rule that says which to take"
            )

    def static(self, layer: int) -> Policy:
        """The same heads, but every text stops at `layer`."""
        return Policy(self.heads, (layer,), self.pooling)


@dataclass(frozen=True, eq=False)
class Exits:
    """`answers` (n, classes) probabilities or (n, d_out) embeddings; `layers` (n,) where each text stopped."""

    answers: Array
    layers: IntArray


class DynamicExit:
    """Texts to answers by a model whose texts leave the batch one by one; made once, used often.

    A block computes only the rows that are still there, and a text that leaves at layer k gets, up to rounding, what
    the model cut after k blocks would give it. `batch_tokens` bounds a batch; the larger it is, the more a batch gains
    from few long passes, and the less from one text that leaves first.

    >>> exit_early = DynamicExit(model, study.policy())  # doctest: +SKIP
    >>> exit_early(["Gold is heavy.", "Is it?"]).layers  # doctest: +SKIP
    array([2, 5])
    """

    def __init__(
        self,
        model: Model,
        policy: Policy,
        max_length: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        from probes.capture.capture import default_batch_tokens, padding_side_for
        from probes.capture.source import BatchPlan
        from probes.capture.tokens import TextEncoder

        self.model, self.policy = model, policy
        self._encoder = TextEncoder(model.require_tokenizer(), max_length or model.max_length)
        tokens = batch_tokens or default_batch_tokens(model)
        self._plan = BatchPlan(tokens, padding_side_for(model, None))
        self._passes = LeavingPass(model, policy.layers)

    def __call__(self, texts: Sequence[str]) -> Exits:
        """Answers and layers of all texts, in their order."""
        from probes.capture.source import TextSource

        source = TextSource(texts, self._encoder, self.model.pad_id)
        layers = np.empty(len(texts), dtype=np.int64)
        answers: Array | None = None
        for batch in source.load(0, len(texts), self._plan):
            done = self._batch(batch)
            if answers is None:
                answers = np.empty((len(texts), done.answers.shape[1]), done.answers.dtype)
            answers[batch.rows], layers[batch.rows] = done.answers, done.layers
        assert answers is not None  # no texts have been refused
        return Exits(answers, layers)

    def _batch(self, batch: Batch) -> Exits:
        ahead = isinstance(self.policy.rule, LayerGate)
        visit = (_Ahead if ahead else _Watch)(self.policy, batch)
        self._passes(batch.inputs["input_ids"], batch.inputs["attention_mask"], visit)
        assert visit.answers is not None
        return Exits(visit.answers, visit.layers)


class _Visit:
    """What happens at the exits of one batch."""

    def __init__(self, policy: Policy, batch: Batch) -> None:
        assert batch.keep is not None
        self.policy, self.keep = policy, batch.keep
        self.layers: IntArray = np.empty(len(batch.rows), dtype=np.int64)
        self.answers: Array | None = None

    def pool(self, states: torch.Tensor, rows: IntArray) -> Array:
        import torch

        from probes.capture.pooling import Pooler

        keep = self.keep[torch.from_numpy(rows)].to(states.device)
        return Pooler(self.policy.pooling, keep)(states).cpu().numpy()

    def put(self, layer: int, answers: Array, rows: IntArray) -> None:
        """`rows` leave at `layer` with these answers."""
        if self.answers is None:
            self.answers = np.empty((len(self.layers), answers.shape[1]), answers.dtype)
        self.answers[rows], self.layers[rows] = answers, layer


class _Watch(_Visit):
    """Looks at every exit and lets go what is sure there."""

    def __init__(self, policy: Policy, batch: Batch) -> None:
        super().__init__(policy, batch)
        self.look: Look | None = None

    def __call__(self, layer: int, states: torch.Tensor, rows: IntArray) -> BoolArray:
        policy = self.policy
        pooled = self.pool(states, rows)
        answers = policy.heads.answers(layer, pooled)
        if layer == policy.layers[-1] or policy.rule is None:
            self.put(layer, answers, rows)
            return np.ones(len(rows), dtype=bool)
        top = policy.heads.top(answers) if policy.rule.needs_top else None
        look = Look.at(layer, pooled, answers, top, self.look)
        leaves = policy.rule(look) >= policy.threshold
        self.put(layer, answers[leaves], rows[leaves])
        self.look = look.take(~leaves) if leaves.any() else look
        return leaves


class _Ahead(_Visit):
    """Knows after the first exit where every row leaves, and looks at no other row on the way."""

    def __init__(self, policy: Policy, batch: Batch) -> None:
        super().__init__(policy, batch)
        self.goal: IntArray | None = None  # the layer of every row

    def __call__(self, layer: int, states: torch.Tensor, rows: IntArray) -> BoolArray:
        import torch

        policy = self.policy
        if self.goal is None:
            assert isinstance(policy.rule, LayerGate)
            confidence = policy.rule.all_exits(self.pool(states, rows))
            self.goal = np.asarray(policy.layers)[exit_places(confidence, policy.threshold)]
        leaves = self.goal[rows] == layer
        if leaves.any():
            mine = states[torch.from_numpy(leaves).to(states.device)]
            answers = policy.heads.answers(layer, self.pool(mine, rows[leaves]))
            self.put(layer, answers, rows[leaves])
        return leaves


def measure_policies(
    model: Model,
    policies: Mapping[str, Policy],
    texts: Sequence[str],
    plan: LatencyPlan | None = None,
    max_length: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Time per text of every policy beside the full model's, taken in turns on the same texts, tokenising included.

    Columns: policy, depth (mean blocks run), latency_p50_ms, latency_p95_ms, relative_cost (time of all rounds over the
    full model's: a median would hide the texts that stop late), low, high (its 95 % interval, resampling rounds),
    rounds, batch_size. The last row is `full`: the heads of the first policy at the last layer.
    """
    plan = plan or LatencyPlan()
    if not texts or not policies:
        raise InputError("no texts or no policies came to measure time on: at least one is needed")
    first = next(iter(policies.values()))
    every = {**policies, FULL: first.static(model.n_layers)}
    depths: dict[int, list[float]] = {}

    def timed(number: int, policy: Policy) -> Callable[[Sequence[str]], None]:
        runs = DynamicExit(model, policy, max_length)

        def call(batch: Sequence[str]) -> None:
            depths.setdefault(number, []).extend(runs(batch).layers.tolist())

        return call

    calls = {number: timed(number, policy) for number, policy in enumerate(every.values())}
    order = np.random.default_rng(plan.seed).permutation(len(texts))

    def batch(number: int) -> list[str]:
        places = (number * plan.batch_size + np.arange(plan.batch_size)) % len(texts)
        return [str(texts[i]) for i in order[places].tolist()]

    found = run_rounds(calls, batch, plan, progress)
    resamples = Resamples.make(len(found.times), _DRAWS, plan.seed)
    drawn = resamples.means(found.times.T)
    low, high = percentile_interval(drawn / drawn[-1], axis=1)
    cost = found.times.mean(axis=0) / found.times[:, -1].mean()
    table = found.table().drop(columns="layer")
    table.insert(0, "policy", list(every))
    table.insert(1, "depth", [float(np.mean(depths[number])) for number in calls])
    return table.assign(relative_cost=cost, low=low, high=high)
