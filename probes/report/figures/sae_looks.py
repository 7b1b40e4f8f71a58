"""How the coders of a run of autoencoders are called and drawn, the same in every figure."""

from __future__ import annotations

from probes.report.figures.focus import Look
from probes.report.text import clean, label
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

_LOOKS = {
    "sae": Look("autoencoder", PALETTE[0]),
    "topk": Look("TopK", PALETTE[0]),
    "batchtopk": Look("BatchTopK", ACCENT, symbol="pentagon"),
    "matryoshka": Look("Matryoshka", PALETTE[4], symbol="hexagon"),
    "jumprelu": Look("JumpReLU", PALETTE[3], symbol="star"),
    "gated": Look("Gated", PALETTE[0], "dash", "triangle-down"),
    "l1": Look("L1", ACCENT, "dash", "star-diamond"),
    "csr": Look("sparse code (CSR)", PALETTE[0]),
    "pca": Look("PCA", PALETTE[1], "dash", "square"),
    "neurons": Look("neurons", PALETTE[2], "dashdot", "triangle-up"),
    "clusters": Look("k-means", PALETTE[3], "longdash", "cross"),
    "mean difference": Look("mean difference", PALETTE[1], "dash", "square"),
    "matryoshka truncation": Look("Matryoshka truncation", PALETTE[2], "dashdot", "triangle-up"),
    "dense": Look("dense probe", PALETTE[4], "longdashdot", "x"),
    "full": Look("full vector", PALETTE[4], "longdashdot", "x"),
    "random": Look("random weights", NEUTRAL, "dot", "diamond"),
}
ORDER = tuple(_LOOKS)


def look_of(kind: str) -> Look:
    """Name, colour, dash and marker of a kind of coder."""
    return _LOOKS.get(kind, Look(label(kind, 30), PALETTE[3], "longdash", "cross"))


def said(kind: str) -> str:
    """A kind of coder in words, for texts outside of figures."""
    return _LOOKS[kind].name if kind in _LOOKS else clean(kind, 30)
