"""Finding the whole structure of a model from one tiny traced pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probes.errors import ModelError
from probes.models.find_blocks import find_base, find_chain, find_tail, hidden_of, record_pass
from probes.models.find_sites import find_sites
from probes.models.inputs import TRIAL_TOKENS, run_base, takes_pixels, text_config, trial_inputs
from probes.models.structure import Structure


def find_structure(hf_model: nn.Module) -> Structure:
    """Blocks, tail, heads and sites by tracing a tiny pass; `ModelError` where blocks are not found."""
    base = find_base(hf_model)
    inputs = trial_inputs(hf_model)
    try:
        trace, last = record_pass(base, inputs)
    except (ModelError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        given = " and ".join(inputs)
        raise ModelError(
            f"{type(hf_model).__name__} does not run on a tiny input ({given}): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    chain = find_chain(base, trace)
    tail = find_tail(base, trace, chain, last)
    config = text_config(hf_model)
    blocks = tuple(find_sites(chain, index, config) for index in range(len(chain.calls)))
    get_head = getattr(hf_model, "get_output_embeddings", lambda: None)
    lm_head = None if getattr(config, "is_encoder_decoder", False) else get_head()
    width = hidden_of(chain.calls[0], chain.hidden_place).shape[-1]
    causal = not takes_pixels(hf_model) and _is_causal(base, inputs, last)
    return Structure(base, blocks, tail, lm_head, chain.hidden_place, width, causal)


def _is_causal(base: nn.Module, inputs: dict[str, Tensor], last: Tensor) -> bool:
    ids = inputs["input_ids"]
    changed = ids.clone()
    changed[:, -1] = ids[:, 0]
    after = run_base(base, {**inputs, "input_ids": changed})
    earlier = slice(0, TRIAL_TOKENS - 1)
    change = (after[:, earlier] - last[:, earlier]).abs().max()
    return float(change) <= 16 * torch.finfo(last.dtype).eps * float(last.abs().max())
