"""Real long text: the Python language reference that the standard library carries in `pydoc_data.topics`."""

from __future__ import annotations

import re

from probes.datasets.catalogue import PYTHON, register_dataset
from probes.errors import DataError

FEWEST_WORDS = 8
_MARKUP = re.compile(r"[*`]+|\"(?=\S)|(?<=\S)\"")


def reference_topics() -> dict[str, str]:
    """Topic name -> its whole text as carried by this Python (hundreds of kilobytes in all)."""
    try:
        from pydoc_data import topics
    except ImportError:
        raise DataError(
            "this Python ships no pydoc_data.topics: use a text file with --texts"
        ) from None
    return {name: str(text) for name, text in sorted(topics.topics.items())}


@register_dataset(
    "reference",
    "texts",
    PYTHON,
    "Paragraphs of the Python language reference (texts without labels, for translators and haystacks).",
)
def reference(seed: int) -> tuple[str, ...]:
    """Different paragraphs of prose in order of topic, code and grammar left out; `seed` changes nothing."""
    found: dict[str, None] = {}
    for text in reference_topics().values():
        for block in re.split(r"\n\s*\n", text):
            paragraph = " ".join(_MARKUP.sub("", block).split())
            letters = sum(c.isalpha() or c.isspace() for c in paragraph)
            if len(paragraph.split()) >= FEWEST_WORDS and letters >= 0.75 * len(paragraph):
                found[paragraph] = None
    return tuple(found)
