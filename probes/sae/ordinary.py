"""Coders that keep away from attention sinks: states far longer than others get no code."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import InputError
from probes.sae.metrics import Coder


class OrdinaryCoder:
    """`coder`, but states longer than `longest` (in units of the states) have no active feature.

    In causal models the first token's state, and that of a few others, is a constant tens of times as long as the rest,
    on which attention rests (Xiao et al. 2023, arXiv 2309.17453). A coder that was trained without them says nothing
    about them, but would give them the largest codes of all.

    >>> from probes.sae import NeuronCoder
    >>> X = np.array([[1.0, 0.0], [0.0, 50.0]])
    >>> OrdinaryCoder(NeuronCoder(1).fit(np.zeros((2, 2))), 5.0).transform(X).toarray().tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, coder: Coder, longest: float) -> None:
        if not longest > 0:
            raise InputError(f"longest is {longest}: a length above 0 is needed")
        self.coder, self.longest = coder, float(longest)

    @property
    def decoder_(self) -> Any:
        return getattr(self.coder, "decoder_")  # noqa: B009  a coder need not have one

    def transform(self, X: Any) -> sparse.csr_array:
        """Codes (n, m) of X (n, d)."""
        table = sparse.csr_array(self.coder.transform(X))
        kept = is_ordinary(X, self.longest)
        if kept.all():
            return table
        made = sparse.csr_array(sparse.diags_array(kept.astype(table.dtype)) @ table)
        made.eliminate_zeros()
        return made

    def inverse_transform(self, codes: Any) -> Any:
        return self.coder.inverse_transform(codes)


def is_ordinary(X: Any, longest: float | None) -> NDArray[np.bool_]:
    """Which rows of X (n, d) are at most `longest` long (None: all): (n,)."""
    if longest is None:
        return np.ones(len(X), bool)
    return np.linalg.norm(np.asarray(X, np.float64), axis=1) <= longest
