"""Names and defaults of a collapse study: what the command line offers, known without loading any of it."""

from __future__ import annotations

PARTS = ("length", "temperature", "remedies", "chunking", "bottleneck", "mask", "index")
TAUS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
CUTS = (8, 16, 32, 64, 128, 256, 512, 1024)
