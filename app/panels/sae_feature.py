"""One feature: its numbers, what it promotes, the texts it fires on, and the features nearest to it."""

from __future__ import annotations

import streamlit as st

from panels import sae_focus
from panels.sae_examples import examples_of
from panels.sae_strips import strips
from panels.state import Shown
from panels.words import section, small
from probes.report.collapse_table import gain
from probes.report.figures.sae_effects import effects, measure_words
from probes.report.figures.sae_features import concept_words
from probes.report.sae_examples import QUANTILES, quoted, texts_in
from probes.report.sae_tables import Row, SaeFocus, features_of, is_true, saes_of, shown_features
from probes.report.text import clean, count, is_number, number, percent, sentence, significant

_ALL, _FEW = "all", 3
_NEAREST = 6  # features that are linked


def one_feature(run: Shown, focus: SaeFocus, named: bool) -> None:
    """The picked feature of a run, the first of those to read where none is picked."""
    known = features_of(run.data, focus)
    if not known:
        small("No features were described in this run (yet).")
        return
    first = next((int(row["feature"]) for row in shown_features(run.data, focus)), min(known))
    feature = first if focus.feature is None else focus.feature
    row = known.get(feature)
    sae = next(iter(known.values()))["sae"]
    of_run = f" of {clean(sae, 60)}" if len(saes_of(run.data)) > 1 else ""
    of_run += f", {run.slug}" if named else ""
    what = f"Feature {feature}" + ("" if focus.feature is not None else ", the first to read")
    section(f"{what}{of_run}")
    if row is None:
        st.text("This feature was not described in this run.")
        return
    st.text("\n".join(_told(run, row, focus)))
    _texts(run, row)
    _near(run, row, known)


def _told(run: Shown, row: Row, focus: SaeFocus) -> list[str]:
    """Everything that is known of a feature, a line per kind."""
    told: list[str] = []
    if row["why"]:
        told.append(f"Picked to be read: {sentence(clean(row['why'], 240))}")
    if is_true(row, "dead"):
        told.append("It is dead: it fired on no token.")
    elif is_number(row["density"]):
        strong = (
            f", mean activation {significant(row['mean_active'])}, highest {significant(row['max_active'])}"
            if is_number(row["max_active"])
            else ""
        )
        told.append(f"Fires on {percent(row['density'], 3)} of tokens{strong}.")
    up, down = (quoted(texts_in(row[name]), 10) for name in ("up_tokens", "down_tokens"))
    if up:
        told.append(f"Promotes {up}" + (f"; suppresses {down}." if down else "."))
        if is_number(row["logit_kurtosis"]):
            told[-1] += f" Kurtosis of its logits: {number(row['logit_kurtosis'], 1)}."
    if concept_words(row):
        told.append(f"Of the labelled concepts it tells best: {concept_words(row)}.")
    for mode, strength, rows in effects(run.data, SaeFocus(row["sae"])):
        own = next((r for r in rows if int(r["feature"]) == int(row["feature"])), None)
        if own is not None:
            by = "" if strength != strength else f" by {significant(strength, 2)}"
            verb = {"ablate": "Ablated", "steer": "Steered"}.get(mode, clean(mode, 20))
            size = gain(own["difference"], own["difference_low"], own["difference_high"])
            told.append(
                f"{verb}{by}: {measure_words(own['measure'])} {size} against a random feature."
            )
    return told


def _texts(run: Shown, row: Row) -> None:
    """Examples at the quantile that a reader asked for."""
    kept = examples_of(run, row["sae"], int(row["feature"]))
    if not kept:
        small("No examples of this feature were kept.")
        return
    options = [_ALL, *(name for name in QUANTILES if name in kept)]
    asked = st.segmented_control(
        "Examples",
        options,
        default=_ALL,
        required=True,
        key=f"quantile-{run.slug}",
        format_func=lambda name: {"all": "All", "top": "Highest"}.get(name, name),
    )
    shown = {
        name: kept[name][: _FEW if asked == _ALL else None]
        for name in kept
        if asked in (_ALL, name)
    }
    top = row["max_active"]
    if not is_number(top):
        top = max(e.activation for held in kept.values() for e in held)
    strips(shown or kept, f"Examples of feature {row['feature']:.0f}", float(top))
    small(
        "Blue: activation of the feature at each token, darker is more (hover for the number); outlined: the token of "
        "the highest. Left: its activation. Quantiles are of its activations above zero."
    )


def _near(run: Shown, row: Row, known: dict[int, Row]) -> None:
    """Links to the features whose directions are nearest."""
    own = int(row["feature"])
    near: dict[int, float] = {}
    if is_number(row["nearest"]) and int(row["nearest"]) in known:
        near[int(row["nearest"])] = row["nearest_cosine"]
    back = [r for r in known.values() if is_number(r["nearest"]) and int(r["nearest"]) == own]
    for other in sorted(back, key=lambda r: -_size(r["nearest_cosine"])):
        near.setdefault(int(other["feature"]), other["nearest_cosine"])
    near.pop(own, None)
    if not near:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        small(f"Nearest features, by the cosine of their directions{_cut(near)}:")
        for feature, cosine in list(near.items())[:_NEAREST]:
            st.button(
                f"{feature} ({number(cosine, 2)})",
                on_click=sae_focus.pick,
                args=(feature,),
                key=f"near-{run.slug}-{feature}",
                type="tertiary",
                help="Show this feature",
            )


def _size(value: float) -> float:
    return float(value) if is_number(value) else -1.0


def _cut(near: dict[int, float]) -> str:
    return f", {_NEAREST} of {count(len(near))}" if len(near) > _NEAREST else ""
