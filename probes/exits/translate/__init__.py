"""Translators: maps from what a cut model has seen to the embedding of the full one, fitted without training it."""

from probes.exits.translate.linear import (
    MIN_TEXTS,
    Translator,
    TranslatorFitter,
    fit_translator,
)

__all__ = ["MIN_TEXTS", "Translator", "TranslatorFitter", "fit_translator"]
