"""Matryoshka: nested dictionaries, each of which must reconstruct on its own; the first features stay general.

Bussmann et al. 2025 (arXiv 2503.17547). Sparsity is BatchTopK's; the loss is the mean over the prefixes.
"""

from __future__ import annotations

from probes.sae.batchtopk import BatchTopK
from probes.sae.network import VARIANTS
from probes.sae.settings import Recipe


class Matryoshka(BatchTopK):
    """BatchTopK with a reconstruction loss for every prefix of the dictionary."""

    name = "matryoshka"

    def prefixes(self, recipe: Recipe) -> tuple[int, ...]:
        return recipe.sizes.prefixes


VARIANTS.add("matryoshka", Matryoshka())
