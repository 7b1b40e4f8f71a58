"""Colours, dashes, markers and the two Plotly templates (light and dark) of all figures.

Series keep the same colour in both; they are mid-toned so that each stands out on white and on near-black.
"""

from __future__ import annotations

from typing import Any, Literal

Scheme = Literal["light", "dark"]

# Okabe & Ito 2008, in an order whose first members differ most in every colour-vision type.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#D55E00")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
NEUTRAL = "#7f8790"  # lines and notes that belong to no series; readable on both grounds
ACCENT = "#D55E00"  # the chosen cell
SELECTED = "#CC79A7"  # the cell a reader picked
MAGNITUDE = "Viridis"
# Red below zero, blue above: RdBu of ColorBrewer with a grey middle, written out because Plotly's Python and JavaScript
# give the same name to opposite scales.
DIFFERENCE = [
    [0.0, "#b2182b"],
    [0.25, "#ef8a62"],
    [0.5, "#e4e4e4"],
    [0.75, "#67a9cf"],
    [1.0, "#2166ac"],
]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_KNOWN = ("raw", "translated", "centred")
_TONES: dict[Scheme, dict[str, str]] = {
    "light": {"ink": "#1f2933", "grid": "#e4e7eb", "axis": "#9aa5b1", "ground": "#ffffff"},
    "dark": {"ink": "#e6e9ee", "grid": "#2d3540", "axis": "#66717e", "ground": "#1a2028"},
}


def series_style(name: str, names: list[str]) -> dict[str, str]:
    """Colour, dash and marker of a series; the known variants always look the same."""
    order = [*_KNOWN, *(n for n in names if n not in _KNOWN)]
    return style_at(order.index(name))


def style_at(at: int) -> dict[str, str]:
    """Colour, dash and marker of the series at place `at`; a colour that comes again has another dash and marker.

    >>> style_at(0)["color"] == style_at(6)["color"], style_at(0)["dash"] == style_at(6)["dash"]
    (True, False)
    """
    turn = at // len(PALETTE)
    return {
        "color": PALETTE[at % len(PALETTE)],
        "dash": DASHES[(at + turn) % len(DASHES)],
        "symbol": MARKERS[(at + turn) % len(MARKERS)],
    }


# What a line stands for in a concept study: colour, dash and marker are the same in every figure.
_ROLES = {
    "probe": (PALETTE[0], "solid", "circle"),
    "bag-of-words": (PALETTE[1], "dash", "square"),
    "shuffled": (NEUTRAL, "dot", "diamond"),
    "control-task": (PALETTE[2], "dashdot", "triangle-up"),
    "untrained": (PALETTE[4], "longdash", "cross"),
    "second": (PALETTE[5], "longdashdot", "x"),
}


def role_style(role: str) -> dict[str, str]:
    """Colour, dash and marker of what a line stands for, as `series_style` gives them."""
    colour, dash, symbol = _ROLES[role]
    return {"color": colour, "dash": dash, "symbol": symbol}


def layer_ticks(last: int) -> dict[str, Any]:
    """Ticks of an axis over layers 0 to `last`: every layer while there is room, never turned on their side."""
    step = 1 if last <= 13 else 2 if last <= 20 else 5
    return {"tick0": 0, "dtick": step, "tickangle": 0}


def faded(colour: str, alpha: float = 0.18) -> str:
    """`#rrggbb` as a translucent fill for a band.

    >>> faded("#0072B2")
    'rgba(0,114,178,0.18)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def template(scheme: Scheme) -> dict[str, Any]:
    """A Plotly template with transparent grounds, as plain JSON, so that a page can swap it on the fly."""
    tone = _TONES[scheme]
    axis: dict[str, Any] = {
        "gridcolor": tone["grid"],
        "linecolor": tone["axis"],
        "tickcolor": tone["axis"],
        "zerolinecolor": tone["grid"],
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": tone["ink"]},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "colorway": list(PALETTE),
            "hoverlabel": {
                "bgcolor": tone["ground"],
                "bordercolor": tone["axis"],
                "font": {"color": tone["ink"], "family": FONT},
                "align": "left",
            },
            "legend": {"bgcolor": "rgba(0,0,0,0)", "itemwidth": 30, "font": {"size": 12}},
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": tone["axis"],
                "activecolor": tone["ink"],
            },
            # Notes stay readable where they lie on a line.
            "annotationdefaults": {"bgcolor": faded(tone["ground"], 0.7), "borderpad": 0},
            "coloraxis": {"colorbar": {"outlinewidth": 0, "tickcolor": tone["axis"]}},
        }
    }


# Lines of many layers, from the first to the last; each tone stands out on white and on near-black.
_DEPTH = ((84, 104, 196), (43, 143, 168), (61, 163, 93), (194, 161, 31))


def depth_colour(layer: int, last: int) -> str:
    """Colour of a layer's line: blue at the embedding, over green, to yellow at the last.

    >>> depth_colour(0, 6), depth_colour(6, 6)
    ('#5468c4', '#c2a11f')
    """
    at = (len(_DEPTH) - 1) * min(1.0, max(0.0, layer / last if last else 1.0))
    low = min(int(at), len(_DEPTH) - 2)
    mixed = zip(_DEPTH[low], _DEPTH[low + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (at - low)):02x}" for a, b in mixed)
