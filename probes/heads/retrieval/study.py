"""Retrieval scores of a whole model: trials run one by one until the leading heads no longer change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from probes.errors import InputError
from probes.heads.retrieval.haystack import haystack_ids
from probes.heads.retrieval.needles import Needle
from probes.heads.retrieval.plan import DEPTHS, LENGTHS, plan_trials
from probes.heads.retrieval.running import RunningScores
from probes.heads.retrieval.scores import MODES, Mode, check_retrieval, measure_trial
from probes.heads.retrieval.summary import agreed_notes, needle_notes, not_answered
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.models import Model

Progress = Callable[[int, int], None]


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
    notes: dict[str, None] = {}
    for done, each in enumerate(planned):
        if each.index not in running:
            trial = each.build(model, text, chat)
            result = measure_trial(model, trial, mode, extras)
            running.add(each.index, trial, result, mode)
            notes.update(dict.fromkeys(f"no {name}: {why}" for name, why in result.why.items()))
        if progress is not None:
            progress(done + 1, len(planned))
        if early_stop and running.stable():
            notes[
                f"stopped after {done + 1} of {len(planned)} trials: the top heads no longer change"
            ] = None
            break
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
