"""Reading a sentence-transformers folder: what its maker put after the transformer.

Known: one Transformer, one Pooling, then any of Dense, LayerNorm, Normalize, Dropout. Anything else is
refused, since leaving it out would measure another model than the one that is meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from probes.errors import ModelError
from probes.models.embedding import EmbeddingSpec, Float32, HeadStep, Normalize, Pooling

_POOLINGS: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "first",
    "max": "max",
    "lasttoken": "last",
    "weightedmean": "weighted",
}
# Before sentence-transformers 6: one flag per mode.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": functional.relu,
    "GELU": functional.gelu,
    "Sigmoid": torch.sigmoid,
    "SiLU": functional.silu,
}


@dataclass(frozen=True, eq=False)
class Dense:
    """activation(x Wᵀ + b), plus the input (projected where the widths differ) if the maker says residual."""

    weight: NDArray[np.float32]  # (d_out, d_in)
    bias: NDArray[np.float32] | None
    activation: str
    residual: bool = False
    projection: NDArray[np.float32] | None = None  # (d_out, d_in)

    def __call__(self, rows: Float32) -> Float32:
        if rows.shape[-1] != self.weight.shape[1]:
            raise ModelError(
                f"the model's Dense module takes {self.weight.shape[1]} coordinates, {rows.shape[-1]} came"
            )
        linear = rows @ self.weight.T
        if self.bias is not None:
            linear = linear + self.bias
        out = _ACTIVATIONS[self.activation](torch.from_numpy(np.ascontiguousarray(linear))).numpy()
        if not self.residual:
            return out
        return out + (rows if self.projection is None else rows @ self.projection.T)


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """(x − mean) / √(var + 1e-5) · weight + bias, each row by itself."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, rows: Float32) -> Float32:
        value = functional.layer_norm(
            torch.from_numpy(np.ascontiguousarray(rows)),
            (rows.shape[-1],),
            torch.from_numpy(self.weight),
            torch.from_numpy(self.bias),
        )
        return value.numpy()


def is_sentence_folder(folder: Path) -> bool:
    """Whether sentence-transformers made this folder."""
    return (folder / "modules.json").is_file()


def transformer_folder(folder: Path) -> Path:
    """Where the transformer itself lies: mostly the folder, in old ones `0_Transformer` inside it."""
    return _inside(folder, _modules(folder)[0].get("path", ""))


def read_sentence_folder(folder: Path) -> EmbeddingSpec:
    """The maker's pooling, head, maximum length, prompts, truncation and similarity.

    Raises `ModelError` that names the module for everything that cannot be honoured.
    """
    first, pooling_module, *rest = _modules(folder)
    pooling, leaves_prompt_out = _read_pooling(_inside(folder, pooling_module["path"]))
    head = [step for module in rest for step in _read_step(folder, module)]
    settings = _json(folder / "config_sentence_transformers.json")
    kind = settings.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ModelError(
            f"{folder} is a {kind}: only models of dense sentence embeddings are supported"
        )
    prompts = {str(k): str(v) for k, v in (settings.get("prompts") or {}).items() if v}
    if prompts and leaves_prompt_out:
        raise ModelError(
            f"{folder}: its pooling leaves the prompt's tokens out (include_prompt = false), "
            "which is not supported"
        )
    default = settings.get("default_prompt_name")
    return EmbeddingSpec(
        pooling,
        tuple(head),
        _max_length(_inside(folder, first.get("path", ""))),
        prompts,
        default if default in prompts else None,
        settings.get("truncate_dim"),
        settings.get("similarity_fn_name") or "cosine",
    )


def lowercases(folder: Path) -> bool:
    """Whether sentence-transformers lower-cases texts before the tokenizer sees them."""
    return bool(
        _json(transformer_folder(folder) / "sentence_bert_config.json").get("do_lower_case")
    )


def _max_length(folder: Path) -> int | None:
    value = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return int(value) if value else None


def _modules(folder: Path) -> list[dict[str, Any]]:
    listed = _read(folder / "modules.json")
    if not isinstance(listed, list):
        raise ModelError(f"{folder / 'modules.json'} is no list of modules")
    modules = sorted(cast("list[dict[str, Any]]", listed), key=lambda m: int(m.get("idx", 0)))
    kinds = [_kind(folder, module) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelError(
            f"{folder} starts with the modules {', '.join(kinds[:2]) or 'none'}: "
            "Transformer and Pooling are needed"
        )
    return modules


def _kind(folder: Path, module: dict[str, Any]) -> str:
    name = str(module.get("type", ""))
    if not name.startswith("sentence_transformers."):
        raise ModelError(
            f"{folder} has a module of its own kind ({name}), which brings its own code: not supported"
        )
    return name.rpartition(".")[2]


def _read_pooling(folder: Path) -> tuple[Pooling, bool]:
    config = _json(folder / "config.json")
    given = config.get("pooling_mode")
    if given is None:
        given = [mode for flag, mode in _FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [given] if isinstance(given, str) else list(given)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ModelError(
            f"{folder}: pooling {' + '.join(map(str, modes))} is not supported; "
            f"supported is one of {', '.join(sorted(_POOLINGS))}"
        )
    return _POOLINGS[modes[0]], not config.get("include_prompt", True)


def _read_step(folder: Path, module: dict[str, Any]) -> list[HeadStep]:
    kind = _kind(folder, module)
    if kind == "Dropout":
        return []  # nothing outside training
    place = _inside(folder, module["path"])
    config = _json(place / "config.json")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key, "sentence_embedding") not in ("sentence_embedding", None):
            raise ModelError(f"{place}: {key} = {config[key]!r} is not supported")
    if kind == "Normalize":
        return [Normalize()]
    if kind == "Dense":
        return [_read_dense(place, config)]
    if kind == "LayerNorm":
        weights = _weights(place)
        return [LayerNorm(weights["norm.weight"], weights["norm.bias"])]
    raise ModelError(
        f"{folder}: the module {kind} is not supported; supported after Pooling are "
        "Dense, LayerNorm, Normalize and Dropout"
    )


def _read_dense(place: Path, config: dict[str, Any]) -> Dense:
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.modules.") or name not in _ACTIVATIONS:
        raise ModelError(
            f"{place}: activation {activation} is not supported; supported are "
            f"{', '.join(sorted(_ACTIVATIONS))} of torch.nn"
        )
    weights = _weights(place)
    return Dense(
        weights["linear.weight"],
        weights.get("linear.bias"),
        name,
        bool(config.get("use_residual", False)),
        weights.get("residual.weight"),
    )


def _weights(place: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = place / "model.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{place} has no model.safetensors: weights in pickle files (pytorch_model.bin) are refused, "
            "because loading them can run code"
        )
    try:
        return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def _inside(folder: Path, relative: str) -> Path:
    place = folder / relative
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder}: the module path {relative!r} leads outside the folder")
    return place


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    value = _read(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} is no JSON object")
    return cast("dict[str, Any]", value)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
