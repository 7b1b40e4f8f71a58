"""Random features to compare one with: alive, of about its density and activation, and not its near copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.capture.observe import Reading
from probes.capture.progress import Report
from probes.errors import DataError, InputError
from probes.sae.estimator import SparseAutoencoder
from probes.sae.live import LiveAutoencoder
from probes.sae.splice import Where
from probes.sae.token_states import TokenStates

Array = NDArray[np.floating[Any]]
NEAREST = 20  # features that a control is drawn from
COPY = 0.5  # cosine from which another feature counts as nearly the same


@dataclass(frozen=True)
class Activity:
    """Of every feature: the share of tokens where it is active, and the mean length that it adds there, both (m,).

    Lengths are in units of the states; 0 for features that are never active.
    """

    density: Array
    mean_active: Array
    tokens: int


def feature_activity(
    place: Where, sae: SparseAutoencoder, reading: Reading, progress: bool | Report = False
) -> Activity:
    """Read all texts up to `place`; first tokens that are left as they are do not count. `DataError` without tokens."""
    coder = LiveAutoencoder.of(sae, place.model.device)
    active, total = np.zeros(coder.n_features), np.zeros(coder.n_features)
    tokens = 0

    @torch.no_grad()
    def each(batch: TokenStates) -> None:
        nonlocal tokens
        codes = coder.codes(torch.from_numpy(batch.states).to(place.model.device))
        cols, values = codes.cols.cpu().numpy(), codes.values.double().cpu().numpy()
        active[:] += np.bincount(cols[values != 0], minlength=len(active))
        total[:] += np.bincount(cols, np.abs(values), len(total)) / sae.scale_
        tokens += len(batch.states)

    place.reader(reading).run(each, progress)
    if not tokens:
        raise DataError("texts of one token only came: none has a token that is edited")
    return Activity(active / tokens, total / np.maximum(active, 1), tokens)


def matched_features(
    activity: Activity, decoder: Array, feature: int, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`draws` different random features like `feature`: (draws,).

    They are drawn from the 20 living ones whose density and mean activation are nearest to the feature's, as distances
    of logarithms; those whose directions have a cosine above 0.5 with it, either sign, are left out as its copies.
    `InputError` where fewer than `draws` others are alive.

    >>> activity = Activity(np.asarray([0.1, 0.1, 0.0, 0.2]), np.asarray([1.0, 1.1, 0.0, 9.0]), 10)
    >>> sorted(matched_features(activity, np.eye(4), 0, 2, np.random.default_rng(0)).tolist())
    [1, 3]
    """
    alive = activity.density > 0
    unit = decoder / np.maximum(np.linalg.norm(decoder, axis=1, keepdims=True), 1e-30)
    others = np.flatnonzero(alive & (np.abs(unit @ unit[feature]) <= COPY))
    others = others[others != feature]
    if len(others) < draws:
        raise InputError(
            f"{draws} random features are needed as controls of feature {feature}, only {len(others)} are alive and "
            "unlike it: give more texts or ask for fewer controls"
        )
    place = np.stack([np.log(np.maximum(one, 1e-30)) for one in (activity.density, activity.mean_active)])  # fmt: skip
    distance = np.linalg.norm(place[:, others] - place[:, [feature]], axis=0)
    near = others[np.argsort(distance, kind="stable")[: max(NEAREST, draws)]]
    return rng.choice(near, size=draws, replace=False)
