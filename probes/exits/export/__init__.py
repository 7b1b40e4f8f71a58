"""A chosen exit as a model of its own: written out, read back by a process without Fathometer, and checked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.exits.export.export import export_exit
    from probes.exits.export.recipes import keep_recipes, recipe_of

_HOMES = {"export_exit": "export", "keep_recipes": "recipes", "recipe_of": "recipes"}

__all__ = ["export_exit", "keep_recipes", "recipe_of"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.exits.export' has no attribute {name!r}")
    value = getattr(import_module(f"probes.exits.export.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
