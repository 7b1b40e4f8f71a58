"""Names and defaults of the study of autoencoders: what the command line offers, known without loading any of it."""

from __future__ import annotations

PARTS = ("train", "loss", "concepts", "features", "effects", "circuits", "csr")
TASKS = ("ioi", "greater_than", "docstring")
CONCEPTS = "cities,sentiment,tense,numbers"
TEXTS = "docstrings,reference"  # built-in prose, about 250,000 tokens
SPARSE_DATA = "docstrings"
SITES = ("resid_post", "attn_out", "mlp_out", "exit")
