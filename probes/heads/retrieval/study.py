"""Retrieval scores of a whole model: trials run one by one until the leading heads no longer change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from probes.errors import InputError
from probes.heads.retrieval.haystack import Haystack, haystack_ids
from probes.heads.retrieval.needles import Needle
from probes.heads.retrieval.plan import DEPTHS, LENGTHS, PlannedTrial, plan_trials
from probes.heads.retrieval.running import RunningScores
from probes.heads.retrieval.scores import MODES, Mode, check_retrieval, measure_trial
from probes.heads.retrieval.summary import agreed_notes, needle_notes, not_answered
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.models import Model

Progress = Callable[[int, int], None]


@dataclass
class Trials:
    """Planned trials and what they are run with; `running` takes their scores, and those it holds are not run again."""

    model: Model
    text: Haystack
    planned: Sequence[PlannedTrial]
    running: RunningScores
    mode: Mode = "forced"
    extras: bool = True
    chat: bool | str = "auto"
    notes: list[str] = field(default_factory=list[str])  # what was left out and why, each once

    def __call__(self, early_stop: bool) -> Iterator[int]:
        """Runs them, and gives how many are done after each; with `early_stop` until the ranking is stable."""
        for done, each in enumerate(self.planned, 1):
            if each.index not in self.running:
                trial = each.build(self.model, self.text, self.chat)
                result = measure_trial(self.model, trial, self.mode, self.extras)
                self.running.add(each.index, trial, result, self.mode)
                self._tell(f"no {name}: {why}" for name, why in result.why.items())
            yield done
            if early_stop and self.running.stable():
                self._tell(
                    [
                        f"stopped after {done} of {len(self.planned)} trials: the best heads no longer change"
                    ]
                )
                return

    def _tell(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]


def retrieval_scores(
    model: Model,
    trials: int = 50,
    *,
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    haystack: Sequence[str] | None = None,
    needles: Sequence[Needle] | None = None,
    distractors: int = 0,
    mode: Mode = "forced",
    extras: bool = True,
    early_stop: bool = True,
    chat: bool | str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    resume: RunningScores | None = None,
) -> pd.DataFrame:
    """How much each attention head retrieves: a tidy table of all heads (site "z", block, head).

    Measures `retrieval_score` (mean over the trials answered verbatim), `query_mass` and `copy_contribution` (over
    all trials; left out without `extras`), with intervals by t over needles; an encoder has `query_mass` only. See
    `measure_trial`, `plan_trials` and `build_trial` for the options. With `early_stop` it ends when the top 20 heads
    have overlapped by 0.95 with those five answered trials before, three times in a row and after 20 at least.
    `progress(done, total)` is told of each trial; `resume` holds trials that are not run again.

    `attrs`: "trials", "head_trials" and "running" (frames), "notes" (what was left out and why).
    Raises `DoesNotApply` for models without attention heads or language-model head, `InputError` for options.

    >>> def retrieves(model):  # a decoder; its heads with a score of 0.1 or more
    ...     table = retrieval_scores(model, trials=20, lengths=(500,))
    ...     return table[(table["measure"] == "retrieval_score") & (table["value"] >= 0.1)]
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r}: 'forced' or 'decode' are allowed")
    check_retrieval(model)
    planned = plan_trials(lengths, depths, trials, seed, needles, distractors)
    running = RunningScores() if resume is None else resume
    text = haystack_ids(model, haystack, seed)
    run = Trials(model, text, planned, running, mode, extras, chat)
    for done in run(early_stop):
        if progress is not None:
            progress(done, len(planned))
    notes = dict.fromkeys(run.notes)
    if model.is_causal and not running.answered:
        notes[f"no retrieval_score: {model.name} {not_answered(running)}"] = None
    summary = running.summary_rows(seed=seed)
    notes.update(dict.fromkeys(needle_notes(running) or agreed_notes(summary)))
    frame = tidy([*running.rows(seed=seed), *summary])
    table, heads = running.frames()
    frame.attrs.update(
        trials=table,
        head_trials=heads,
        running=running.running(),
        notes=list(notes),
        interval="t over needles",
    )
    return frame
