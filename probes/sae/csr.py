"""CSR: sparse codes of frozen embeddings, for retrieval over an inverted index.

Wen et al. 2025 (arXiv 2503.01776): a TopK autoencoder that reconstructs at k and at 4k active features, revives dead
ones (AuxK), and pulls the codes of different texts apart. Training is that of `SparseAutoencoder`; only the loss
differs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from probes.errors import EstimatorInputError, FathometerError
from probes.files import write_json
from probes.linalg import check_matrix, normalise_rows
from probes.sae.estimator import SparseAutoencoder
from probes.sae.feed import Feed
from probes.sae.network import Network, Outcome, scores
from probes.sae.sparse import top_k
from probes.sae.topk import AUX_ROWS, TopK
from probes.sae.training import Session, run_sessions

Report = Callable[[int, int], None]

WIDE = 4  # how many times k features the second reconstruction may use
WIDE_WEIGHT = 1 / 8  # of that reconstruction, as in the paper
SETTINGS = "csr.json"


@dataclass(frozen=True)
class Contrastive(TopK):
    """TopK's loss (reconstruction at k, AuxK) and two more: reconstruction at 4k, and codes told apart in the batch.

    The two are estimated on every batch's first quarter, as AuxK is: on all of it they would cost four times the rest.

    Attributes:
        weight: of the contrastive loss, beside a reconstruction error of 1 for the mean of the data.
        temperature: the cosines of codes are divided by it.
    """

    weight: float
    temperature: float

    name = "csr"

    def backward(self, net: Network, x: Tensor) -> Outcome:
        outcome = super().backward(net, x)
        self.beside(net, x[: max(2, len(x) // AUX_ROWS)]).backward()
        return outcome

    def beside(self, net: Network, x: Tensor) -> Tensor:
        """What is added to TopK's loss for the batch x (rows, d): a scalar with its graph."""
        w, sizes = net.weights, net.recipe.sizes
        pre = scores(w, x)
        values, cols = top_k(pre, min(sizes.m, WIDE * sizes.k))
        codes = values.relu()  # (rows, 4k)
        copy = F.embedding_bag(cols, w["decoder"], mode="sum", per_sample_weights=codes)
        error = (copy + w["decoder_bias"] - x).square().sum(1).mean()
        loss = WIDE_WEIGHT * error
        if self.weight:
            loss = loss + self.weight * sizes.d * self.contrast(codes, cols, sizes.k, sizes.m)
        return loss

    def contrast(self, codes: Tensor, cols: Tensor, k: int, m: int) -> Tensor:
        """InfoNCE over the cosines of the batch's codes at k, each code its own positive: a scalar, at least 0.

        The embeddings are frozen, so that a text has no second view: what is left is that others lie far from it.
        """
        best, place = codes.topk(min(k, codes.shape[1]), dim=1, sorted=False)
        dense = codes.new_zeros((len(codes), m)).scatter(1, cols.gather(1, place), best)
        unit = F.normalize(dense, dim=1)
        target = torch.arange(len(codes), device=codes.device)
        return F.cross_entropy(unit @ unit.T / self.temperature, target)


class _Session(Session):
    """The training of an autoencoder with the contrastive loss in place of its variant's."""

    def __init__(self, sae: SparseAutoencoder, loss: Contrastive) -> None:
        super().__init__(sae, "csr")
        self.loss = loss

    def open(self, feed: Feed, key: Any = None) -> None:
        super().open(feed, key)
        self.trainer.variant = self.loss
        self.identity["csr"] = dataclasses.asdict(self.loss)


class CSRCoder(TransformerMixin, BaseEstimator):
    """Embeddings (n, d) as codes with k active of n_features numbers, whose cosines stand for the embeddings' own.

    loss = FVU at k + 1/8 · FVU at 4k + 1/32 · AuxK + contrast · InfoNCE of the codes in a batch, on embeddings at unit
    length. Fitted on unlabelled embeddings; a text's code depends on nothing but its embedding.

    Parameters
    ----------
    k : active features per code. n_features : size of the dictionary; None: four times the width of the embeddings.
    contrast, temperature : weight of the contrastive loss (0: none), and what its cosines are divided by.
    steps, batch_size, learning_rate, seed, device : as in `SparseAutoencoder`.

    Attributes
    ----------
    autoencoder_ : the fitted `SparseAutoencoder`, of variant "topk". n_features_in_ : d.

    Raises `EstimatorInputError` for parameters and shapes that are not allowed, `NonFiniteError` for NaN in X.
    Reference: Wen et al. 2025, arXiv 2503.01776; see also `InvertedIndex`.

    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> coder = CSRCoder(k=2, n_features=8, steps=5, device="cpu").fit(X)
    >>> codes = coder.transform(X)
    >>> codes.shape, bool(codes.count_nonzero(axis=1).max() <= 2)
    ((60, 8), True)
    """

    autoencoder_: SparseAutoencoder
    n_features_in_: int

    def __init__(
        self,
        k: int = 32,
        n_features: int | None = None,
        *,
        contrast: float = 0.3,
        temperature: float = 0.2,
        steps: int | None = None,
        batch_size: int = 512,
        learning_rate: float | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.k = k
        self.n_features = n_features
        self.contrast = contrast
        self.temperature = temperature
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.device = device

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: str | Path | None = None,
        every: int = 1000,
        progress: Report | None = None,
    ) -> CSRCoder:
        """Train on embeddings X (n, d); `checkpoint`, `every` and `progress` as in `SparseAutoencoder.fit`."""
        if not (0 <= self.contrast < float("inf") and 0 < self.temperature < float("inf")):
            raise EstimatorInputError(
                f"contrast is {self.contrast} and temperature {self.temperature}: "
                "0 or more, and more than 0, are needed"
            )
        states = _unit(X)
        sae = SparseAutoencoder(
            4 * states.shape[1] if self.n_features is None else self.n_features,
            self.k,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            device=self.device,
        )
        session = _Session(sae, Contrastive(float(self.contrast), float(self.temperature)))
        run_sessions([session], states, checkpoint, every, progress)
        self.autoencoder_, self.n_features_in_ = sae, states.shape[1]
        return self

    def transform(self, X: Any) -> sparse.csr_array:
        """Codes (n, n_features) of embeddings X (n, d), float32, k or fewer in a row; their lengths are not fixed."""
        check_is_fitted(self, "autoencoder_")
        return self.autoencoder_.transform(_unit(X))

    def inverse_transform(self, codes: Any) -> NDArray[np.float32]:
        """Embeddings (n, d) that codes (n, n_features) stand for; near unit length, not at it."""
        check_is_fitted(self, "autoencoder_")
        return self.autoencoder_.inverse_transform(codes)

    def save(self, folder: str | Path) -> None:
        """Keep the fitted coder in `folder` (safetensors and JSON), in place of what lay there before."""
        check_is_fitted(self, "autoencoder_")
        self.autoencoder_.save(folder)
        write_json(Path(folder) / SETTINGS, self.get_params(deep=False))

    @classmethod
    def load(cls, folder: str | Path) -> CSRCoder:
        """The coder that `save` kept in `folder`; `FathometerError` where there is none or it is damaged."""
        path = Path(folder) / SETTINGS
        try:
            coder = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FathometerError(
                f"{path} cannot be read ({type(error).__name__}): a folder that CSRCoder.save wrote is needed"
            ) from error
        coder.autoencoder_ = SparseAutoencoder.load(folder)
        coder.n_features_in_ = coder.autoencoder_.n_features_in_
        return coder


def _unit(X: Any) -> NDArray[np.float32]:
    return normalise_rows(check_matrix(X).astype(np.float32))
