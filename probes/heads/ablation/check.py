"""Does ablating the best heads hurt more than ablating as many random ones? The top k of a ranking against controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.capture.progress import Report, progress_bar
from probes.errors import InputError
from probes.heads.ablation.edit import Means, ablate_heads, check_means
from probes.heads.ablation.judge import Array, IntArray, Judge
from probes.heads.ablation.matched import SCORED, MatchedHeads, matched_random_heads, spared
from probes.heads.ablation.paired import Bounds, difference_bounds, mean_bounds
from probes.heads.ablation.ranking import HeadId, Ranking, all_heads, check_heads, ranked
from probes.stats import check_confidence
from probes.tables import typed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probes.models import Model

KS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class CheckOptions:
    """How the check is made: by which `modes`, against how many random `draws`, with what `confidence`.

    Heads with any score above 0 are in no random set, nor is any of the largest k compared; where too few others are
    left, those of at least `scored` still are in none (see `spared`).
    """

    modes: tuple[str, ...] = ("zero", "mean")
    draws: int = 10
    confidence: float = 0.95
    scored: float = SCORED
    seed: int = 0

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.draws < 1 or not self.modes:
            raise InputError(
                f"{self.draws} random draws in {len(self.modes)} modes: at least one of each is needed"
            )


def causal_check(
    model: Model,
    judge: Judge,
    ranking: Ranking,
    ks: Sequence[int] = KS,
    options: CheckOptions | None = None,
    *,
    means: Means | None = None,
    progress: bool | Report = False,
) -> pd.DataFrame:
    """What the model does without the top k heads of `ranking`, against without k random ones and against whole.

    Parameters
    ----------
    judge : gives per-item values of one measure or more.
    ranking : head -> score, or heads, best first. ks : how many to ablate.
    means : block -> (heads, d_head), needed for the mode "mean"; see `mean_outputs`.

    Random heads come from the blocks of the top ones as far as possible, and are neither among the largest k compared
    nor of a score above 0 (of `options.scored` where too few are left, with a note). Each item meets one of the random
    sets, so that the control costs no more than the top heads. A k beyond the ranking, beyond half of the model's
    heads, or for which too few heads are left is passed over; `attrs["notes"]` says so.

    Returns one row per mode, target and k: `value` with low and high, its `difference` to the whole model and, for
    the top heads, `over_random` (top − random), all paired by item; k = 0 with target "none" is the whole model.
    Intervals of whatever has random sets in it take items of one set as one draw, so they speak of other sets too.
    Null where fewer than three items, groups or sets exist.

    Raises `InputError` for heads that do not exist and missing means.

    >>> def answers(model, judge, scores):  # table for the five best heads
    ...     table = causal_check(model, judge, scores, [5], CheckOptions(modes=("zero",)))
    ...     return table[["target", "value", "over_random", "over_random_low", "over_random_high"]]
    """
    options = options or CheckOptions()
    order = ranked(ranking)
    heads = all_heads(model)
    for mode in options.modes:
        check_means(model, check_heads(model, order), mode, means)
    sets, notes = _sets(heads, order, ranking, sorted(set(ks)), options)
    table = _Table(judge, options)
    with progress_bar(progress, 1 + 2 * len(sets) * len(options.modes), 0, "conditions") as advance:
        whole = judge(model)
        advance(1)
        for mode in options.modes:
            table.add_whole(mode, whole)
        for (
            k,
            control,
        ) in sets.items():  # modes of one k together: a judge may keep what does not change
            for mode in options.modes:
                top = _ablated(model, judge, order[:k], mode, means)
                advance(1)
                random = without_random(model, judge, control, options.seed, mode=mode, means=means)
                advance(1)
                table.add(_Found(mode, k, top, random), whole)
    frame = table.frame()
    frame.attrs["notes"] = notes
    return frame


def _sets(
    heads: Sequence[HeadId],
    order: Sequence[HeadId],
    ranking: Ranking,
    ks: Sequence[int],
    options: CheckOptions,
) -> tuple[dict[int, MatchedHeads], list[str]]:
    """Random sets for every k that can be compared, and notes on the rest."""
    notes: list[str] = []
    usable: list[int] = []
    for k in ks:
        if k < 1:
            raise InputError(f"k = {k}: whole numbers of heads from 1 are needed")
        if k > len(order):
            notes.append(f"k = {k} left out: the ranking has {len(order)} heads")
        elif 2 * k > len(heads):
            notes.append(f"k = {k} left out: more than half of the model's {len(heads)} heads")
        else:
            usable.append(k)
    scores: Mapping[HeadId, float] = {} if isinstance(ranking, Sequence) else ranking
    rng = np.random.default_rng(options.seed)
    out: set[HeadId] = set()
    note: str | None = None
    while usable:
        out, note = spared(ranking, heads, usable[-1], scored=options.scored)
        if len(heads) - len(out) >= usable[-1]:
            break
        notes.append(
            f"k = {usable[-1]} left out: only {len(heads) - len(out)} heads are neither compared nor of score "
            f"{options.scored:g} or more"
        )
        usable.pop()
    notes += [note] if usable and note else []
    found: dict[int, MatchedHeads] = {}
    for k in usable:
        found[k] = matched_random_heads(order[:k], heads, options.draws, rng, out)
        note = found[k].note()
        notes += [f"k = {k}: {note}"] if note else []
        idle = sum(1 for head in order[:k] if scores.get(head, 1.0) <= 0)
        notes += [f"k = {k} includes {idle} heads of score 0"] if idle else []
    return found, notes


def _ablated(
    model: Model, judge: Judge, heads: Sequence[HeadId], mode: str, means: Means | None
) -> dict[str, Array]:
    with ablate_heads(model, heads, mode, means):
        return judge(model)


def without_random(
    model: Model,
    judge: Judge,
    control: MatchedHeads,
    seed: int,
    *,
    mode: str = "zero",
    means: Means | None = None,
    set_of: IntArray | None = None,
) -> dict[str, Array]:
    """Values (n,) of each measure, each item without one of the random sets: that with the number `set_of` (n,), by
    default `draw_of(n, draws, seed)`."""
    found: dict[str, Array] = {}
    set_of = draw_of(judge.n, len(control.draws), seed) if set_of is None else set_of
    for number, heads in enumerate(control.draws):
        items = np.flatnonzero(set_of == number)
        if not len(items):
            continue
        with ablate_heads(model, heads, mode, means):
            for name, values in judge(model, items).items():
                found.setdefault(name, np.empty(judge.n))[items] = values
    return found


def draw_of(n: int, draws: int, seed: int) -> IntArray:
    """(n,) number of the random set that each item meets: each set as often, in an order of its own, since items may
    come in turns, such as one of each length.

    >>> np.bincount(draw_of(5, 3, seed=0)).tolist()
    [2, 2, 1]
    """
    return np.random.default_rng(seed).permutation(n) % draws


@dataclass(frozen=True)
class _Found:
    """Values (n,) by measure, of one mode and one k."""

    mode: str
    k: int
    top: dict[str, Array]
    random: dict[str, Array]


_INTEGERS = ("k", "n", "seed")
_WORDS = ("mode", "target", "measure")


@dataclass
class _Table:
    """Collects the rows of a check."""

    judge: Judge
    options: CheckOptions
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def set_of(self) -> IntArray:
        """(n,) number of the random set that each item meets."""
        return draw_of(self.judge.n, self.options.draws, self.options.seed)

    def add_whole(self, mode: str, whole: dict[str, Array]) -> None:
        for name, values in whole.items():
            made = mean_bounds(values, [self.judge.owners], self.options.confidence)
            self._row((mode, "none", 0, name), {"": made})

    def add(self, found: _Found, whole: dict[str, Array]) -> None:
        own, sure = [self.judge.owners], self.options.confidence
        both = [*own, self.set_of]
        if not found.top.keys() == found.random.keys() == whole.keys():
            raise InputError(
                "the judge answered other measures under ablation than for the whole model"
            )
        for name, plain in whole.items():
            top, random = found.top[name], found.random[name]
            numbers = {
                "": mean_bounds(top, own, sure),
                "difference": difference_bounds(top, plain, own, sure),
                "over_random": difference_bounds(top, random, both, sure),
            }
            self._row((found.mode, "top", found.k, name), numbers)
            numbers = {
                "": mean_bounds(random, both, sure),
                "difference": difference_bounds(random, plain, both, sure),
            }
            self._row((found.mode, "random", found.k, name), numbers)

    def _row(self, about: tuple[str, str, int, str], numbers: dict[str, Bounds]) -> None:
        row: dict[str, Any] = dict(zip(("mode", "target", "k", "measure"), about, strict=True))
        for name in ("", "difference", "over_random"):
            value, low, high = numbers.get(name, (None, None, None))
            prefix = f"{name}_" if name else ""
            row |= {name or "value": value, f"{prefix}low": low, f"{prefix}high": high}
        self.rows.append({**row, "n": self.judge.n, "seed": self.options.seed})

    def frame(self) -> pd.DataFrame:
        modes = self.options.modes
        rows = sorted(self.rows, key=lambda row: (modes.index(row["mode"]), row["k"]))
        frame = pd.DataFrame(rows, dtype=object)
        return typed(frame, integers=_INTEGERS, words=_WORDS)
