"""One feature of an autoencoder taken out of a live model, or added to it; everything else stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probes.errors import InputError
from probes.sae.estimator import SparseAutoencoder
from probes.sae.live import LiveAutoencoder
from probes.sae.tokens import edit_tokens

if TYPE_CHECKING:
    from probes.models import Model


@contextlib.contextmanager
def ablate_feature(
    model: Model,
    sae: SparseAutoencoder,
    site: str,
    layer: int,
    feature: int,
    *,
    keep_first: bool = True,
) -> Generator[None]:
    """While the context lasts, what `feature` adds to the states at `site` is taken away, in every pass.

    x becomes x − z_f(x) · w_f / scale: what the autoencoder does not explain stays, so states in which the feature is
    not active do not change at all. `layer` is a block for the sites of a block; padding and, with `keep_first`, each
    text's first token are left alone (see `spliced`).

    Raises `InputError` for features and widths that do not exist, `DoesNotApply` for `exit` and missing places.

    >>> def without(model, sae, inputs, feature):
    ...     with ablate_feature(model, sae, "resid_post", 12, feature):
    ...         return model.hf_model(**inputs).logits
    """
    coder = LiveAutoencoder.of(sae, model.device)
    direction = coder.weights["decoder"][check_feature(sae, feature)]

    @torch.no_grad()
    def change(states: Tensor) -> Tensor:
        return states - coder.activations(states, [feature]) * direction

    with edit_tokens(model, site, layer, change, keep_first):
        yield


@contextlib.contextmanager
def steer_feature(
    model: Model,
    sae: SparseAutoencoder,
    site: str,
    layer: int,
    feature: int,
    strength: float,
    *,
    keep_first: bool = True,
) -> Generator[None]:
    """While the context lasts, `strength` times the feature's unit direction is added to the states, in every pass.

    `strength` is a length in units of the states, below 0 against the feature; the feature itself adds
    `feature_activity(…).mean_active[feature]` where it is active. Works while texts are generated, token by token too.
    Else as `ablate_feature`; not finite strengths are an `InputError`.

    >>> def continued(model, sae, prompt, feature, strength):
    ...     ids = model.tokenizer(prompt, return_tensors="pt").to(model.device)
    ...     with steer_feature(model, sae, "resid_post", 12, feature, strength):
    ...         made = model.hf_model.generate(**ids, max_new_tokens=20, do_sample=False)
    ...     return model.tokenizer.decode(made[0])
    """
    if not np.isfinite(strength):
        raise InputError(f"strength is {strength}: a finite number is needed")
    row = np.array(sae.decoder_[check_feature(sae, feature)], np.float32)
    shift = float(strength) * torch.from_numpy(row).to(model.device)
    with edit_tokens(model, site, layer, lambda states: states + shift, keep_first):
        yield


def check_feature(sae: SparseAutoencoder, feature: int) -> int:
    """`feature` itself; `InputError` where the autoencoder has no such number."""
    n = len(sae.decoder_)
    if int(feature) != feature or not 0 <= feature < n:
        raise InputError(f"feature {feature} does not exist: 0 to {n - 1} are allowed")
    return int(feature)
