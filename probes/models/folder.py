"""What is accepted as a model folder: safetensors or GGUF weights, no foreign code, no way out of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from probes.errors import ModelError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)


def check_folder(folder: Path) -> None:
    """Refuse a missing config.json, links that lead outside, and folders without safe weights."""
    if not (folder / "config.json").is_file():  # first: any folder may come, of millions of files
        raise ModelError(
            f"{folder} is no model folder: it has no config.json (and no modules.json that says where)"
        )
    check_links(folder)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise ModelError(
            f"{folder} has its weights in {pickles[0]} only, a pickle file, which can run code when it is "
            "loaded: convert it to safetensors (model.save_pretrained writes that)"
        )
    raise ModelError(f"{folder} has no weights: a *.safetensors file is needed")


def check_links(folder: Path) -> None:
    """No file may be a link out of the folder; in a hub cache, links into its own `blobs` are the rule."""
    real = folder.resolve()
    allowed = [real]
    if real.parent.name == "snapshots":
        allowed.append(real.parent.parent / "blobs")
    for path in folder.rglob("*"):
        if path.is_symlink():
            goal = path.resolve()
            if not any(goal.is_relative_to(place) for place in allowed):
                raise ModelError(
                    f"{path} is a link to {goal}, outside the model's folder: put the file itself there"
                )


def check_code(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a model that needs its own Python code, unless the user said otherwise."""
    if trust_remote_code:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = read_config(folder)
    if "auto_map" in config and config.get("model_type") not in cast("Any", CONFIG_MAPPING):
        raise ModelError(
            f"{folder} needs Python code of its own ({config['auto_map']}), which is not run: "
            "if you trust its author, say so with --trust-remote-code"
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a vocabulary; a tokenizer_config.json alone would give an empty tokenizer."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a dictionary; `ModelError` if it cannot be read."""
    try:
        value = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{folder / 'config.json'} is no JSON object")
    return cast("dict[str, Any]", value)
