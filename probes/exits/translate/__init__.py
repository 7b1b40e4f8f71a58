"""Translators: maps from what a cut model has seen to the embedding of the full one, fitted without training it."""

from probes.exits.translate.curve import learning_curve
from probes.exits.translate.linear import (
    MIN_TEXTS,
    Translator,
    TranslatorFitter,
    fit_translator,
)
from probes.exits.translate.mismatch import Mismatch, text_mismatch
from probes.exits.translate.runtime import TranslatedModel, read_inputs
from probes.exits.translate.spec import Inputs, LayerTranslator, TranslatorSpec, fit_layer
from probes.exits.translate.vocabulary import StaticTable, sif_weights, static_table, token_counts

__all__ = [
    "MIN_TEXTS",
    "Inputs",
    "LayerTranslator",
    "Mismatch",
    "StaticTable",
    "TranslatedModel",
    "Translator",
    "TranslatorFitter",
    "TranslatorSpec",
    "fit_layer",
    "fit_translator",
    "learning_curve",
    "read_inputs",
    "sif_weights",
    "static_table",
    "text_mismatch",
    "token_counts",
]
