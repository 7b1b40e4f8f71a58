"""A loaded model with its places found, and `wrap_model` for models that are already in memory."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.errors import DoesNotApply, ModelError, NonFiniteError
from probes.models.embedding import EmbeddingSpec
from probes.models.find import find_structure
from probes.models.inputs import call_arguments, pad_id, takes_pixels, text_config, trial_inputs
from probes.models.selfcheck import check_layers, check_sites, find_padding
from probes.models.structure import Structure

Kind = Literal["encoder", "decoder", "vision"]
_UNBOUNDED = 10**6  # tokenizers say "no limit" with numbers like 1e30


@dataclass(frozen=True, eq=False)
class Model:
    """A transformers model in eval mode with the places of its layers, heads and norms.

    `padding_sides` are the sides on which padding was seen not to matter; `position_ids` says whether
    they must be passed for that (`forward_inputs` does it).
    """

    name: str
    hf_model: nn.Module
    tokenizer: Any  # None for vision models
    structure: Structure
    embedding: EmbeddingSpec
    padding_sides: tuple[str, ...] = ("right",)
    position_ids: bool = False

    @property
    def config(self) -> Any:
        return cast("Any", self.hf_model).config

    @property
    def n_layers(self) -> int:
        return self.structure.n_layers

    @property
    def d_model(self) -> int:
        return self.structure.d_model

    @property
    def n_heads(self) -> int | None:
        """Heads per attention block; None where there are none, or not the same number everywhere."""
        return self._common([block.n_heads for block in self.structure.blocks])

    @property
    def n_kv_heads(self) -> int | None:
        return self._common([block.n_kv_heads for block in self.structure.blocks])

    @property
    def d_head(self) -> int | None:
        return self._common([block.d_head for block in self.structure.blocks])

    @staticmethod
    def _common(values: list[int | None]) -> int | None:
        known = {
            value for value in values if value is not None
        }  # hybrids have blocks without heads
        return known.pop() if len(known) == 1 else None

    @property
    def device(self) -> torch.device:
        return next(self.structure.base.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.structure.base.parameters() if p.is_floating_point())

    @property
    def is_causal(self) -> bool:
        """Whether no token sees later ones; found by changing the last token."""
        return self.structure.is_causal

    @property
    def kind(self) -> Kind:
        if takes_pixels(self.hf_model):
            return "vision"
        return "decoder" if self.is_causal else "encoder"

    @functools.cached_property
    def max_length(self) -> int:
        """Longest input in tokens, special ones included: the maker's, the tokenizer's or the positions'."""
        config = text_config(self.hf_model)
        limits = [
            self.embedding.max_length,
            getattr(self.tokenizer, "model_max_length", None),
            usable_positions(config),
        ]
        known = [int(limit) for limit in limits if limit and limit < _UNBOUNDED]
        return min(known, default=_UNBOUNDED)

    @property
    def pad_id(self) -> int:
        """The token id to pad with; any will do where there is none, since padding is masked."""
        return pad_id(self.tokenizer, self.hf_model)

    @property
    def weights_hash(self) -> str:
        """Hex SHA-256 over names, types, shapes and content hashes of all weights *as they are now*.

        It is taken anew each time, so that a model changed in memory is never taken for the one loaded.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.hf_model.state_dict().items()):
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            content = xxhash.xxh3_128_hexdigest(flat.numpy())
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {content}\n".encode())
        return digest.hexdigest()

    @functools.cached_property
    def tokenizer_hash(self) -> str:
        """Hex SHA-256 of the tokenizer's definition (padding and truncation settings left out)."""
        return hash_tokenizer(self.tokenizer)

    def forward_inputs(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        """Arguments for `structure.base` for a padded batch: (batch, token) ids and 0/1 mask.

        Positions are passed where the model would otherwise count the padding; no cache is kept.
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.position_ids:
            given["position_ids"] = count_positions(attention_mask)
        return call_arguments(self.structure.base, given)

    def embed(self, pooled: NDArray[np.floating]) -> NDArray[np.float32]:
        """Pooled `exit` states (n, d) through the maker's head (Dense, Normalize, …); identity when none."""
        return self.embedding.apply(pooled)

    def require_tokenizer(self) -> Any:
        """The tokenizer; `DoesNotApply` for vision models, an error where it is missing."""
        if self.tokenizer is not None:
            return self.tokenizer
        if self.kind == "vision":
            raise DoesNotApply(f"{self.name} reads images, not texts: give pixel_values")
        raise ModelError(f"{self.name} has no tokenizer: wrap the model together with one")


def count_positions(attention_mask: Tensor) -> Tensor:
    """Positions (batch, token) that start at 0 at the first real token; padding gets 0."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def usable_positions(config: Any) -> int | None:
    """Positions a text may have; RoBERTa-like tables lose the first pad_token_id + 1 rows."""
    size = getattr(config, "max_position_embeddings", None)
    if not isinstance(size, int) or size <= 0:
        return None
    offset = getattr(config, "model_type", "") in _OFFSET_POSITIONS
    pad = getattr(config, "pad_token_id", None)
    return size - (pad or 0) - 1 if offset else size


# Only the *length limit* of these is special: their position tables start at pad_token_id + 1.
_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "mpnet",
        "longformer",
        "data2vec-text",
    }
)


def hash_tokenizer(tokenizer: Any) -> str:
    """Hex SHA-256 of what decides a tokenizer's output; "-" hashed for None."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        text = "-"
    elif backend is not None:
        definition = json.loads(backend.to_str())
        definition.pop("padding", None)
        definition.pop("truncation", None)
        text = json.dumps(definition, sort_keys=True)
    else:
        special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
        text = json.dumps(
            [type(tokenizer).__name__, tokenizer.get_vocab(), special], sort_keys=True
        )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_finite(model: nn.Module) -> None:
    """`NonFiniteError` that names the first tensor with NaN or infinity."""
    done: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in done:
            continue  # tied to one already seen
        done.add(tensor.data_ptr())
        if tensor.is_floating_point() and not math.isfinite(float(tensor.float().sum())):
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise NonFiniteError(
                    f"weight {name} holds NaN or infinity in {bad:,} of {tensor.numel():,} places: "
                    "the file is damaged, or training diverged"
                )


def wrap_model(
    hf_model: nn.Module,
    tokenizer: Any = None,
    name: str = "in-memory",
    embedding: EmbeddingSpec | None = None,
) -> Model:
    """A `Model` around a transformers model in memory: structure found, then checked by running it.

    Raises `ModelError` where blocks are not found or the check fails, `NonFiniteError` for bad weights.
    """
    if not hasattr(hf_model, "config") or not hasattr(hf_model, "base_model"):
        raise ModelError(
            f"{type(hf_model).__name__} is no transformers model: one with .config and .base_model is needed"
        )
    hf_model.eval()
    check_finite(hf_model)
    structure = find_structure(hf_model)
    check_layers(structure, trial_inputs(hf_model), name)
    check_sites(structure, trial_inputs(hf_model, rows=1), name)
    sides: tuple[str, ...] = ()
    explicit = False
    if not takes_pixels(hf_model):
        sides, explicit = find_padding(structure.base, hf_model, tokenizer)
    if embedding is None:
        embedding = EmbeddingSpec(pooling="last" if structure.is_causal else "mean")
    return Model(name, hf_model, tokenizer, structure, embedding, sides, explicit)
