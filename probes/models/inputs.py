"""What a backbone is called with, and a tiny input to try one out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from probes.errors import ModelError
from probes.models.trace import first_tensor

TRIAL_TOKENS = 7
# Passed also to a forward that only says **kwargs.
_ALWAYS = ("input_ids", "pixel_values", "attention_mask", "output_hidden_states")
_SPECIAL = ("pad", "bos", "eos", "cls", "sep", "mask", "unk", "decoder_start")


def text_config(model: nn.Module) -> Any:
    """The configuration of the text part (the whole one for plain models)."""
    config = cast("Any", model).config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def takes_pixels(model: nn.Module) -> bool:
    """Whether the model reads images (`pixel_values`)."""
    return getattr(model, "main_input_name", "input_ids") == "pixel_values"


def accepts(module: nn.Module, argument: str) -> bool:
    """Whether `forward` names this argument."""
    return argument in _parameters(module)


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """What `forward` takes. Kept per class, since asking costs more than a layer-0 pass; a `forward` that was replaced
    on the instance is asked anew."""
    if "forward" in vars(module):
        return inspect.signature(module.forward).parameters
    return _class_parameters(type(module))


@functools.lru_cache(maxsize=256)
def _class_parameters(kind: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.forward).parameters


def call_arguments(base: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` without what the backbone does not take, and without a cache, which capture never needs."""
    parameters = _parameters(base)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments = {
        name: value
        for name, value in given.items()
        if value is not None and (name in parameters or (open_ended and name in _ALWAYS))
    }
    if "use_cache" in parameters:
        arguments["use_cache"] = False
    return arguments


def pad_id(tokenizer: Any, model: nn.Module) -> int:
    """The token id to pad with; any will do where there is none, since padding is masked."""
    config = text_config(model)
    rows = getattr(config, "vocab_size", None)
    for source in (tokenizer, config):
        token = getattr(source, "pad_token_id", None)
        # a [PAD] added to a tokenizer alone has no row in the embedding table
        if isinstance(token, int) and 0 <= token < (rows or token + 1):
            return token
    return 0


def run_base(base: nn.Module, given: Mapping[str, Any]) -> Tensor:
    """`last_hidden_state` (batch, token, d) of the backbone, without gradients."""
    with torch.no_grad():
        output = base(**call_arguments(base, given))
    last = getattr(output, "last_hidden_state", None)
    found = last if isinstance(last, Tensor) else first_tensor(output)
    if found is None or found.ndim != 3:
        raise ModelError(
            f"{type(base).__name__} returns no last_hidden_state of shape (batch, token, d): "
            "only models that give one state per token can be used"
        )
    return found


def plain_ids(model: nn.Module, n: int) -> Tensor:
    """n different token ids (n,) that are no special tokens, spread over the vocabulary."""
    config = text_config(model)
    size = getattr(config, "vocab_size", None)
    if not isinstance(size, int):
        size = int(cast("Any", model).get_input_embeddings().weight.shape[0])
    avoided = {getattr(config, f"{name}_token_id", None) for name in _SPECIAL}
    plain = [token for token in range(size) if token not in avoided][:50_000]
    step = max(1, len(plain) // (n + 1))
    return torch.tensor([plain[((i + 1) * step) % len(plain)] for i in range(n)])


def trial_inputs(model: nn.Module, rows: int = 2) -> dict[str, Tensor]:
    """A tiny input with `rows` equal rows: 7 plain tokens, or one image of the configured size."""
    device = next(model.parameters()).device
    if takes_pixels(model):
        config = cast("Any", model).config
        side = getattr(config, "image_size", None)
        if side is None or not hasattr(config, "num_channels"):
            raise ModelError(
                f"{type(model).__name__} does not say its image size: only vision transformers can be used"
            )
        height, width = side if isinstance(side, (tuple, list)) else (side, side)
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(1, config.num_channels, height, width, generator=generator)
        pixels = image.expand(rows, -1, -1, -1).contiguous()
        return {"pixel_values": pixels.to(device, next(model.parameters()).dtype)}
    ids = plain_ids(model, TRIAL_TOKENS).expand(rows, -1).contiguous().to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
