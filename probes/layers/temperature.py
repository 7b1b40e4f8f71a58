"""Attention temperature (TempScale): the logits of attention divided by τ, in a model that stays as it is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from probes.errors import InputError

if TYPE_CHECKING:
    from probes.models import Model


@contextlib.contextmanager
def temperature(model: Model, tau: float, blocks: Iterable[int] | None = None) -> Generator[None]:
    """While the context lasts, attention logits are divided by `tau` in every forward pass.

    softmax(L / τ), L being all that goes into the model's own softmax: scaled products, caps and position bias (T5,
    ALiBi) included; masked keys stay masked. τ < 1 sharpens attention and lets less of the text's mean through, τ > 1
    flattens it, τ = 1 is the model itself, bit for bit. `blocks` are the blocks changed, all by default.

    `capture` works under it but refuses `out=` and `cache=True` when τ ≠ 1, as with every edit.

    Raises `InputError` for a τ that is not finite and above 0 and for unknown blocks, `DoesNotApply` where a block has
    no attention heads. Paper: Zhou et al. 2024, "Length-Induced Embedding Collapse in Transformer-based Models" (arXiv
    2410.24200). See also `frequency_gains`, `probes.capture.attention.attention_calls`.

    >>> def sharpened(model, texts):  # with a loaded model
    ...     with temperature(model, 0.8):
    ...         return capture(model, texts)["exit", model.n_layers]
    """
    from probes.capture.attention import attention_calls, check_blocks
    from probes.capture.hooks import marked_edited

    if isinstance(tau, bool) or not (math.isfinite(tau) and tau > 0):
        raise InputError(f"tau is {tau}: a finite number above 0 is needed, such as 0.8")
    chosen = check_blocks(model, blocks)
    if tau == 1:
        yield
        return
    with attention_calls(model, lambda call: call.scaled(tau), chosen), marked_edited(model):
        yield
