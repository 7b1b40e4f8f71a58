"""What a search for retrieval heads found, in plain words and one table: how many, how sure, and are they needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probes.report.collapse_study import excludes_zero, records
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.figures.head_ablation import measure_words
from probes.report.figures.head_composition import kind_words, whole_pairs
from probes.report.figures.head_types import CONTROL
from probes.report.frames import column
from probes.report.head_list import effects, head_table
from probes.report.head_tables import (
    RETRIEVAL,
    THRESHOLD,
    head_name,
    head_rows,
    is_heads,
    ranking,
    run_number,
    values_of,
)
from probes.report.heads_needed import (
    ablations,
    hurts,
    needed,
    over_random,
    spared,
    strongest,
)
from probes.report.text import count, interval, is_number, number, percent
from probes.report.verdict import Verdict, conclusion, not_measured, unfinished

Row = dict[str, Any]
NOT_MEASURED = "Which heads retrieve was not measured"


@conclusion("heads")
def heads_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the ranked table of heads; None for a run of another analysis."""
    if not is_heads(data):
        return None
    table = head_table(data)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    told = [words for tell in _TOLD if (words := tell(data))]
    return Verdict("found", headline(data), (*told, *not_measured(data)), table)


def headline(data: RunData) -> str:
    """How many heads score as retrieval heads, and whether ablating the best hurts more than random ones."""
    heads = ranking(data)
    if not heads:
        return _looking(data)
    found = sum(row["value"] >= THRESHOLD for row in heads)
    if not found:
        return f"No head is a retrieval head here: none of {count(len(heads))} scores {THRESHOLD} or more"
    share = _share(data, "retrieval_share", found / len(heads))
    sure = f" ({share})" if share.endswith("]") else ""
    verb = "scores" if found == 1 else "score"
    some = f"{count(found)} of {count(len(heads))} heads{sure} {verb} as retrieval heads"
    row = strongest(data)
    if row is None:
        return some
    best = f"ablating the best {count(row['k'])}"
    size = f"{over_random(row)} {measure_words(row['measure'])}"
    if not is_number(row["over_random_low"]):
        return f"{some}; whether {best} hurts more than random heads cannot be told: too few trials or random sets"
    if hurts(row):
        return f"{some}, and {best} hurts more than random heads: {size}"
    other = next(
        (r for r in ablations(data, row["mode"]) if r["measure"] == "answer_logprob"), None
    )
    if other is not None and row["measure"] != "answer_logprob" and hurts(other):
        less = f"{over_random(other)} {measure_words('answer_logprob')}"
        return f"{some}; {best} makes answers less likely than random heads do ({less}), not shown wrong ({size})"
    return f"{some}, but {best} is not shown to hurt more than random heads: {size}"


def _looking(data: RunData) -> str:
    """What an encoder has in place of retrieval: attention from the question."""
    rows = ranking(data, "query_mass")
    if not rows:
        return NOT_MEASURED
    best = rows[0]
    size = f"{number(best['value'])} {interval(best['low'], best['high'])}".strip()
    return (
        f"Head {head_name(best['block'], best['head'])} looks most from the question at the fact: {size} of its "
        "attention, beyond that of an empty question"
    )


def _share(data: RunData, measure: str, value: float, digits: int = 1) -> str:
    """A share in per cent with the interval that the run states, where it does."""
    stated = run_number(data, measure)
    span = "" if stated is None else interval(100 * stated["low"], 100 * stated["high"], digits)
    return f"{percent(value, digits)} {span}".strip()


def _sparse(data: RunData) -> str:
    heads = ranking(data)
    if not heads:
        return ""
    values = np.array([row["value"] for row in heads])
    parts = []
    for measure, words, value in (
        ("retrieval_share", f"score {THRESHOLD} or more", float((values >= THRESHOLD).mean())),
        ("retrieval_zero_share", "score exactly 0", float((values == 0).mean())),
    ):
        share, _, span = _share(data, measure, value).partition(" [")
        parts.append(f"{share} of heads {words}" + (f" [{span}" if span else ""))
    best = heads[0]
    name = head_name(best["block"], best["head"])
    size = f"{number(best['value'])} {interval(best['low'], best['high'])}".strip()
    sure = sum(is_number(row["low"]) and row["low"] >= THRESHOLD for row in heads)
    shown = f"; the whole interval lies at {THRESHOLD} or more for {count(sure)} heads"
    return f"{listed(parts)}{shown}; the highest is head {name} with {size}."


