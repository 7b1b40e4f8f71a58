"""Which trials to run: lengths crossed with depths, needles dealt in turn, haystacks from different places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.errors import InputError
from probes.heads.retrieval.haystack import Haystack
from probes.heads.retrieval.needles import Needle, builtin_needles, distractors_for
from probes.heads.retrieval.trials import Placed, Trial, build_trial

if TYPE_CHECKING:
    from probes.models import Model

LENGTHS = (500, 1000)
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
_FAR = 1 << 40  # a place in the haystack, taken modulo its length


@dataclass(frozen=True)
class PlannedTrial:
    """What trial number `index` will be; `build` makes it for a model."""

    index: int
    needle: Needle
    tokens: int
    depth: float
    others: tuple[Placed, ...]
    start: int

    def build(self, model: Model, haystack: Haystack, chat: bool | str = "auto") -> Trial:
        """The trial in the model's tokens; raises as `build_trial` does."""
        return build_trial(
            model, self.needle, haystack, self.tokens, self.depth, self.others, chat, self.start
        )


def plan_trials(
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    trials: int = 50,
    seed: int = 0,
    needles: Sequence[Needle] | None = None,
    distractors: int = 0,
    several: int = 1,
    others: Sequence[Needle] | None = None,
) -> list[PlannedTrial]:
    """`trials` trials over all lengths and depths in turn; the first n of a longer plan are the plan of n.

    Every length meets every depth once before one comes again; needles are dealt likewise, in a seeded order.
    `distractors` sentences of the same form with other subjects and answers stand at random depths. With `several`
    > 1 that many needles share one context and each is asked for in a trial of its own, one after the other.
    Distractors are taken from `others`, or from `needles` themselves.

    Raises `InputError` for empty or impossible grids.

    >>> [(trial.tokens, trial.depth) for trial in plan_trials((500,), (0.2, 0.8), trials=3)]
    [(500, 0.8), (500, 0.2), (500, 0.8)]
    """
    known = tuple(builtin_needles() if needles is None else needles)
    pool = known if others is None else tuple(others)
    _check(lengths, depths, trials, several, len(known))
    grid = [(int(length), float(depth)) for depth in depths for length in lengths]
    planned: list[PlannedTrial] = []
    context = 0
    while len(planned) < trials:
        rng = np.random.default_rng([seed, context, 1])
        tokens, depth = grid[_dealt(seed, 2, context, len(grid))]
        asked = [known[_dealt(seed, 3, context * several + i, len(known))] for i in range(several)]
        asked = _different(asked, known)
        near = distractors_for(asked[0], [n for n in pool if n not in asked[1:]], distractors)
        placed = [
            Placed(asked[0], depth),
            *(Placed(other, float(rng.uniform(0.02, 0.98))) for other in (*asked[1:], *near)),
        ]
        start = int(rng.integers(_FAR))
        for i in range(min(several, trials - len(planned))):
            beside = (*placed[:i], *placed[i + 1 :])
            planned.append(
                PlannedTrial(len(planned), placed[i].needle, tokens, placed[i].depth, beside, start)
            )
        context += 1
    return planned


def _check(
    lengths: Sequence[int], depths: Sequence[float], trials: int, several: int, needles: int
) -> None:
    if not lengths or min(lengths) < 1:
        raise InputError(f"lengths {list(lengths)}: at least one, each of 1 token or more")
    if not depths or min(depths) < 0 or max(depths) > 1:
        raise InputError(f"depths {list(depths)}: at least one, each from 0 to 1")
    if trials < 1:
        raise InputError(f"{trials} trials: at least 1 is needed")
    if not 1 <= several <= needles:
        raise InputError(f"{several} needles in a context: 1 to {needles} are allowed")


def _dealt(seed: int, stream: int, number: int, n: int) -> int:
    """Item `number` of endless shuffled rounds over n things."""
    turn, place = divmod(number, n)
    return int(np.random.default_rng([seed, turn, stream]).permutation(n)[place])


def _different(asked: Sequence[Needle], known: Sequence[Needle]) -> list[Needle]:
    """`asked`, with what came twice (at the seam of two rounds) replaced by the next that did not come."""
    found: list[Needle] = []
    for needle in asked:
        found.append(next(n for n in (needle, *known) if n not in found))
    return found
