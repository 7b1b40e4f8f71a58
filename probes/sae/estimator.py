"""`SparseAutoencoder`: a scikit-learn-like transformer from dense states to sparse codes and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from probes.errors import EstimatorInputError
from probes.sae.data import ArrayRows, Rows, blocks
from probes.sae.infer import encode_block, frozen_tensors
from probes.sae.saved import load_estimator, save_estimator
from probes.sae.settings import Training
from probes.sae.training import Session, run_sessions

FloatArray = NDArray[np.floating[Any]]
Report = Callable[[int, int], None]


class SparseAutoencoder(TransformerMixin, BaseEstimator):
    """States as sparse combinations of learned unit directions.

    With x̃ = scale · (x − mean): codes z = σ(x̃ · encoderᵀ + encoder_bias) and x̂ = mean + (z · decoder + decoder_bias) /
    scale. `mean` and `scale` (one number, so that the mean square of x̃ is 1 per dimension) are taken from the data and
    fixed; σ is what the variants differ in.

    Parameters
    ----------
    n_features : size of the dictionary. k : active features per row, exact for "topk", on average for the others.
    variant : "topk" (AuxK; Gao et al. 2024), "batchtopk" (Bussmann et al. 2024), "matryoshka" (Bussmann et al. 2025),
        "jumprelu" (Rajamanoharan et al. 2024), "gated" (Rajamanoharan et al. 2024), "l1" (Bricken et al. 2023).
    target_l0 : mean number of active features that the variants other than "topk" are steered to; None: k.
    steps : training steps; None: ten passes over the rows, at least 1,000 and at most 20,000 steps.
    batch_size : rows per step (all rows if there are fewer). learning_rate : of Adam; None: by n_features.
    seed : of the weights; the order of the data has its own, `training.order_seed`.
    device : "auto", "cpu", "cuda", … . training : the settings that are seldom changed, a `Training`.

    Attributes
    ----------
    decoder_ (n_features, d), rows of length 1; encoder_ (n_features, d); encoder_bias_ (n_features,);
    decoder_bias_ (d,); mean_ (d,) and scale_ (float), see above; threshold_ (n_features,): a code is active where its
    pre-activation (for "gated": its gate's) is above it, None for "topk"; magnitude_log_scale_ and magnitude_bias_
    (n_features,) for "gated", else None; history_: one row per logged step (step, fvu, l0, dead_share, penalty,
    learning_rate); n_steps_: steps taken; n_features_in_: d.

    Codes are positive, but for those of "topk": it keeps the k largest scores whatever their sign, and where fewer than
    k are positive the rest are negative codes. They come where k is a large share of n_features; in 6,000 held-out
    smollm2 states, 1,024 features and k = 32 after 200 steps, there was none.

    All variants but "topk" have a threshold, set after training so that target_l0 codes per row are above it in rows
    that were held out of training for this: a tenth of them, at most 8,192, in runs of neighbours. Below 500 rows, and
    for batches of fewer than 32, none are held out and the threshold is set on the rows trained on.

    Codes never depend on what else is in the batch. Training repeats bit for bit on the CPU under the same seeds,
    number of threads and library versions.

    Raises `EstimatorInputError` for parameters and shapes that are not allowed, `NonFiniteError` for NaN in X.

    >>> rng = np.random.default_rng(0)
    >>> directions = rng.normal(size=(8, 4))
    >>> X = rng.random((200, 8)) * (rng.random((200, 8)) < 0.2) @ directions
    >>> sae = SparseAutoencoder(n_features=16, k=2, steps=20, batch_size=100, device="cpu").fit(X)
    >>> codes = sae.transform(X)
    >>> codes.shape, sae.inverse_transform(codes).shape, bool(codes.count_nonzero(axis=1).max() <= 2)
    ((200, 16), (200, 4), True)
    """

    decoder_: FloatArray
    decoder_bias_: FloatArray
    encoder_: FloatArray
    encoder_bias_: FloatArray
    threshold_: FloatArray | None
    magnitude_log_scale_: FloatArray | None
    magnitude_bias_: FloatArray | None
    mean_: FloatArray
    scale_: float
    history_: pd.DataFrame
    n_steps_: int
    n_features_in_: int

    def __init__(
        self,
        n_features: int = 4608,
        k: int = 32,
        variant: str = "topk",
        *,
        target_l0: float | None = None,
        steps: int | None = None,
        batch_size: int = 4096,
        learning_rate: float | None = None,
        seed: int = 0,
        device: str = "auto",
        training: Training = Training(),  # noqa: B008  frozen
    ) -> None:
        self.n_features = n_features
        self.k = k
        self.variant = variant
        self.target_l0 = target_l0
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.device = device
        self.training = training

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: str | Path | None = None,
        every: int = 1000,
        progress: Report | None = None,
    ) -> SparseAutoencoder:
        """Train on X: an array or tensor (n, d), a `StoreRows`, or an iterable of batches (rows, d).

        `checkpoint` is a folder: the training is kept there every `every` steps, and continues from there, with the
        same result, when the same autoencoder is fitted to the same data again. Batches that can be read only once are
        read from their start and passed over. `progress(step, steps)` is called after every step.
        """
        run_sessions([Session(self, "sae")], X, checkpoint, every, progress)
        return self

    def transform(self, X: Any) -> sparse.csr_array:
        """Codes (n, n_features) of X (n, d) or of a `StoreRows`, float32, column indices ascending in each row."""
        check_is_fitted(self, "decoder_")
        weights = frozen_tensors(self)
        found = [encode_block(self.variant, int(self.k), weights, x) for x in self._blocks(X)]
        return sparse.csr_array(sparse.vstack(found, format="csr"))

    def _blocks(self, X: Any) -> Any:
        rows = X if isinstance(X, Rows) else ArrayRows(X)
        if rows.d != self.n_features_in_:
            raise EstimatorInputError(
                f"X has {rows.d} columns, this autoencoder was fitted to {self.n_features_in_}"
            )
        return blocks(rows)

    def inverse_transform(self, codes: Any) -> NDArray[np.float32]:
        """Reconstruction (n, d) float32 of codes (n, n_features), sparse or dense."""
        check_is_fitted(self, "decoder_")
        table: Any = sparse.csr_array(codes)
        if table.ndim != 2 or table.shape[1] != len(self.decoder_):
            raise EstimatorInputError(
                f"codes have shape {table.shape}: (n, {len(self.decoder_)}) is needed"
            )
        scaled = np.asarray(table.astype(np.float32) @ self.decoder_) + self.decoder_bias_
        return (scaled / np.float32(self.scale_) + self.mean_).astype(np.float32)

    def reconstruct(self, X: Any) -> NDArray[np.float32]:
        """`inverse_transform(transform(X))`."""
        return self.inverse_transform(self.transform(X))

    def save(self, folder: str | Path) -> None:
        """Keep the fitted autoencoder in `folder` (safetensors and JSON), in place of what lay there before."""
        check_is_fitted(self, "decoder_")
        save_estimator(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> SparseAutoencoder:
        """The autoencoder that `save` kept in `folder`; `FathometerError` where there is none or it is damaged."""
        return load_estimator(cls, Path(folder))


def device_of(name: str) -> torch.device:
    from probes.models.load import pick_device

    return pick_device(name)
