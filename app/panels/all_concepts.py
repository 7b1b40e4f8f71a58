"""Figures of all concepts of a run, one question at a time."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from panels import figures
from panels.concepts import pick, study_of
from panels.limits import equal_limits
from panels.linked import clickable, linked
from panels.state import Shown
from panels.words import section, tag
from probes.report.figures import FigureCard, cards, transfer_layers, transfer_matrix

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


def all_concepts(runs: list[Shown]) -> None:
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
