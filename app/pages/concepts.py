"""Concepts: what each layer of a model knows of each concept, beside its controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from panels import figures, state
from panels.cards import card
from panels.concepts import (
    ANALYSIS,
    COMMAND,
    KEY,
    asks_for_concepts,
    names_of,
    pick,
    picked,
    study_of,
)
from panels.examples import early_layer, examples_of, predicted
from panels.head import head
from panels.limits import equal_limits
from panels.linked import clickable, linked
from panels.sidebar import Choice
from panels.state import Shown
from panels.words import heading, section, small, tag

from probes.report import RunData
from probes.report.figures import (
    FigureCard,
    cards,
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
    transfer_layers,
    transfer_matrix,
    with_layer,
)
from probes.report.study import Concept, Study
from probes.report.tables import Table
from probes.report.text import clean, count, interval, number, sentence
from probes.report.verdict import verdict

OVERVIEW = Path(__file__).parent / "overview.py"

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

# Registered figures of the whole run by the question they answer.
_QUESTIONS = {
    "Curves": ("concept-depth",),
    "Depths": ("concept-depths", "concept-depth-tests"),
    "Conditions": ("concept-conditions",),
    "Effort": ("concept-mdl", "concept-few-shot"),
    "Transfer": ("concept-transfer",),
    "Directions": ("concept-directions", "concept-magnitude"),
    "Erasure": ("concept-erasure",),
    "Behaviour": ("concept-causal", "concept-preference"),
    "Over time": ("concept-over-time",),
    "Layer mix": ("concept-scalar-mix",),
}


def page(choice: Choice) -> None:
    """The whole page for the sidebar's choice."""
    if choice.run is None:
        heading("No runs yet")
        _how_to(f"There is no run in {state.parent()}. Make one; it appears here by itself.")
        return
    shown = [run for run in (choice.run, choice.other) if run is not None]
    for run in shown:
        if run is not shown[0]:
            st.divider()
        head(run)
        if run.view.problem is None:
            _found(run, shown)
    studied = [run for run in shown if study_of(run) is not None]
    if studied:
        _one_concept(studied)
        _all_concepts(studied)


def _how_to(text: str) -> None:
    st.text(text)
    st.code(COMMAND, language="bash")


def _found(run: Shown, shown: Sequence[Shown]) -> None:
    """What the run found in words and one table, or what to do where it found nothing."""
    if not asks_for_concepts(run):
        _elsewhere(run)
        return
    study = study_of(run)
    if study is None:
        if run.status == "finished":
            _how_to("This run measured no concept. Make one that does:")
        elif run.status == "running":
            st.text("No concept has been measured yet; the page shows each as it comes.")
        return
    told = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":  # what else there is to say stands in the head
        section(sentence(told.headline))
        st.text("\n".join(told.sentences))
    if told.table is not None:
        _summary(run, study, told.table)


def _elsewhere(run: Shown) -> None:
    """A run of another analysis: where it is shown, and the newest run that belongs here."""
    name = tag(str(run.view.info.get("analysis", "")))
    st.info(f"This is a run of {name}: it measured no concepts.", icon=":material/info:")
    st.page_link(
        OVERVIEW, label="Its figures are on the page Overview", icon=":material/straighten:"
    )
    newest = next((v for v in state.runs() if v.info.get("analysis") == ANALYSIS), None)
    if newest is None:
        _how_to("No run here has measured concepts. Make one:")
    else:
        st.button(
            f"Open {tag(newest.slug)}",
            on_click=_open,
            args=(newest.slug,),
            icon=":material/open_in_new:",
            key=f"open-{run.slug}",
            help="The newest run that measured concepts.",
        )


def _open(slug: str) -> None:
    st.session_state["run"] = slug
    if st.session_state.get("with") == slug:
        st.session_state["with"] = None


def _summary(run: Shown, study: Study, table: Table) -> None:
    """The table of all concepts; a click on a row picks its concept, and the picked one is selected."""
    order = [concept.name for concept in study.by_family()]
    key = f"summary-{run.slug}"
    at = picked(order)
    st.session_state[key] = {"selection": {"rows": [] if at is None else [order.index(at)]}}
    frame = run.data.once("summary frame", lambda: _frame(table))
    st.dataframe(
        frame,
        hide_index=True,
        height=min(560, 38 + 35 * len(table.rows)),
        on_select=lambda: _row_clicked(key, order),
        selection_mode="single-row",
        key=key,
        placeholder="–",
        column_config=_columns(frame, table),
        alt=f"Table of {len(table.rows)} concepts; choosing a row picks its concept",
    )
    small(table.note)


