"""Datasets: built-in ones, files, retrieval folders, the hub; and splits that share nothing."""

from __future__ import annotations

from probes.datasets.catalogue import DATASETS, DatasetEntry, builtin_datasets, register_dataset
from probes.datasets.concepts import DEFAULT_CONCEPTS, ConceptData, Concepts, load_concepts
from probes.datasets.describe import dataset_entries, describe, describe_entry, list_datasets
from probes.datasets.limit import limit_dataset
from probes.datasets.load import dataset_names, load_dataset, load_texts, require_dataset
from probes.datasets.noise import NOISES, corrupt, corrupt_dataset
from probes.datasets.splits import Parts, components, fold_text, four_parts, group_folds

__all__ = [
    "DATASETS",
    "DEFAULT_CONCEPTS",
    "NOISES",
    "ConceptData",
    "Concepts",
    "DatasetEntry",
    "Parts",
    "builtin_datasets",
    "components",
    "corrupt",
    "corrupt_dataset",
    "dataset_entries",
    "dataset_names",
    "describe",
    "describe_entry",
    "fold_text",
    "four_parts",
    "group_folds",
    "limit_dataset",
    "list_datasets",
    "load_concepts",
    "load_dataset",
    "load_texts",
    "register_dataset",
    "require_dataset",
]
