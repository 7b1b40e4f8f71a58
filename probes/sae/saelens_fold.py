"""The arithmetic of SAELens's files as one affine map in and one out, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.sae.saelens_files import Config, read_scaler, read_whitening

Double = NDArray[np.float64]


@dataclass(frozen=True)
class Plain:
    """pre = (x − centre) · encoderᵀ + bias; a code is active above threshold; x̂ = codes · decoder + out.

    `magnitude`: log scale and bias (m,) of a gated autoencoder, whose codes are exp(log scale) · (x − centre) ·
    encoderᵀ + bias where the gate is open.
    """

    encoder: Double  # (m, d)
    bias: Double  # (m,)
    decoder: Double  # (m, d)
    centre: Double  # (d,)
    out: Double  # (d,)
    threshold: Double  # (m,)
    magnitude: tuple[Double, Double] | None = None

    def stretched(self, lengths: Double) -> Plain:
        """Codes times `lengths` (m,), and decoder rows divided by them: the same reconstruction."""
        made = replace(
            self,
            encoder=self.encoder * lengths[:, None],
            bias=self.bias * lengths,
            decoder=self.decoder / lengths[:, None],
            threshold=self.threshold * lengths,
        )
        if self.magnitude is None:
            return made
        log_scale, size = self.magnitude
        return replace(made, magnitude=(log_scale, size * lengths))


def folded(folder: Path, config: Config, tensors: dict[str, Double]) -> Plain:
    """Weights of a file with what it does to states before and after folded in."""
    m, d = config.m, config.d
    encoder, decoder = tensors["W_enc"].T, tensors["W_dec"]
    magnitude = (tensors["r_mag"], tensors["b_mag"]) if config.variant == "gated" else None
    bias = tensors["b_gate" if config.variant == "gated" else "b_enc"]
    threshold = tensors.get("threshold", np.zeros(m))
    # A threshold below zero is one of zero: SAELens takes relu first.
    b_dec = tensors["b_dec"]
    plain = Plain(
        encoder, bias, decoder, b_dec * config.subtract, b_dec, np.maximum(threshold, 0), magnitude
    )
    if config.lengthen:
        lengths = np.maximum(np.linalg.norm(decoder, axis=1), 1e-8)
        plain = replace(plain.stretched(lengths), threshold=plain.threshold)  # it is compared after
    if config.normalise == "expected_average_only_in":
        factor = read_scaler(folder)
        return _through(plain, np.zeros(d), factor * np.eye(d), np.eye(d) / factor)
    if config.normalise == "covariance_whitening":
        return _through(plain, *read_whitening(folder, d))
    return plain


def _through(plain: Plain, mean: Double, matrix: Double, inverse: Double) -> Plain:
    """For states x that the file sees as (x − mean) · matrix, and whose copies it gives as x̂ · inverse + mean."""
    return replace(
        plain,
        encoder=plain.encoder @ matrix.T,
        decoder=plain.decoder @ inverse,
        centre=plain.centre @ inverse + mean,
        out=plain.out @ inverse + mean,
    )
