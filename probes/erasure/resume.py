"""Passes that begin in the middle: what lies below an edited layer is the same under every edit, and computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from probes.models import Model

Edit = Callable[["Tensor"], AbstractContextManager[None]]  # given the prompts' last tokens (batch,)


class Resumed:
    """The same batches again and again, with blocks below `layer` run the first time only.

    Use `recorded` as the edit of one pass over all batches, then `under(edit)` for further passes over the same
    batches in the same order. The stream after `layer` blocks is kept for all of them: tokens × d numbers.
    """

    def __init__(self, model: Model, layer: int) -> None:
        self._below: list[Any] = [block.module for block in model.structure.blocks[:layer]]
        self._outputs: list[Any] = []

    @contextlib.contextmanager
    def recorded(self, ends: Tensor) -> Generator[None]:
        """Keep what the last block below the layer gives."""

        def keep(_module: Any, _args: Any, output: Any) -> None:
            self._outputs.append(output)

        handle = self._below[-1].register_forward_hook(keep) if self._below else None
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()

    def under(self, edit: Edit) -> Edit:
        """An edit that also begins at the layer; a new one for every pass."""
        outputs = iter(self._outputs)

        @contextlib.contextmanager
        def context(ends: Tensor) -> Generator[None]:
            output = next(outputs) if self._below else None
            with self._answering(output), edit(ends):
                yield

        return context

    @contextlib.contextmanager
    def _answering(self, output: Any) -> Generator[None]:
        """Blocks below the layer return `output` without computing; hooks on them (the edits) still act."""

        def answer(*args: Any, **kwargs: Any) -> Any:
            return output

        before = [vars(module).get("forward") for module in self._below]
        try:
            for module in self._below:
                module.forward = answer
            yield
        finally:
            for module, forward in zip(self._below, before, strict=True):
                if forward is not None:
                    module.forward = forward
                elif "forward" in vars(module):
                    del module.forward
