"""Erasure: remove a concept from states or from a live model, and see what else and whom it harms."""
