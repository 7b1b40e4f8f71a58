"""Names and defaults of a collapse study: what the command line offers, known without loading any of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from probes.errors import InputError

T = TypeVar("T", int, float)

PARTS = ("length", "temperature", "remedies", "chunking", "bottleneck", "mask", "index")
TAUS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
CUTS = (8, 16, 32, 64, 128, 256, 512, 1024)


def parse_numbers(text: str, kind: Callable[[str], T], flag: str, low: float) -> tuple[T, ...]:
    """Numbers separated by commas, ascending, each once; `InputError` for what is none or lies below `low`.

    >>> parse_numbers("32, 8,16", int, "--cuts", 2)
    (8, 16, 32)
    """
    found: set[T] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            number = kind(part)
        except ValueError:
            raise InputError(
                f"{flag} {text!r}: {part!r} is no {_name(kind)}; write numbers separated by commas"
            ) from None
        if not low <= number < float("inf"):
            raise InputError(f"{flag} {part}: numbers from {low:g} are allowed")
        found.add(number)
    if not found:
        raise InputError(f"{flag} {text!r}: at least one number is needed")
    return tuple(sorted(found))


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Layer numbers separated by commas, or `all` (None).

    >>> parse_layers("0,3"), parse_layers("all")
    ((0, 3), None)
    """
    return None if text.strip() == "all" else parse_numbers(text, int, "--layers", 0)


def _name(kind: Any) -> str:
    return "whole number" if kind is int else "number"
