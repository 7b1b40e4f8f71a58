"""Edits of token states in a live model: every token, or every one but the first, padding left alone."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probes.capture.hooks import edit_site
from probes.capture.sites import parse_sites
from probes.errors import DoesNotApply

if TYPE_CHECKING:
    from probes.models import Model

Change = Callable[[Tensor], Tensor]  # states (m, width) float32 -> the same shape


@dataclass
class Seen:
    """What the pass that runs was called with."""

    grid: tuple[int, int] | None = None  # (batch, token)
    mask: Tensor | None = None  # (batch, past + token), None where none was given
    past: int = 0  # tokens in the key-value cache

    def chosen(self, grid: tuple[int, int], keep_first: bool) -> Tensor:
        """(batch, token) true at the tokens to edit: no padding, and not each text's first token if that is kept."""
        batch, token = grid
        if self.mask is None or len(self.mask) != batch or self.mask.shape[1] < token:
            found = torch.ones(batch, token, dtype=torch.bool)
            first, past = torch.zeros(batch, dtype=torch.int64), self.past
        else:
            mask = self.mask.bool().cpu()
            past = mask.shape[1] - token  # the mask covers tokens of earlier passes too
            found, first = mask[:, past:].clone(), mask.long().argmax(1)
        if keep_first:
            found &= torch.arange(token)[None] + past != first[:, None]
        return found


@contextlib.contextmanager
def watching(model: Model) -> Generator[Seen]:
    """While the context lasts, the answer says what the pass that runs was called with.

    Some heads call a part of the backbone (OPT: its decoder), so every module on the way to the blocks is watched.
    """
    seen = Seen()
    *way, _list, _number = model.structure.blocks[0].path.split(".")
    modules: list[Any] = [model.structure.base]
    for name in way:
        modules.append(getattr(modules[-1], name))
    handles: list[Any] = []
    try:
        for module in modules:
            signature = inspect.signature(module.forward)

            def look(
                _module: Any, args: Any, kwargs: Any, signature: inspect.Signature = signature
            ) -> None:
                given = signature.bind_partial(*args, **kwargs).arguments
                _note(seen, {**given, **given.get("kwargs", {})})

            handles.append(module.register_forward_pre_hook(look, with_kwargs=True))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _note(seen: Seen, given: dict[str, Any]) -> None:
    tokens = given.get("input_ids")
    tokens = given.get("inputs_embeds") if tokens is None else tokens
    if tokens is None:
        return
    seen.grid = (int(tokens.shape[0]), int(tokens.shape[1]))
    mask = given.get("attention_mask")
    if mask is None or (isinstance(mask, Tensor) and mask.ndim == 2):
        seen.mask = mask  # otherwise a part was called with what the whole made of the mask
    length = getattr(given.get("past_key_values"), "get_seq_length", None)
    seen.past = 0 if length is None else int(length())


@contextlib.contextmanager
def edit_tokens(
    model: Model,
    site: str,
    number: int,
    change: Change,
    keep_first: bool = True,
    longest: float | None = None,
) -> Generator[None]:
    """While the context lasts, `change` is applied to the states of all tokens at `site`, in every pass.

    `number` is a layer or, for the sites of a block, a block; heads of `z` lie side by side. States are float32 while
    they are changed. Padding is left alone; so is, with `keep_first`, each text's first token, also while a text is
    generated token by token, and so are states longer than `longest` (attention sinks). `DoesNotApply` for `exit`,
    which is read beside the model's own path.
    """
    (place,) = parse_sites(site, model.n_layers, layers=[number])
    if place.site == "exit":
        raise DoesNotApply(
            "'exit' is read beside the model's own path and cannot be edited: use 'resid_post'"
        )
    with watching(model) as seen:

        def edit(states: Tensor) -> Tensor:
            grid = seen.grid or (states.shape[0], states.shape[1])
            flat = states.reshape(grid[0] * grid[1], -1)
            chosen = seen.chosen(grid, keep_first).reshape(-1).to(states.device)
            if longest is not None:
                chosen &= torch.linalg.vector_norm(flat.float(), dim=1) <= longest
            if not bool(chosen.any()):
                return states
            new = flat.clone()
            new[chosen] = change(flat[chosen].float()).to(states.dtype)
            return new.reshape(states.shape)

        with edit_site(model, place.site, place.number, edit):
            yield
