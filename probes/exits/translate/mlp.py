"""A small MLP as a translator, for comparison: what a map that bends would bring over a ridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.translate.linear import HOLD_OUT_EVERY, MIN_TEXTS, Translator, fit_translator

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Mlp:
    """ridge(x) + gelu(standardise(x) · W₁ + b₁) · W₂: what the ridge leaves over is learned by one hidden layer.

    `r2` is the held-out R², `epochs` how long it was trained (0: nothing was gained over the ridge).
    """

    ridge: Translator
    hidden: tuple[Array, Array]  # (d, h), (h,)
    out: Array  # (h, d_out)
    r2: float
    epochs: int
    n: int

    def __call__(self, X: Array) -> Array:
        """Predicted full embeddings (n, d_out), not normalised, for inputs X (n, d)."""
        import torch

        W, b = self.hidden
        bent = torch.from_numpy(self.ridge.standardiser.transform(X) @ W + b)
        return self.ridge(X) + torch.nn.functional.gelu(bent).numpy() @ self.out


def fit_mlp(X: Array, Y: Array, hidden: int = 256, epochs: int = 30, seed: int = 0) -> Mlp:
    """The best epoch by reconstruction of every fifth text, of at most `epochs` with AdamW on batches of 256.

    The hidden layer starts at no effect, so that the ridge, fitted on all texts but those, is the worst it can be.
    """
    import torch

    if len(X) < MIN_TEXTS:
        raise InputError(f"{len(X)} texts came to fit an MLP: at least {MIN_TEXTS} are needed")
    held = np.arange(len(X)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    ridge = fit_translator(X[~held], Y[~held])
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.from_numpy(ridge.standardiser.transform(X)).float()
    left = torch.from_numpy(np.asarray(Y - ridge(X))).float()  # what the ridge leaves over
    train, out = torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
    W = torch.randn(inputs.shape[1], hidden, generator=generator) / inputs.shape[1] ** 0.5
    weights = [W, torch.zeros(hidden), torch.zeros(hidden, left.shape[1])]
    for weight in weights:
        weight.requires_grad_()
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01)

    def predict(rows: Any) -> Any:
        return torch.nn.functional.gelu(inputs[rows] @ weights[0] + weights[1]) @ weights[2]

    best, kept, when = float((left[out] ** 2).sum()), [w.detach().clone() for w in weights], 0
    for epoch in range(1, epochs + 1):
        for rows in train[torch.randperm(len(train), generator=generator)].split(256):
            optimiser.zero_grad()
            loss = ((predict(rows) - left[rows]) ** 2).sum(1).mean()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            error = float(((predict(out) - left[out]) ** 2).sum())
        if error < best:
            best, kept, when = error, [w.detach().clone() for w in weights], epoch
    W1, b1, W2 = (w.double().numpy() for w in kept)
    total = float(((Y[held] - Y[held].mean(axis=0)) ** 2).sum())
    return Mlp(ridge, (W1, b1), W2, 1 - best / total if total > 0 else 0.0, when, len(X))
