"""Keeping transformers' own bars and notices off the user's terminal while it loads something."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, cast


@contextlib.contextmanager
def quiet_transformers() -> Generator[None]:
    """Errors only, no bars; what was set before comes back afterwards."""
    from transformers.utils import logging

    anything = cast("Any", logging)
    verbosity = anything.get_verbosity()
    bars = anything.is_progress_bar_enabled()
    anything.set_verbosity_error()
    anything.disable_progress_bar()
    try:
        yield
    finally:
        anything.set_verbosity(verbosity)
        if bars:
            anything.enable_progress_bar()
