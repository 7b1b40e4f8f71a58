"""Edits of a live model along a concept: erase it from, or add a direction to, the residual stream."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from probes.capture.hooks import edit_site
from probes.erasure.eraser import Eraser
from probes.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from probes.models import Model

Positions = Literal["all", "last"]


@contextlib.contextmanager
def erase(
    model: Model, eraser: Eraser, layer: int, positions: Positions | Tensor = "all"
) -> Generator[None]:
    """While the context lasts, `eraser` is applied to the residual stream after `layer` blocks, in every pass.

    Fit the eraser on `resid_post` at the same layer (not on `exit`, which has the final norm in it). With all
    positions, what held for mean, weighted, first or last pooled states holds for those of the edited model: the map is
    affine, so the pooled state of edited tokens is the edited pooled state. Fitted on last-token states, the eraser
    says nothing about other tokens: `positions="last"` then edits the last token of each row only (of what is passed
    in, padding left out; in generation, of every step). Token numbers (batch,), padding counted, name one token per
    row.

    Padding may lie on either side. Raises `InputError` for a layer, width or position that does not exist.

    >>> def outputs_without(model, eraser, inputs):  # a loaded model, an eraser of its layer 3
    ...     with erase(model, eraser, layer=3):
    ...         return model.hf_model(**inputs)
    """
    if eraser.d != model.d_model:
        raise InputError(
            f"the eraser acts on states of width {eraser.d}, those of {model.name} have {model.d_model}"
        )
    with _edit(model, layer, positions, eraser.on(model.device)):
        yield


@contextlib.contextmanager
def steer(
    model: Model,
    direction: Any,
    layer: int,
    strength: float = 1.0,
    positions: Positions | Tensor = "all",
) -> Generator[None]:
    """While the context lasts, `strength` · `direction` is added to the residual stream after `layer` blocks.

    `direction` (d,) is taken as it is, not normalised: with θ = μ⁺ − μ⁻ of `resid_post` at that layer (the `coef_` of a
    `MassMeanProbe` without covariance), strength 1 carries the mean of one class to that of the other. Random vectors
    of the same norm are the control (see `causal_effect`).

    >>> def outputs_with(model, theta, inputs):
    ...     with steer(model, theta, layer=3, strength=2.0):
    ...         return model.hf_model(**inputs)
    """
    import torch

    vector = np.asarray(direction, dtype=np.float64)
    if vector.shape != (model.d_model,) or not np.isfinite(vector).all():
        raise InputError(
            f"a direction of shape {vector.shape} came: {model.d_model} finite numbers are needed"
        )
    if not np.isfinite(strength):
        raise InputError(f"strength is {strength}: a finite number is needed")
    shift = torch.from_numpy(strength * vector).to(device=model.device, dtype=model.dtype)
    with _edit(model, layer, positions, lambda states: states + shift):
        yield


@contextlib.contextmanager
def _edit(
    model: Model, layer: int, positions: str | Tensor, change: Callable[[Tensor], Tensor]
) -> Generator[None]:
    if not isinstance(positions, str):
        with edit_site(model, "resid_post", layer, lambda states: _at(states, positions, change)):
            yield
        return
    if positions not in get_args(Positions):
        raise unknown_name("positions", positions, get_args(Positions))
    if positions == "all":
        with edit_site(model, "resid_post", layer, change):
            yield
        return
    masks: list[Any] = [None]

    def change_last(states: Tensor) -> Tensor:  # (batch, token, d)
        return _at(states, _last_tokens(states, masks[0]), change)

    with _watching_mask(model, masks), edit_site(model, "resid_post", layer, change_last):
        yield


def _at(states: Tensor, tokens: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """States (batch, token, d) with one token per row changed; `tokens` (batch,)."""
    import torch

    if tokens.shape != states.shape[:1]:
        raise InputError(
            f"positions have shape {tuple(tokens.shape)}, ({states.shape[0]},) is needed: one token per row"
        )
    rows = torch.arange(len(states), device=states.device)
    tokens = tokens.to(states.device)
    new = states.clone()
    new[rows, tokens] = change(states[rows, tokens])
    return new


@contextlib.contextmanager
def _watching_mask(model: Model, masks: list[Any]) -> Generator[None]:
    """`masks[0]` is the attention mask of the pass that runs, None where none was given."""
    base = model.structure.base
    signature = inspect.signature(base.forward)

    def look(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = signature.bind_partial(*args, **kwargs).arguments
        mask = {**given, **given.get("kwargs", {})}.get("attention_mask")
        # heads of some models turn it into (batch, 1, token, token) first; a backbone is given two axes
        masks[0] = mask if mask is not None and mask.ndim == 2 else None

    handle = base.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _last_tokens(states: Tensor, mask: Any) -> Tensor:
    """Number (batch,) of the last token that is not padding."""
    import torch

    batch, token = states.shape[:2]
    if mask is None:
        return torch.full((batch,), token - 1, device=states.device)
    # with a key-value cache the mask also covers tokens of earlier passes
    kept = mask[:, -token:].to(states.device).bool()
    numbers = torch.arange(token, device=states.device)
    return torch.where(kept, numbers, 0).amax(1)
