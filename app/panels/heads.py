"""Figures of retrieval heads and of circuits, one question at a time; and the reasons for what is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from panels import head_focus
from panels.focus import section_asked
from panels.one_head import one_head
from panels.state import Shown
from panels.words import section
from probes.report.figures import (
    answer_lens,
    attention_shapes,
    attribution_map,
    circuit_tasks,
    component_attribution,
    composition_blocks,
    composition_pairs,
    faithfulness_curves,
    graph_energy,
    graph_maps,
    head_ablation,
    head_overlap,
    head_ranking,
    head_scores,
    head_spectra,
    head_types,
    label_flow,
    low_rank_curves,
    needle_grid,
    neuron_lines,
    patching_agreement,
    patching_lines,
    patching_map,
    single_effects,
)
from probes.report.figures.circuit_tasks import task_words
from probes.report.figures.head_grid import HeadFocused
from probes.report.head_tables import CIRCUITS, HEADS, missing
from probes.report.text import clean

Sections = Mapping[str, tuple[HeadFocused, ...]]
HEADS_COMMAND = f"fathometer run {HEADS} --model smollm2"
CIRCUITS_COMMAND = f"fathometer run {CIRCUITS} --model smollm2"
HEAD_SECTIONS: Sections = {
    "Scores": (head_scores, head_ranking, head_overlap),
    "Ablation": (head_ablation, needle_grid, single_effects),
    "Types and attention": (head_types, attention_shapes),
    "Weights": (composition_pairs, composition_blocks, head_spectra, low_rank_curves),
}
CIRCUIT_SECTIONS: Sections = {
    "Tasks": (circuit_tasks, answer_lens),
    "Attribution": (attribution_map, component_attribution),
    "Patching": (patching_lines, patching_map, patching_agreement),
    "Few heads": (faithfulness_curves,),
    "Label words": (label_flow,),
    "Graph of words": (graph_energy, graph_maps),
    "Neurons": (neuron_lines,),
}
_PARTS = {  # parts of the analyses that a section shows
    "Scores": ("retrieval",),
    "Ablation": ("ablation", "single"),
    "Types and attention": ("types", "shapes"),
    "Weights": ("composition", "spectra", "low-rank"),
    "Tasks": ("tasks", "lens"),
    "Attribution": ("attribution",),
    "Patching": ("patching",),
    "Few heads": ("faithfulness",),
    "Label words": ("flow",),
    "Graph of words": ("graph",),
    "Neurons": ("neurons",),
}


def asks_for_heads(run: Shown) -> bool:
    """Whether the run belongs on the page of heads, even if it has measured nothing yet."""
    return run.view.info.get("analysis") == HEADS


def asks_for_circuits(run: Shown) -> bool:
    """Whether the run belongs on the page of circuits, even if it has measured nothing yet."""
    return run.view.info.get("analysis") == CIRCUITS


def head_figures(runs: list[Shown]) -> None:
    """The picked head, and the figures of one section, of one run or two."""
    section("Figures")
    seen = head_focus.controls(runs)
    asked = section_asked(HEAD_SECTIONS, "show")
    if asked == "Scores":
        seen = replace(seen, measure=head_focus.measure_asked(runs))
        head_focus.drawn(runs, (head_scores,), seen)
        for run in runs:
            one_head(run, seen, len(runs) > 1)
        _section(runs, (head_ranking, head_overlap), seen, asked)
        return
    _section(runs, HEAD_SECTIONS[asked], seen, asked)


def circuit_figures(runs: list[Shown]) -> None:
    """The figures of one section, of one run or two."""
    section("Figures")
    seen = head_focus.controls(runs)
    asked = section_asked(CIRCUIT_SECTIONS, "circuit")
    _section(runs, CIRCUIT_SECTIONS[asked], seen, asked)


def _section(
    runs: list[Shown], builders: Sequence[HeadFocused], seen: head_focus.HeadFocus, asked: str
) -> None:
    found = head_focus.drawn(runs, builders, seen)
    told = [line for run in runs for line in _reasons(run, asked)]
    if told:
        st.text("\n".join(dict.fromkeys(told)))
    elif not found:
        st.text("Nothing of this was measured (yet).")


def _reasons(run: Shown, asked: str) -> list[str]:
    """Why parts of a section are not there, and for which tasks."""
    held = run.data.once("missing", lambda: missing(run.data))
    told: list[str] = []
    for part in _PARTS[asked]:
        for task, why in held.get(part, ()):
            of_task = f" of {task_words(task)}" if task else ""
            told.append(
                f"Not measured: {part}{of_task}" + (f", because {clean(why, 240)}." if why else ".")
            )
    return told
