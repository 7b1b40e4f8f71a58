"""All variants: importing this registers each; one file, one line here, and the conformance tests run over it."""

from __future__ import annotations

from probes.sae import batchtopk, gated, jumprelu, l1, matryoshka, topk
from probes.sae.network import VARIANTS

FILES = (batchtopk, gated, jumprelu, l1, matryoshka, topk)

__all__ = ["FILES", "VARIANTS"]
