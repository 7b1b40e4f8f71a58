"""Capture: the states of a model at chosen places, reduced inside the hook and streamed into a store.

`probes.capture` is this package *and* the function: `from probes import capture; acts = capture(model, texts)`.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from probes.capture.backends import BACKENDS, Backend
from probes.capture.capture import capture
from probes.capture.ditto import ditto_pool
from probes.capture.hooks import TorchRunner, edit_site
from probes.capture.pooling import POOLINGS, Pooler
from probes.capture.sites import SITES, Place, Site, parse_place, parse_sites
from probes.capture.skip import skip_blocks
from probes.capture.spans import sentence_spans, word_spans

__all__ = [
    "BACKENDS",
    "POOLINGS",
    "SITES",
    "Backend",
    "Place",
    "Pooler",
    "Site",
    "TorchRunner",
    "capture",
    "ditto_pool",
    "edit_site",
    "parse_place",
    "parse_sites",
    "sentence_spans",
    "skip_blocks",
    "word_spans",
]


class _CallablePackage(ModuleType):
    """A subpackage takes its name in the parent on first import; this way that name can be called all the same."""

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return _function(*args, **kwargs)


if not TYPE_CHECKING:
    _function = capture
    _package = sys.modules[__name__]
    _package.__class__ = _CallablePackage
    _package.__signature__ = inspect.signature(_function)
    capture = _package  # one object under the one name, whoever imports first
