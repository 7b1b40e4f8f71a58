"""Numbers and foreign text as a reader should meet them.

Names, labels and messages come from datasets and models: they are hostile until shown otherwise.
`clean` takes out what would hide or reorder text; `label` makes text inert inside a Plotly figure.
"""

from __future__ import annotations

import html
import math
import re
from typing import Any

# Controls (except tab and newline), lone surrogates, and marks that reorder what is read.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NBSP = "\u00a0"
NOTHING = "\u2013"


def clean(value: Any, limit: int = 2000) -> str:
    """Text of `value` without control, surrogate and direction marks, cut to `limit` characters.

    >>> clean("a\\u202eb\\x00c")
    'a\\ufffdb\\ufffdc'
    """
    text = _UNSEEN.sub("\ufffd", str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def label(value: Any, limit: int = 60) -> str:
    """Text for a Plotly figure: its pseudo-HTML, entities and `%{…}` templates cannot be triggered.

    >>> label('<a href="javascript:x">%{y}</a>')
    '&lt;a href=&#34;javascript:x&#34;&gt;%&#123;y}&lt;/a&gt;'
    """
    text = " ".join(clean(value, limit).split())
    return inert(text)


def inert(text: str) -> str:
    """Text for a Plotly figure as `label` gives it, white space and length as they are."""
    # Plotly knows few names of entities, and would show &quot; as it stands.
    return html.escape(text).replace("&quot;", "&#34;").replace("%{", "%&#123;")


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number (booleans are not)."""
    if value is None or isinstance(value, bool | str):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def number(value: Any, digits: int = 3) -> str:
    """A quality: fixed decimals with a real minus sign (none before a zero); a dash where there is no number.

    >>> number(-0.81234), number(-0.0001), number(None)
    ('−0.812', '0.000', '–')
    """
    if not is_number(value):
        return NOTHING
    rounded = round(float(value), digits) + 0.0  # −0 becomes 0
    return f"{rounded:.{digits}f}".replace("-", "−")


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """An interval in brackets, empty where there is none.

    >>> interval(0.79, 0.834)
    '[0.790, 0.834]'
    """
    if not (is_number(low) and is_number(high)):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def percent(value: Any, digits: int = 1) -> str:
    """A share as percent.

    >>> percent(0.9512).replace("\\u00a0", " ")
    '95.1 %'
    """
    return f"{float(value) * 100:.{digits}f}{_NBSP}%" if is_number(value) else NOTHING


def level(value: Any) -> str:
    """A level such as a budget or a confidence: as many decimals as it needs, at most two.

    >>> level(0.95).replace("\\u00a0", " "), level(0.975).replace("\\u00a0", " ")
    ('95 %', '97.5 %')
    """
    return f"{round(float(value) * 100, 2):g}{_NBSP}%" if is_number(value) else NOTHING


def significant(value: Any, digits: int = 3) -> str:
    """A physical quantity with three significant digits and no exponent.

    >>> significant(12.3456), significant(0.01234), significant(1236.4)
    ('12.3', '0.0123', '1,236')
    """
    if not is_number(value):
        return NOTHING
    x = float(value)
    if x == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:,.{decimals}f}".replace("-", "−")


def times(value: Any) -> str:
    """A speed-up factor.

    >>> times(1.94)
    '1.9×'
    """
    return f"{float(value):.1f}×" if is_number(value) else NOTHING


def milliseconds(value: Any) -> str:
    """A time with its unit."""
    return f"{significant(value)}{_NBSP}ms" if is_number(value) else NOTHING


def count(value: Any) -> str:
    """A whole number with thousands marked."""
    return f"{int(value):,}" if is_number(value) else NOTHING


def counted(value: Any, name: str, plural: str = "") -> str:
    """A whole number of things, one or several.

    >>> counted(1, "feature"), counted(1200, "feature"), counted(2, "analysis", "analyses")
    ('1 feature', '1,200 features', '2 analyses')
    """
    one = is_number(value) and int(value) == 1
    return f"{count(value)} {name if one else plural or name + 's'}"


def size(value: Any) -> str:
    """Bytes in a readable unit.

    >>> size(1536).replace("\\u00a0", " ")
    '1.5 kB'
    """
    if not is_number(value):
        return NOTHING
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f}{_NBSP}B" if unit == "B" else f"{amount:.1f}{_NBSP}{unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def variant_name(variant: Any) -> str:
    """The variant of a candidate; null in the table means the raw state."""
    return (
        "raw" if variant is None or variant != variant or not str(variant) else clean(variant, 60)
    )


def sentence(text: str) -> str:
    """Text with a capital and a full stop.

    >>> sentence("time was not measured")
    'Time was not measured.'
    """
    trimmed = text.strip()
    if not trimmed:
        return ""
    return trimmed[:1].upper() + trimmed[1:] + ("" if trimmed[-1] in ".!?…" else ".")
