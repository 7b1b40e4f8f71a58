"""The whole study of retrieval heads, part after part; what does not apply leaves its reason, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.errors import DoesNotApply
from probes.heads.ablation.ranking import HeadId
from probes.heads.retrieval import (
    Haystack,
    Needle,
    PlannedTrial,
    RunningScores,
    builtin_needles,
    check_retrieval,
    haystack_ids,
    load_needles,
    plan_trials,
)
from probes.heads.retrieval.needles import FEWEST_TO_SPLIT, split_needles
from probes.heads.retrieval.passes import most_heads
from probes.heads.study.names import PARTS
from probes.heads.study.plan import HeadPlan
from probes.runs import Keep, Previous, Progress, do_parts
from probes.tables import tidy, typed

if TYPE_CHECKING:
    from probes.models import Model

JUDGING = ("ablation", "single", "low-rank")  # parts that judge the heads that others ranked
FRESH = 1_000_003  # added to the seed: contexts that the ranking has not seen
_INTEGERS = (
    "trial", "tokens", "distractors", "k", "n", "seed", "block", "head", "example", "position", "row",
    "query_position", "block_from", "head_from", "block_to", "head_to", "component", "rank",
)  # fmt: skip
_WORDS = (
    "needle", "mode", "expected", "emitted", "target", "measure", "variant", "token", "role", "kind", "circuit",
    "heads", "part", "reason",
)  # fmt: skip
_TRUTHS = ("applies", "stopped")
# What each part adds to the tidy table: a part that was done is not done again, and its rows are taken over.
_MEASURES = {
    "retrieval": (
        "retrieval_score", "query_mass", "copy_contribution", "answered_share", "retrieval_share",
        "retrieval_zero_share", "split_half_overlap", "split_half_spearman",
    ),
    "single": ("ablation_agreement",),
    "types": ("induction_score", "previous_token_score", "duplicate_token_score"),
    "shapes": (
        "attention_entropy", "sink_share", "attention_distance", "max_column_mass", "local_share",
    ),
    "ablation": ("needle_accuracy", "answer_logprob", "control_logprob"),
    "composition": ("composition", "copying_score"),
}  # fmt: skip


@dataclass
class Study:
    """A study under way: what it works on, and what later parts need of earlier ones."""

    model: Model
    texts: Sequence[str]
    plan: HeadPlan
    keep: Keep
    progress: Progress
    tables: dict[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])
    scores: RunningScores = field(default_factory=RunningScores)
    told: set[str] = field(default_factory=set[str])

    @cached_property
    def haystack(self) -> Haystack:
        """The text in the model's tokens."""
        return haystack_ids(self.model, self.texts, self.plan.seed)

    @cached_property
    def needles(self) -> tuple[Needle, ...]:
        path = self.plan.trials.needles.path
        return builtin_needles() if path is None else load_needles(path)

    @property
    def chat(self) -> bool | str:
        return {"yes": True, "no": False}.get(self.plan.trials.needles.chat, "auto")

    @cached_property
    def divided(self) -> tuple[tuple[Needle, ...], tuple[Needle, ...]]:
        """Needles that heads are ranked by, and those that they are judged by when they are ablated.

        Two halves, so that no head seems needed for having been chosen on the same needles. All needles twice where
        they are too few (`shared_needles` says so), or where nothing is judged.
        """
        every = self.needles
        if not self.model.is_causal or not self.plan.parts & set(JUDGING):
            return every, every
        halves = split_needles(every, self.plan.seed)
        several = self.plan.trials.needles.several
        if halves is None or min(map(len, halves)) < several:
            return every, every
        return halves

    @property
    def shared_needles(self) -> str | None:
        """What to say where heads are judged by the needles that they were ranked by; None where they are not."""
        ranked_by, judged_by = self.divided
        if not set(ranked_by) & set(judged_by):
            return None
        several = self.plan.trials.needles.several
        enough = max(FEWEST_TO_SPLIT, 2 * several)
        return (
            f"heads were ranked by the same {len(judged_by)} needles that they were then ablated on, in other "
            f"contexts: {enough} or more with different answers are divided between both"
        )

    def planned(self, trials: int) -> list[PlannedTrial]:
        """The trials that rank heads."""
        return self._planned(trials, self.plan.seed, self.divided[0])

    def judging(self, trials: int) -> list[PlannedTrial]:
        """Trials of the same kind that judge ablations: other contexts and, where there are enough, other needles."""
        return self._planned(trials, self.plan.seed + FRESH, self.divided[1])

    def _planned(self, trials: int, seed: int, needles: tuple[Needle, ...]) -> list[PlannedTrial]:
        plan = self.plan.trials
        several, distractors = plan.needles.several, plan.needles.distractors
        return plan_trials(
            plan.lengths, plan.depths, trials, seed, needles, distractors, several, self.needles
        )

    @property
    def ranking(self) -> dict[HeadId, float]:
        """Every head's score, best first, equal ones by attention from the question, then in the model's order.

        Every part takes the heads in this order. Raises `DoesNotApply` where none was measured.
        """
        check_retrieval(self.model)
        if not self.model.is_causal:
            raise DoesNotApply(
                f"{self.model.name} is an encoder: it says no answer, so that there is none to lose without some heads"
            )
        if not len(self.scores):
            raise DoesNotApply(
                "no trial was run, so that heads have no ranking: the part retrieval is needed"
            )
        if not self.scores.answered:
            raise DoesNotApply(
                "no trial was answered verbatim, so that heads have no ranking: see the part retrieval"
            )
        return self.scores.order()

    def add(self, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> None:
        """Tidy rows, from dictionaries or from a table that is tidy already."""
        if isinstance(rows, pd.DataFrame):
            self.keep.add(rows)
            return
        found = [dict(row) for row in rows]
        if found:
            self.keep.add(tidy(found))

    def write(self, name: str, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> None:
        """Write a table down: missing numbers are null, and NaN is refused."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), dtype=object)
        if "answered" in frame.columns:  # an encoder answers nothing: null
            answered: Any = frame["answered"]
            frame = frame.assign(answered=answered.astype("boolean").astype("Float64"))
        made = typed(frame, integers=_INTEGERS, words=_WORDS, truths=_TRUTHS)
        if "answered" in made.columns:
            made["answered"] = made["answered"].astype("boolean")
        self.tables[name] = made
        self.keep.write_table(name, made)

    def tell(self, notes: Iterable[str]) -> None:
        """Write down what a reader must know, each thing once."""
        for note in dict.fromkeys(notes):
            if note not in self.told:
                self.told.add(note)
                self.keep.note(note)

    def report(self, text: str) -> Callable[[int, int], None]:
        """A function (done, total) that says how far a part is."""
        return lambda done, total: self.progress(done, total, text)


def study_heads(
    model: Model,
    texts: Sequence[str],
    plan: HeadPlan,
    keep: Keep,
    progress: Progress = lambda done, total, text: None,
    *,
    previous: Previous | None = None,
) -> Study:
    """Measure which heads of `model` retrieve, whether it needs them, and what they are, and write all to `keep`.

    `texts` hide the needles. Every part writes its tables when it is done, the part `retrieval` also while it runs;
    a part that does not apply (no attention heads, no language-model head, nothing answered) leaves its reason in the
    table `applies`. What `previous` holds is taken over.
    """
    from probes.heads.study.parts import PART_FUNCTIONS

    study = Study(model, texts, plan, keep, progress)
    done: dict[str, dict[str, Any]] = {}
    if previous is not None:
        done = previous.done
        study.tables.update(previous.tables)
        rows = previous.rows_of(name for part in done for name in _MEASURES.get(part, ()))
        if len(rows):
            keep.add(rows)
        if "trials" in previous.tables and "head_trials" in previous.tables:
            study.scores = RunningScores.from_frames(
                previous.tables["trials"],
                previous.tables["head_trials"],
                (model.n_layers, most_heads(model)),
            )
    do_parts(
        [name for name in PARTS if name in plan.parts],
        done,
        lambda name: PART_FUNCTIONS[name](study),
        lambda outcomes: study.write("applies", outcomes),
        progress,
    )
    return study