def _frame(table: Table) -> pd.DataFrame:
    """The table with numbers where a column holds nothing else, so that it sorts."""
    frame = pd.DataFrame(table.rows, columns=list(table.columns))
    for name in [table.columns[at] for at in table.numeric]:
        plain = frame[name].str.replace(",", "").str.replace("−", "-").replace("–", None)
        values = pd.to_numeric(plain, errors="coerce")
        if (values.notna() == plain.notna()).all():
            frame[name] = values
        else:
            frame[name] = frame[name].where(plain.notna(), None)
    return frame


def _columns(frame: pd.DataFrame, table: Table) -> dict[str, Any]:
    """Numbers have the digits they came with."""
    found: dict[str, Any] = {}
    for at in table.numeric:
        name = table.columns[at]
        if pd.api.types.is_numeric_dtype(frame[name]) and any("." in row[at] for row in table.rows):
            found[name] = st.column_config.NumberColumn(format="%.2f")
    return found


def _row_clicked(key: str, order: list[str]) -> None:
    rows = st.session_state[key].selection.rows
    pick(order[rows[0]] if rows and rows[0] < len(order) else None)


def _one_concept(runs: list[Shown]) -> None:
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
    peak, depth, bag = study.peak(concept), study.depth(concept), study.bag_of_words(concept)
    code = study.level(concept, "mdl_depth")
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


def _card_of_one(what: str, run: Shown, concept: Concept | None) -> FigureCard | None:
    """A figure of one concept alone."""
    if concept is None:
        return None
    name, data = concept.name, run.data
    return data.once(("one", what, name), lambda: _ONE[what][1](data, name))


def _all_concepts(runs: list[Shown]) -> None:
    """Figures of the whole run, one question at a time; a click on a concept picks it."""
    section("All concepts")
    found = [_cards(run) for run in runs]
    ids = list(dict.fromkeys(name for held in found for name in held))
    if not ids:
        st.text("No figure can be drawn yet.")
        return
    questions = _questions(ids)
    asked = st.segmented_control(
        "Figures",
        list(questions),
        default=next(iter(questions)),
        required=True,
        key="figures",
        bind="query-params",
    )
    for name in questions.get(asked or "", ids[:1]):
        if name == "concept-transfer":
            found = _transfer(runs, found)
        cards_ = equal_limits([held.get(name) for held in found])
        for run, card_ in zip(runs, cards_, strict=True):
            study = study_of(run)
            assert study is not None
            card_ = clickable(card_)
            figures.show(
                card_,
                f"{name}-{run.slug}",
                "Not measured in this run (yet).",
                run.slug if len(runs) > 1 else "",
                linked(card_, study, _pick_from_afar),
            )


def _transfer(runs: list[Shown], found: list[dict[str, FigureCard]]) -> list[dict[str, FigureCard]]:
    """The matrices at the layer that the reader asks for; as they are where there is one layer only."""
    layers = sorted({k for run in runs for k in run.data.once("transfer", _transfer_layers(run))})
    if len(layers) < 2:
        return found
    asked = st.select_slider(
        "Layer", ["best", *layers], key="transfer", bind="query-params", width=420
    )
    if asked == "best":
        return found
    made = [
        run.data.once(("transfer", asked), lambda run=run: transfer_matrix(run.data, int(asked)))
        for run in runs
    ]
    return [{"concept-transfer": card_} if card_ else {} for card_ in made]


def _transfer_layers(run: Shown) -> Callable[[], list[int]]:
    return lambda: transfer_layers(run.data)


def _questions(ids: list[str]) -> dict[str, list[str]]:
    """The figures that are there by what they answer; those that nobody placed come last."""
    placed = {name for names in _QUESTIONS.values() for name in names}
    found = {
        question: [name for name in names if name in ids] for question, names in _QUESTIONS.items()
    }
    found["More"] = [name for name in ids if name not in placed]
    return {question: names for question, names in found.items() if names}


def _cards(run: Shown) -> dict[str, FigureCard]:
    """All figures that find their data in the run."""
    return run.data.once("cards", lambda: {card.id: card for card in cards(run.data)})


def _pick_from_afar(name: str | None) -> None:
    """A click far below the picked concept: say that something changed above."""
    pick(name)
    if name is not None:
        st.toast(f"{tag(name)} is shown above, under One concept.", icon=":material/arrow_upward:")


page(st.session_state["choice"])
