"""Whether the texts of the fit are like those that a translator is used on: in words, and in length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, stats

LEAST_COVERAGE = 0.95
MOST_DISTANCE = 0.5


@dataclass(frozen=True)
class Mismatch:
    """`coverage`: share of the target texts' tokens that the fit texts hold too, in [0, 1], 1 is best.

    `length_distance`: Kolmogorov–Smirnov distance of the numbers of tokens per text, in [0, 1], 0 is best; `lengths`
    their medians, of the fit texts and of the target.
    """

    coverage: float
    length_distance: float
    lengths: tuple[float, float]

    def warnings(self) -> tuple[str, ...]:
        """One line for each respect in which the fit texts are too unlike."""
        found: list[str] = []
        if self.coverage < LEAST_COVERAGE:
            found.append(
                f"{1 - self.coverage:.0%} of the tokens do not occur in the texts that translators were fitted on: "
                "unlabelled texts of the same domain (--texts) would help"
            )
        if self.length_distance > MOST_DISTANCE:
            fit, target = self.lengths
            found.append(
                f"translators were fitted on texts of {fit:.0f} tokens and are used on texts of {target:.0f} "
                "(medians): unlabelled texts of like length (--texts) would help"
            )
        return tuple(found)


def text_mismatch(fit: sparse.csr_array, target: sparse.csr_array) -> Mismatch:
    """How unlike the token counts (texts, vocabulary) of the fit texts and of the target texts are.

    >>> same = sparse.csr_array([[1.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    >>> text_mismatch(same, same).warnings()
    ()
    >>> text_mismatch(same, sparse.csr_array([[0.0, 1.0, 3.0]])).coverage
    0.25
    """
    known = np.asarray(fit.sum(axis=0)).ravel() > 0
    total = np.asarray(target.sum(axis=0)).ravel()
    sizes = [np.asarray(counts.sum(axis=1)).ravel() for counts in (fit, target)]
    if not total.sum() or not len(sizes[0]):
        return Mismatch(0.0 if total.sum() else 1.0, 0.0, (0.0, 0.0))
    compared: Any = stats.ks_2samp(sizes[0], sizes[1], method="asymp")
    distance = float(compared.statistic)
    medians = float(np.median(sizes[0])), float(np.median(sizes[1]))
    return Mismatch(float(total[known].sum() / total.sum()), distance, medians)
