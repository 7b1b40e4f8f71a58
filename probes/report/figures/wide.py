"""Which figures need more room than a phone has, so that a narrow page lets them scroll sideways."""

from __future__ import annotations

from probes.report.figures.card import Spec

READABLE = 720  # pixels that such a figure keeps


def is_wide(spec: Spec) -> bool:
    """Whether three panels or more, or as many names as in a matrix, stand side by side; or two panels with scales of
    their own; or long names on the left; or lines of text, by `layout.meta.wide`."""
    if (spec["layout"].get("meta") or {}).get("wide"):
        return True
    starts = {
        axis["domain"][0]
        for name, axis in spec["layout"].items()
        if name.startswith("xaxis") and "domain" in axis
    }
    named = len(spec["layout"].get("xaxis", {}).get("ticktext", ()))
    beside = spec["layout"].get("margin", {}).get("l", 0)  # names that leave a phone no room
    scales = sum(
        1
        for name, axis in spec["layout"].items()
        if name.startswith("yaxis") and axis.get("showticklabels")
    )
    own = len(starts) == 2 and scales > 1 and scales == _panels(spec)
    return len(starts) > 2 or own or named > (4 if len(starts) < 2 else 8) or beside > 150


def _panels(spec: Spec) -> int:
    return sum(1 for name in spec["layout"] if name.startswith("xaxis"))
