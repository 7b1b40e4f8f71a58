"""Embedding collapse: what long texts, anisotropy, the output head and index size do to embeddings, and what helps."""
