"""Numbers of a collapse study that are kept in the tidy table."""

from __future__ import annotations

from probes.registry import Measure, register_measure

COLLAPSE_SLOPE = register_measure(
    Measure(
        "collapse_slope",
        "Length collapse",
        "cosine per doubling",
        -2.0,
        2.0,
        "down",
        "How much the mean cosine between two texts grows each time the texts get twice as long; 0 where length "
        "does not matter.",
        "Zhou et al. 2024 (Length-Induced Embedding Collapse, arXiv 2410.24200)",
    )
)
COLLAPSE_ONSET = register_measure(
    Measure(
        "collapse_onset_tokens",
        "Onset of collapse",
        "tokens",
        1.0,
        None,
        "up",
        "Shortest cut of the same documents from which on the mean cosine of every cut lies above that of the shortest "
        "cut, by a paired 95 % interval; none where that of the longest does not.",
        "Zhou et al. 2024 (arXiv 2410.24200)",
    )
)
HEAD_SPECTRUM_KL = register_measure(
    Measure(
        "head_spectrum_kl",
        "Head spectrum from uniform",
        "nats",
        0.0,
        None,
        "down",
        "Kullback-Leibler divergence of the head's normalised singular values from equal ones; 0 where all "
        "directions count the same.",
        "Godey et al. 2024 (Why do small language models underperform?, arXiv 2404.07647)",
    )
)
