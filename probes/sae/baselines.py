"""What an autoencoder must beat: random directions, principal components, the neurons themselves, cluster centres.

Each is fitted like an autoencoder and measured by the same code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone

from probes.errors import EstimatorInputError
from probes.linalg import check_matrix
from probes.sae.data import Rows, sample_rows
from probes.sae.estimator import SparseAutoencoder

FloatArray = NDArray[np.floating[Any]]


def _sample(X: Any) -> FloatArray:
    """All rows, or a seeded sample of a long store: baselines are closed forms and need no more."""
    return sample_rows(X, 0).numpy() if isinstance(X, Rows) else check_matrix(X)


class PCACoder(TransformerMixin, BaseEstimator):
    """The k leading principal components: codes (n, k), dense by nature; the best linear code of that width.

    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> coder = PCACoder(3).fit(X)
    >>> bool(np.allclose(coder.inverse_transform(coder.transform(X)), X))
    True
    """

    def __init__(self, k: int = 32) -> None:
        self.k = k

    def fit(self, X: Any, y: None = None) -> PCACoder:
        """`EstimatorInputError` for k below 1; more components than columns or rows are cut down."""
        states = _sample(X).astype(np.float64)
        if self.k < 1:
            raise EstimatorInputError(f"k is {self.k}: 1 or more components are needed")
        self.mean_ = states.mean(0)
        centred = states - self.mean_
        values, vectors = np.linalg.eigh(centred.T @ centred)
        self.decoder_ = vectors[:, np.argsort(values)[::-1][: self.k]].T
        return self

    def transform(self, X: Any) -> FloatArray:
        return (check_matrix(X) - self.mean_) @ self.decoder_.T

    def inverse_transform(self, codes: Any) -> FloatArray:
        return _dense(codes) @ self.decoder_ + self.mean_


class NeuronCoder(TransformerMixin, BaseEstimator):
    """The k coordinates of each row that are furthest from their mean; the others are put at the mean."""

    def __init__(self, k: int = 32) -> None:
        self.k = k

    def fit(self, X: Any, y: None = None) -> NeuronCoder:
        states = _sample(X)
        self.mean_ = states.mean(0, dtype=np.float64)
        self.decoder_ = np.eye(states.shape[1])
        return self

    def transform(self, X: Any) -> sparse.csr_array:
        centred = check_matrix(X) - self.mean_
        n, d = centred.shape
        k = min(self.k, d)
        cols = np.sort(np.argpartition(-np.abs(centred), k - 1, axis=1)[:, :k], axis=1)
        data = np.take_along_axis(centred, cols, 1)
        table = sparse.csr_array((data.ravel(), cols.ravel(), np.arange(n + 1) * k), shape=(n, d))
        table.eliminate_zeros()
        return table

    def inverse_transform(self, codes: Any) -> FloatArray:
        return _dense(codes) + self.mean_


class ClusterCoder(TransformerMixin, BaseEstimator):
    """k-means: one active code per row, its cluster; reconstruction is the cluster's centre."""

    def __init__(self, n_features: int = 64, seed: int = 0) -> None:
        self.n_features = n_features
        self.seed = seed

    def fit(self, X: Any, y: None = None) -> ClusterCoder:
        from sklearn.cluster import MiniBatchKMeans

        states = _sample(X)
        count = min(self.n_features, len(states))
        self._means = MiniBatchKMeans(count, random_state=self.seed).fit(states)
        self.decoder_ = np.asarray(self._means.cluster_centers_)
        return self

    def transform(self, X: Any) -> sparse.csr_array:
        nearest = self._means.predict(check_matrix(X).astype(self.decoder_.dtype))
        n = len(nearest)
        return sparse.csr_array(
            (np.ones(n), nearest, np.arange(n + 1)), shape=(n, len(self.decoder_))
        )

    def inverse_transform(self, codes: Any) -> FloatArray:
        return np.asarray(sparse.csr_array(codes) @ self.decoder_)


def random_autoencoder(like: SparseAutoencoder, X: Any, seed: int = 0) -> SparseAutoencoder:
    """The control: random unit directions in place of learned ones, with the size and sparsity of a fitted `like`.

    Codes are the k largest projections; one gain for all codes, fitted by least squares on X, makes their
    reconstruction as good as such directions allow.
    """
    rng = np.random.default_rng((seed, 3))
    made: SparseAutoencoder = clone(like)  # type: ignore[assignment]
    made.set_params(variant="topk", target_l0=None, k=max(1, round(like.target_l0 or like.k)))
    m, d = like.decoder_.shape
    directions = rng.normal(size=(m, d)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    made.encoder_ = made.decoder_ = directions
    made.encoder_bias_, made.decoder_bias_ = np.zeros(m, np.float32), np.zeros(d, np.float32)
    made.threshold_ = made.magnitude_log_scale_ = made.magnitude_bias_ = None
    made.mean_, made.scale_ = like.mean_, like.scale_
    made.history_, made.n_steps_, made.n_features_in_ = like.history_.iloc[:0], 0, d
    states = _sample(X)[:8192].astype(np.float64)
    copy = made.reconstruct(states) - made.mean_
    gain = float(((states - made.mean_) * copy).sum() / max(np.square(copy).sum(), 1e-300))
    made.encoder_ = directions * np.float32(max(gain, 0.0))
    return made


def _dense(codes: Any) -> FloatArray:
    return codes.toarray() if sparse.issparse(codes) else np.asarray(codes)
