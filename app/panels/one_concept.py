"""Everything that is known of the picked concept: numbers, figures, examples; of two runs side by side."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from panels import figures
from panels.cards import card
from panels.concepts import KEY, names_of, pick, study_of
from panels.examples import early_layer, examples_of, predicted
from panels.limits import equal_limits
from panels.state import Shown
from panels.words import section, tag
from probes.report import RunData
from probes.report.figures import (
    FigureCard,
    causal_effects,
    code_length,
    concept_depth,
    condition_curves,
    direction_agreement,
    erasure_effects,
    few_shot_curves,
    magnitude_law,
    own_preference,
    readable_over_time,
    scalar_mix_shares,
    with_layer,
)
from probes.report.study import Concept
from probes.report.text import clean, count, interval, number

# Figures of the picked concept: what they show, whether they need the page's whole width, how they are drawn.
_ONE: dict[str, tuple[bool, Callable[[RunData, str], FigureCard | None]]] = {
    "depth curve": (True, lambda data, name: concept_depth(data, [name])),
    "conditions": (False, condition_curves),
    "code length": (False, lambda data, name: code_length(data, [name])),
    "few-shot curves": (False, lambda data, name: few_shot_curves(data, [name])),
    "reading over time": (False, lambda data, name: readable_over_time(data, [name])),
    "directions": (False, lambda data, name: direction_agreement(data, [name])),
    "magnitude": (False, lambda data, name: magnitude_law(data, [name])),
    "preference": (False, lambda data, name: own_preference(data, [name])),
    "layer mix": (False, lambda data, name: scalar_mix_shares(data, [name])),
    "causal effect": (False, lambda data, name: causal_effects(data, [name])),
    "erasure": (True, lambda data, name: erasure_effects(data, [name])),
}
_NO_LAYERS = ("few-shot curves", "causal effect", "erasure")  # have no axis over layers


def one_concept(runs: list[Shown]) -> None:
    """Everything that is known of the picked concept."""
    section("One concept")
    names = names_of(runs)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Concept",
            names,
            index=None,
            key=KEY,
            bind="query-params",
            placeholder="Choose, or click a row of the table",
            width=320,
        )
        st.button(
            "Clear selection",
            on_click=pick,
            args=(None,),
            disabled=name is None,
            icon=":material/close:",
        )
    if name is None:
        st.text("Pick a concept to see its curve, its controls and its examples.")
        return
    concepts = {run.slug: _concept(run, name) for run in runs}
    for run in runs:
        _facts(run, concepts[run.slug], runs)
    runs = [run for run in runs if concepts[run.slug] is not None]
    layer = _layer(runs, concepts)
    found = {
        what: equal_limits([_card_of_one(what, run, concepts[run.slug]) for run in runs])
        for what in _ONE
    }
    wide = [what for what in found if _ONE[what][0]]
    with st.grid(len(runs), min_column_width=390):
        _drawn(runs, {what: found[what] for what in wide[:1]}, layer)
    with st.grid(2, min_column_width=390):
        _drawn(runs, {what: held for what, held in found.items() if what not in wide}, layer)
    _drawn(runs, {what: found[what] for what in wide[1:]}, layer)
    missing = [what for what, held in found.items() if not any(held)]
    if missing:
        st.caption(f"Not measured for this concept: {', '.join(missing)}.")
    _examples(runs, concepts, layer)


def _drawn(runs: list[Shown], found: dict[str, list[FigureCard | None]], layer: int | None) -> None:
    """Figures of the picked concept, of every run; what no run has is left out."""
    for what, held in found.items():
        for run, card_ in zip(runs, held if any(held) else [], strict=any(held)):
            marked = card_ is not None and what not in _NO_LAYERS
            figures.show(
                with_layer(card_, layer) if marked else card_,
                f"{what.replace(' ', '-')}-{run.slug}",
                f"This run has no {what} of this concept.",
                run.slug if len(runs) > 1 else "",
                room=figures.COLUMN if len(runs) > 1 or not _ONE[what][0] else figures.PAGE,
            )


def _card_of_one(what: str, run: Shown, concept: Concept | None) -> FigureCard | None:
    """A figure of one concept alone."""
    if concept is None:
        return None
    name, data = concept.name, run.data
    return data.once(("one", what, name), lambda: _ONE[what][1](data, name))


def _concept(run: Shown, name: str) -> Concept | None:
    study = study_of(run)
    return None if study is None else next((c for c in study.concepts if c.name == name), None)


def _facts(run: Shown, concept: Concept | None, runs: list[Shown]) -> None:
    """The numbers of the picked concept in one run."""
    study = study_of(run)
    assert study is not None
    if len(runs) > 1:
        st.caption(tag(run.slug))
    if concept is None:
        st.text("This run did not measure this concept.")
        return
    peak, depth, bag, code = run.data.once(
        ("facts", concept.name),
        lambda: (
            study.peak(concept),
            study.depth(concept),
            study.bag_of_words(concept),
            study.level(concept, "mdl_depth"),
        ),
    )
    with st.grid(5, min_column_width=140):
        card("Examples", count(concept.n), tag(concept.kind), "")
        height = (
            "" if peak is None else f"{number(peak.value, 2)} {interval(peak.low, peak.high, 2)}"
        )
        best = None if peak is None else peak.layer
        card("Best layer", count(best), height, "The peak of the curve, with its 95 % interval.")
        gain = None if peak is None or bag is None else peak.value - bag.value
        beside = "" if bag is None else f"bag of words {number(bag.value, 2)}"
        card("Above the words", number(gain, 2), beside, "Peak minus what the words give away.")
        span = "" if depth is None else f"of {study.n_layers} {interval(depth.low, depth.high, 0)}"
        card(
            "Robust depth",
            number(None if depth is None else depth.value, 0),
            span or "none",
            "First layer from which on the curve stays within the interval of its peak.",
        )
        card(
            "Shortest code",
            number(None if code is None else code.value, 0),
            "" if code is None else f"of {study.n_layers}",
            "The layer at which labels take the fewest bits (MDL depth).",
        )
    about = [("family", concept.family), ("data", concept.dataset), ("note", concept.note)]
    st.text(" · ".join(f"{what}: {clean(text, 120)}" for what, text in about if text))


def _layer(runs: list[Shown], concepts: dict[str, Concept | None]) -> int | None:
    """The earlier layer that examples are looked at, marked in the figures; None where no run kept examples."""
    for run in runs:
        study, concept = study_of(run), concepts[run.slug]
        held = None if concept is None else predicted(run, concept.name)
        if study is None or concept is None or held is None:
            continue
        before = st.session_state.get("_layer_of")
        now = st.session_state["_layer_of"] = (run.slug, concept.name)
        if before != now and not (before is None and "layer" in st.query_params):
            st.session_state["layer"] = early_layer(held, study, concept)
        if len(held.layers) < 3:
            return held.layers[0]
        return st.slider(
            "Earlier layer, dashed in the figures",
            held.layers[0],
            held.layers[-2],
            key="layer",
            bind="query-params",
            width=420,
        )
    return None


def _examples(runs: list[Shown], concepts: dict[str, Concept | None], layer: int | None) -> None:
    """The examples of the picked concept in every run."""
    for run in runs:
        study, concept = study_of(run), concepts[run.slug]
        if study is not None and concept is not None:
            examples_of(run, study, concept, layer, run.slug if len(runs) > 1 else "")
