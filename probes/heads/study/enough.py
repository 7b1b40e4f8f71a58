"""Whether the text can hide needles at all, asked before anything that takes long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probes.errors import InputError

if TYPE_CHECKING:
    from probes.heads.retrieval import Haystack
    from probes.heads.study.plan import HeadPlan


def check_text(texts: Sequence[str], plan: HeadPlan) -> None:
    """`InputError` for texts too short for the longest context whatever the model, no token being less than a byte.

    >>> from probes.heads.study import HeadPlan
    >>> check_text(["A long text. "] * 100, HeadPlan())
    """
    if "retrieval" not in plan.parts:
        return
    size = sum(len(text.encode()) + 1 for text in texts)
    if size < max(plan.trials.lengths):
        raise InputError(_message(f"{size:,} bytes", plan))


def check_haystack(haystack: Haystack, plan: HeadPlan) -> None:
    """`InputError` for a text with fewer tokens than the longest context."""
    if len(haystack.ids) < max(plan.trials.lengths):
        raise InputError(_message(f"{len(haystack.ids):,} tokens", plan))


def _message(size: str, plan: HeadPlan) -> str:
    longest = max(plan.trials.lengths)
    return (
        f"the text has {size}, too few for a context of {longest:,} tokens: give more text by --data or shorter "
        "--lengths"
    )
