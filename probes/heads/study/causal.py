"""The parts `ablation`, `single` and `low-rank`: what the model finds without its best heads, against random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.errors import DoesNotApply
from probes.heads.ablation import (
    CheckOptions,
    all_heads,
    causal_check,
    effect_agreement,
    mean_outputs,
    single_head_effects,
    spared,
)
from probes.heads.ablation.measures import ABLATION_AGREEMENT
from probes.heads.study.asking import questions, short_questions, windows
from probes.heads.study.grid import GRID_HEADS, needle_grid
from probes.heads.weights import low_rank_curve

if TYPE_CHECKING:
    from probes.heads.study.study import HeadId, Study

FEWEST_SETS = 3


def ablation(study: Study) -> None:
    """tables/ablation and ablation_grid: the best k heads taken out, against as many random ones.

    Judged by trials that did not rank the heads: other contexts and, of eight needles or more, the other half of them.
    """
    plan = study.plan.ablations
    ranking = study.ranking
    asked = questions(study, plan.trials)
    judge = asked.judge()
    whole = judge(study.model)
    if not np.any(whole["needle_accuracy"]):
        raise DoesNotApply(
            f"{study.model.name} answered none of {judge.n} fresh trials: there is nothing to lose"
        )
    if plan.random_sets < FEWEST_SETS:
        study.tell(
            [
                f"{plan.random_sets} random sets: no intervals of random heads, which need {FEWEST_SETS}"
            ]
        )
    options = CheckOptions(plan.modes, plan.random_sets, seed=study.plan.seed)
    means = mean_outputs(study.model, windows(study)) if "mean" in plan.modes else None
    table = causal_check(
        study.model,
        judge,
        ranking,
        plan.ks,
        options,
        means=means,
        progress=study.report("ablation"),
    )
    study.tell(table.attrs["notes"])
    study.write("ablation", table)
    study.add(_tidy(table))
    needle_grid(study, asked, whole)


def _tidy(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The values of an ablation as tidy rows: variant null for the whole model, "zero=top10", "mean=random5"…."""
    rows: list[dict[str, Any]] = []
    for row in table.to_dict("records"):
        whole = row["target"] == "none"
        if whole and row["mode"] != table["mode"].iloc[0]:
            continue  # the whole model is the same in every mode
        variant = None if whole else f"{row['mode']}={row['target']}{row['k']}"
        kept = {
            name: None if row[name] is pd.NA else row[name]
            for name in ("measure", "value", "low", "high", "n", "seed")
        }
        rows.append({"variant": variant, **kept})
    return rows


def single(study: Study) -> None:
    """tables/single: heads taken out one by one; whether those that score high are those that matter.

    Judged by trials that did not rank the heads, as `ablation` is.
    """
    ranking = study.ranking
    plan = study.plan.ablations
    heads = chosen_heads(ranking, plan.single, study.plan.seed)
    asked = short_questions(study)
    table = single_head_effects(
        study.model,
        asked.judge(),
        heads,
        scores=ranking,
        seed=study.plan.seed,
        progress=study.report("heads one by one"),
    )
    study.write("single", table)
    for measure in ("answer_logprob", "control_logprob"):
        try:
            found = effect_agreement(table, measure, seed=study.plan.seed)
        except DoesNotApply as reason:
            study.tell([str(reason)])
            continue
        study.add(
            [
                {
                    "measure": ABLATION_AGREEMENT.name, "site": "z", "variant": measure, "value": found.value,
                    "low": found.low, "high": found.high, "n": found.n, "seed": found.seed,
                }
            ]
        )  # fmt: skip


def low_rank(study: Study) -> None:
    """tables/low_rank: how many directions of their circuits the best heads need, against random heads.

    Judged by trials that did not rank the heads, as `ablation` is.
    """
    ranking = study.ranking
    heads = list(ranking)[:GRID_HEADS]
    exclude, note = spared(
        ranking, all_heads(study.model), max(study.plan.ablations.ks), len(heads)
    )
    study.tell([note] if note else [])
    asked = short_questions(study)
    study.progress(0, None, "few directions")
    table = low_rank_curve(
        study.model,
        asked.judge(),
        heads,
        calibration=windows(study),
        ranks=ranks_to(study.model.d_head),
        exclude=exclude,
        seed=study.plan.seed,
    )
    study.tell(table.attrs.get("notes", ()))
    if table.empty:
        raise DoesNotApply(f"low rank in {study.model.name}: {'; '.join(table.attrs['notes'])}")
    study.write("low_rank", table)


def ranks_to(width: int | None) -> list[int] | None:
    """Powers of four below d_head, and d_head; None, for what `low_rank_curve` takes, where heads differ in it.

    >>> ranks_to(64), ranks_to(6)
    ([1, 4, 16, 64], [1, 4, 6])
    """
    if width is None:
        return None
    return [*(4**power for power in range(width.bit_length()) if 4**power < width), width]


def chosen_heads(ranking: dict[HeadId, float], n: int, seed: int) -> list[HeadId]:
    """The best n/2 heads, and as many drawn from the rest; all where there are no more.

    >>> chosen_heads({(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.0, (1, 1): 0.0}, 2, seed=0)[0]
    (0, 0)
    """
    heads = list(ranking)
    if n >= len(heads):
        return heads
    best = heads[: (n + 1) // 2]
    rest = heads[len(best) :]
    picks = np.random.default_rng(seed).choice(len(rest), size=n - len(best), replace=False)
    return best + [rest[pick] for pick in sorted(picks)]