def _answered(data: RunData) -> str:
    row = run_number(data, "answered_share")
    if row is None:
        return ""
    told = f"The model answers {_share(data, 'answered_share', row['value'], 0)} of {count(row['n'])} trials"
    if row["value"] == 0:
        return f"{told}: no head has a retrieval score."
    if row["value"] < 0.5:
        return f"{told}; scores are means over those alone, and of few trials."
    return f"{told}; scores are means over those."


def _stable(data: RunData) -> str:
    half, order = run_number(data, "split_half_overlap"), run_number(data, "split_half_spearman")
    told: list[str] = []
    if half is not None:
        span = interval(half["low"], half["high"], 2)
        told.append(f"share {percent(half['value'], 0)} of their best 20 heads {span}".strip())
    if order is not None:
        span = interval(order["low"], order["high"], 2)
        told.append(
            f"order all heads alike with {number(order['value'], 2)} (rank correlation) {span}".strip()
        )
    if not told:
        return ""
    shaky = half is not None and half["value"] < 0.7
    more = "; more trials may name other heads" if shaky else ""
    return f"Odd and even trials {' and '.join(told)}{more}."


def _single(data: RunData) -> str:
    """Whether heads that score high matter more one by one, of how many heads, and whether plain text says the same."""
    row = run_number(data, "ablation_agreement", "answer_logprob")
    if row is None or row["variant"] not in ("", "answer_logprob"):
        return ""
    size = (
        f"rank correlation {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}".strip()
    )
    size += _asked(data)
    other = run_number(data, "ablation_agreement", "control_logprob")
    beside = ""
    if other is not None and other["variant"] == "control_logprob":
        span = interval(other["low"], other["high"], 2)
        beside = f"; with plain text, {number(other['value'], 2)} {span}".rstrip()
        if excludes_zero(other["low"], other["high"]) and other["value"] * row["value"] > 0:
            beside += ": such heads matter so for text that needs no retrieval too"
    if not excludes_zero(row["low"], row["high"]):
        return f"One head at a time, the score is not shown to say which head matters ({size}{beside})."
    word = "more" if row["value"] > 0 else "less"
    return f"One head at a time, heads with a higher score matter {word} ({size}{beside})."


def _asked(data: RunData) -> str:
    """Which heads were ablated one by one, and on how many trials."""
    single, heads = effects(data), ranking(data)
    if not single:
        return ""
    best = {(int(row["block"]), int(row["head"])) for row in heads[: (len(single) + 1) // 2]}
    chosen = ", half of them chosen for a high score" if best and best <= single.keys() else ""
    chosen = "" if len(single) >= len(heads) else chosen
    trials = min((row["n"] for row in single.values() if is_number(row["n"])), default=None)
    judged = "" if trials is None else f", each by {count(trials)} trials"
    return f" over {count(len(single))} heads{chosen}{judged}"


def _types(data: RunData) -> str:
    rows = ranking(data, "induction_score") if is_heads(data) else []
    if not rows:
        return ""
    best = rows[0]
    head = int(best["block"]), int(best["head"])
    control = values_of(head_rows(data, "induction_score", CONTROL)).get(head)
    beside = "" if control is None else f", {number(control['value'])} where nothing repeats"
    told = f"The best induction head is {head_name(*head)} ({number(best['value'])}{beside})"
    own = values_of(head_rows(data, RETRIEVAL)).get(head)
    if own is None:
        return f"{told}."
    also = "also a retrieval head" if own["value"] >= THRESHOLD else "not a retrieval head"
    return f"{told}; it is {also} ({number(own['value'])})."


def _composition(data: RunData) -> str:
    rows = whole_pairs(data)
    if rows is None:
        return ""
    best = records(rows.iloc[[int(np.argmax(column(rows, "excess")))]])[0]
    pair = f"{head_name(best['block_from'], best['head_from'])} → {head_name(best['block_to'], best['head_to'])}"
    most = best["floor_max_high"]
    size = f"{number(best['value'])}, random matrices {number(best['floor'])}"
    if not is_number(most):
        most_of = f"the strongest of {count(len(rows))} is {pair} ({size})"
        return f"No pair of heads can be named: {most_of}, which may be chance."
    size = f"{size}, the highest of all pairs by chance {number(most)}"
    if not best["value"] > most:
        return f"No pair of heads is shown to compose; the strongest of {count(len(rows))}: {pair}, {size}."
    some = int((column(rows, "excess") > 0).sum())
    told = f"{count(some)} of {count(len(rows))} pairs of heads compose more than chance allows for any of them"
    return f"{told}, most of all {pair} through {kind_words(best['kind'])}: {size}."


_TOLD = (_sparse, _answered, _stable, needed, spared, _single, _types, _composition)
