"""What sparse autoencoders found, in plain words and one table: what they explain, and which features can be read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.figures.sae_looks import said
from probes.report.sae_list import feature_table
from probes.report.sae_study import circuits, codes, concepts, effects, probing, readable
from probes.report.sae_tables import (
    BASELINES,
    Coder,
    beside,
    coder_of,
    coders,
    is_sae,
    models,
    saes_of,
)
from probes.report.text import clean, count, interval, is_number, number, percent
from probes.report.verdict import Verdict, conclusion, not_measured, unfinished

Row = dict[str, Any]
MUST_BEAT = ("pca", "random", "neurons")  # what the headline sets beside the autoencoder
NOT_MEASURED = "What the autoencoder explains was not measured"


@conclusion("sae")
def sae_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the table of features to read; None for a run of another analysis."""
    if not is_sae(data):
        return None
    table = feature_table(data)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    told = [words for tell in _TOLD if (words := tell(data))]
    return Verdict("found", headline(data), (*told, *not_measured(data)), table)


def main_coder(data: RunData) -> Coder | None:
    """The numbers of the main autoencoder; of the first that has some where the main one has none."""
    held = (coder_of(data, name) for name in saes_of(data))
    return next((coder for coder in held if coder is not None and coder.numbers), None)


def headline(data: RunData) -> str:
    """What share of the variance is explained and of the loss recovered with how many active features, against what it
    must beat."""
    main = main_coder(data)
    if main is None:
        return NOT_MEASURED
    told = {
        measure: f"{_size(main, measure)}{of}{_against(data, main, measure)}"
        for measure, of in (
            ("explained_variance", f" of the variance of {main.place}"),
            ("loss_recovered", ""),
        )
        if main.value(measure) is not None
    }
    parts = [
        f"{verb} {told[measure]}"
        for measure, verb in (
            ("explained_variance", "explains"),
            ("loss_recovered", "has a loss recovered of"),
        )
        if measure in told
    ]
    return f"{_name(data, main)} {' and '.join(parts)}" if parts else NOT_MEASURED


def _name(data: RunData, main: Coder) -> str:
    """The autoencoder in a sentence, with how many of its features are active."""
    sae = next((name for name in saes_of(data) if coder_of(data, name) == main), "")
    total = models(data).get(sae, {}).get("n_features")
    active = main.active
    if active is None:
        return f"The autoencoder {clean(main.variant, 40)}"
    shown = number(active, 0 if float(active).is_integer() else 1)
    of = f" of {count(total)}" if is_number(total) else ""
    return f"With {shown}{of} features active, {said(main.kind)}"


def _size(coder: Coder, measure: str) -> str:
    row = coder.numbers[measure]
    return f"{percent(row['value'])} {interval(100 * row['low'], 100 * row['high'], 1)}".strip()


def _against(data: RunData, main: Coder, measure: str) -> str:
    """PCA, random weights and neurons beside the autoencoder: whether they keep less, more, or cannot be told apart."""
    parts: list[str] = []
    more: list[str] = []
    unsure: list[str] = []
    own = main.numbers[measure]
    for kind in MUST_BEAT:
        other = beside(data, main, kind)
        if other is None or other.value(measure) is None:
            continue
        parts.append(f"{said(kind)} {percent(other.value(measure))}")
        if clearly_above(other.numbers[measure], own):
            more.append(said(kind))
        elif not clearly_above(own, other.numbers[measure]):
            unsure.append(said(kind))
    if not parts:
        return " (no baseline was measured)"
    less = f"; less than {listed(more)}" if more else ""
    doubt = f"; not shown to be more than {listed(unsure)}" if unsure else ""
    return f" ({', '.join(parts)}{less}{doubt})"


def clearly_above(row: Row, other: Row) -> bool:
    """Whether one interval lies above the other; numbers without intervals show nothing."""
    return is_number(row["low"]) and is_number(other["high"]) and row["low"] > other["high"]


def _loss(data: RunData) -> str:
    """The loss itself, from the untouched model to the mean state."""
    main = main_coder(data)
    if main is None or main.value("cross_entropy") is None:
        return ""
    ends = {c.variant: c for c in _all_at(data, main)}
    parts = [
        f"{number(c.value('cross_entropy'), 2)} {words}"
        for name, words in (("clean", "untouched"), (main.variant, "with reconstructed states"),
                            ("mean", "with the mean state"), ("zero", "with none"))
        if (c := ends.get(name)) is not None and c.value("cross_entropy") is not None
    ]  # fmt: skip
    if len(parts) < 2:
        return ""
    costless = main.value("loss_recovered") is None and "mean" in ends
    why = (
        ". The mean in place of every state is not shown to cost anything, so that there is no share to be kept"
        if costless
        else ""
    )
    share = (
        ". Loss recovered: the share of what the mean state costs that reconstructed states spare"
        if main.value("loss_recovered") is not None
        else ""
    )
    return f"Loss in nats per token: {', '.join(parts)}{why}{share}."


def _all_at(data: RunData, main: Coder) -> list[Coder]:
    return [c for c in coders(data) if c.place == main.place]


def _other_baselines(data: RunData) -> str:
    """Baselines that the headline leaves out."""
    main = main_coder(data)
    if main is None or main.value("explained_variance") is None:
        return ""
    parts = [
        f"{said(kind)} {percent(other.value('explained_variance'))}"
        for kind in BASELINES
        if kind not in MUST_BEAT
        and (other := beside(data, main, kind)) is not None
        and other.value("explained_variance") is not None
    ]
    return (
        f"Variance explained by other baselines of the same size: {', '.join(parts)}."
        if parts
        else ""
    )


def _dead(data: RunData) -> str:
    """Features that never fire, and the number that foretells them."""
    main = main_coder(data)
    if main is None or main.value("dead_share") is None:
        return ""
    told = f"{percent(main.value('dead_share'))} of its features never fire on held-out states"
    ratio = main.value("norm_ratio")
    more = (
        ""
        if ratio is None
        else f"; length of the mean over spread of the states (‖μ‖/‖σ‖): {number(ratio, 2)}"
    )
    return f"{told}{more}."


def _sizes(data: RunData) -> str:
    """The other autoencoders of the run in one sentence."""
    main = main_coder(data)
    parts: list[str] = []
    for name in saes_of(data):
        coder = coder_of(data, name)
        if coder is None or coder == main or coder.value("explained_variance") is None:
            continue
        parts.append(f"{clean(name, 40)} {percent(coder.value('explained_variance'))}")
    return f"Variance explained by the other autoencoders: {'; '.join(parts[:6])}." if parts else ""


def _unshown(data: RunData) -> str:
    """What a reader may not conclude; empty where no autoencoder was trained."""
    if not saes_of(data):
        return ""
    told = [
        "that the model itself computes with these features, or that another seed finds the same",
        "that a feature means what its top examples suggest: its weak examples and its control say more",
    ]
    seeds = {int(s) for s in np.asarray(data.measurements["seed"].dropna(), dtype=int)}
    if len(seeds) > 1:
        told[0] = "that the model itself computes with these features"
    return f"Not shown: {'; '.join(told)}."


_TOLD = (
    _loss, readable, concepts, probing, effects, circuits, codes, _sizes, _other_baselines, _dead, _unshown,
)  # fmt: skip
