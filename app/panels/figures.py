"""A figure card on a page: the chart, how to read it, CSV and SVG; and the heatmap that can be clicked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from panels.words import tag
from probes.report.data import Cell, RunData
from probes.report.figures import FigureCard
from probes.report.html import csv_text
from probes.report.text import label
from probes.report.theme import Scheme, template


def scheme() -> Scheme:
    """Light or dark, as the page is."""
    return "dark" if st.context.theme.type == "dark" else "light"


def show(card: FigureCard | None, key: str, empty: str, run: str = "") -> None:
    """A figure with its title inside (so that the SVG carries it), or one line that says why there is none.

    `run` is named beside the title where two runs stand side by side."""
    with st.container(border=True):
        _named(run)
        if card is None:
            st.caption(empty)
            return
        st.plotly_chart(_dressed(card), key=key, theme=None, config=_config(card), alt=card.alt)
        _below(card, key)


def show_clickable(
    card: FigureCard,
    data: RunData,
    variant: str,
    key: str,
    pick: Callable[[str], None],
    run: str = "",
) -> None:
    """The heatmap of one variant; a click on a cell calls back with the figure's key."""
    with st.container(border=True):
        _named(run)
        figure = _dressed(card)
        points = [
            (int(layer), data.dims.index(int(dim)), cell_id(Cell(variant, int(layer), int(dim))))
            for layer, dim, name in zip(
                data.all["layer"], data.all["dim"], data.all["variant"], strict=True
            )
            if name == variant
        ]
        # A heatmap alone gives no selection: squares that cannot be seen lie over its cells.
        figure.add_scatter(
            x=[x for x, _, _ in points],
            y=[y for _, y, _ in points],
            customdata=[[name] for _, _, name in points],
            mode="markers",
            marker={"symbol": "square", "size": 26, "opacity": 0},
            selected={"marker": {"opacity": 0}},
            unselected={"marker": {"opacity": 0}},
            text=_hover_texts(figure, points),
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
        figure.update_traces(hoverinfo="skip", hovertemplate=None, selector={"type": "heatmap"})
        figure.update_layout(dragmode=False, clickmode="event+select")
        figure.update_xaxes(fixedrange=True)
        figure.update_yaxes(fixedrange=True)
        st.plotly_chart(
            figure,
            key=key,
            theme=None,
            config=_config(card),
            alt=card.alt,
            on_select=lambda: pick(key),
            selection_mode="points",
        )
        _below(card, key)


def _named(run: str) -> None:
    if run:
        st.caption(tag(run))


def cell_id(cell: Cell) -> str:
    """The name of a cell in the URL and in the list of cells.

    >>> cell_id(Cell("translated", 4, 256))
    'translated:4x256'
    """
    return f"{cell.variant}:{cell.layer}x{cell.dim}"


def _hover_texts(figure: Any, points: list[tuple[int, int, str]]) -> list[str]:
    texts = figure.data[0].customdata
    return [str(texts[y][x]) for x, y, _ in points]


def _dressed(card: FigureCard) -> Any:
    figure = card.figure
    figure.update_layout(
        template=template(scheme()),
        title={
            "text": label(card.title, 90),
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "pad": {"l": 4, "t": 2},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 16},
        },
        margin_t=(figure.layout.margin.t or 20) + 26,
        height=(figure.layout.height or 400) + 20,
        font_family='"Source Sans", sans-serif',
    )
    return figure


def _config(card: FigureCard) -> dict[str, Any]:
    return {
        "displaylogo": False,
        "displayModeBar": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": "svg", "filename": card.id},
        "scrollZoom": False,
    }


def _below(card: FigureCard, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("How to read this", type="tertiary"):
            st.text(card.how_to_read)
        st.download_button(
            "CSV",
            lambda: csv_text(card.data),
            file_name=f"{card.id}.csv",
            mime="text/csv",
            key=f"{key}-csv",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
            help="The numbers of this figure. The camera above the figure saves it as SVG.",
        )
