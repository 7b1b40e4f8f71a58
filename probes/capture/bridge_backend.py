"""TransformerLens as a backend: a `TransformerBridge` around a twin of the loaded model that shares its weights.

Hooks used (b is a block; layer k ≥ 1 is the output of block k-1):

* `resid_post` 0: `blocks.0.hook_in`; `resid_post` k: `blocks.{k-1}.hook_out`;
* `exit` k: the same, then the model's own final norm, since the bridge knows no such site;
* `attn_out` b: `blocks.{b}.attn.o.hook_out` where the output projection itself is what attention adds to the stream,
  else `blocks.{b}.hook_attn_out`. (In BERT-like blocks `hook_attn_out` lies behind the residual sum and the norm, which
  is another quantity.);
* `mlp_out` b: `blocks.{b}.hook_mlp_out`; `mlp_act` b: `blocks.{b}.mlp.out.hook_in`; `z` b: `blocks.{b}.attn.o.hook_in`.

Not shared: models whose class TransformerLens has no adapter for (DistilBERT, MPNet, ELECTRA, ModernBERT, DeBERTa,
XLM-RoBERTa and bare T5 encoders at version 4.3), and encoder-decoders, whose blocks it names differently. The bridge
computes attention eagerly, so its numbers differ from those of fused kernels in the last bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from probes.capture.hooks import Inputs, Receive, shape_states, token_shape
from probes.capture.sites import Place
from probes.capture.twins import sharing_weights
from probes.errors import DoesNotApply, InputError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from probes.models import Model


class _PassDone(Exception):
    """Everything asked for has been read: leave the forward pass before the language-model head."""


def hook_name(model: Model, place: Place) -> str:
    """The bridge's hook for a place; `exit` is read where `resid_post` is."""
    site, number = place
    if site in ("resid_post", "exit"):
        return "blocks.0.hook_in" if number == 0 else f"blocks.{number - 1}.hook_out"
    if site == "z":
        return f"blocks.{number}.attn.o.hook_in"
    if site == "mlp_act":
        return f"blocks.{number}.mlp.out.hook_in"
    block = model.structure.blocks[number]
    if site == "attn_out" and block.attn_out is block.o_proj:
        return f"blocks.{number}.attn.o.hook_out"
    return f"blocks.{number}.hook_{site}"


def _with_head(twin: Model) -> tuple[nn.Module, str]:
    """The twin as a class that TransformerLens has an adapter for, and that class's name.

    Adapters exist for models with a language-model head. A bare backbone gets an empty one, which never runs.
    """
    import transformers
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    hf_model: Any = twin.hf_model
    name = type(hf_model).__name__
    if getattr(hf_model.config, "is_encoder_decoder", False):
        raise DoesNotApply(
            f"TransformerLens names the blocks of encoder-decoders such as {name} differently"
        )
    if name in SUPPORTED_ARCHITECTURES:
        return hf_model, name
    for heads in (
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
    ):
        headed: Any = heads.get(type(hf_model.config), None)
        if headed is not None and headed.__name__ in SUPPORTED_ARCHITECTURES:
            return _add_head(hf_model, headed), headed.__name__
    raise DoesNotApply(f"TransformerLens has no adapter for {name}: use backend='torch'")


def _add_head(hf_model: Any, headed: Any) -> nn.Module:
    import torch

    with torch.device("meta"):
        whole = headed(hf_model.config)
    setattr(whole, headed.base_model_prefix, hf_model)
    for module in whole.modules():
        for table in (module._parameters, module._buffers):
            for key, tensor in list(table.items()):
                if tensor is not None and tensor.is_meta:
                    zeros = torch.zeros_like(tensor, device=hf_model.device, dtype=hf_model.dtype)
                    as_weight = table is module._parameters
                    table[key] = (
                        torch.nn.Parameter(zeros, requires_grad=False) if as_weight else zeros
                    )
    whole.tie_weights()
    return whole.eval()


class BridgeRunner:
    """Forward passes through a bridge; `model` is the loaded model that the bridge was made a twin of."""

    def __init__(self, model: Model, places: Sequence[Place]) -> None:
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        self.model = model
        whole, architecture = _with_head(sharing_weights(model))
        config = whole.config
        try:
            self.bridge: Any = build_bridge_from_module(
                whole,
                architecture,
                hf_config=config,
                dtype=model.dtype,
                device=model.device,
                model_name=model.name,
            )
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ModelError(
                f"TransformerLens cannot wrap {architecture}: {type(error).__name__}: {reason}"
            ) from error
        self._hooks: dict[str, list[Place]] = {}
        for place in places:
            name = hook_name(model, place)
            if name not in self.bridge.hook_dict:
                raise DoesNotApply(
                    f"{place}: TransformerLens' bridge of {architecture} has no hook {name!r}"
                )
            self._hooks.setdefault(name, []).append(place)

    def __call__(self, inputs: Inputs, receive: Receive) -> None:
        import torch

        left = set(self._hooks)
        shape = token_shape(inputs)

        def read(states: torch.Tensor, hook: Any) -> None:
            name = names[id(hook)]
            for place in self._hooks[name]:
                found = self.model.structure.apply_tail(states) if place.site == "exit" else states
                receive(place, shape_states(self.model, place, found, shape or found.shape[:2]))
            left.discard(name)
            if not left:
                raise _PassDone

        names = {id(self.bridge.hook_dict[name]): name for name in self._hooks}
        pairs = [(name, read) for name in self._hooks]
        rest = {
            name: tensor
            for name, tensor in inputs.items()
            if name not in ("input_ids", "pixel_values")
        }
        main = inputs["input_ids"] if "input_ids" in inputs else inputs["pixel_values"]
        with (
            torch.inference_mode(),
            contextlib.suppress(_PassDone),
            self.bridge.hooks(fwd_hooks=pairs),
        ):
            self.bridge(main, return_type=None, **rest)
        if left:
            raise ModelError(f"TransformerLens' bridge never came by {sorted(left)[0]!r}")


@contextlib.contextmanager
def open_bridge(model: Model, places: Sequence[Place]) -> Generator[BridgeRunner]:
    """A runner on a bridge that lives as long as the context; the model itself is not touched."""
    if model.tokenizer is None and model.kind != "vision":
        raise InputError(f"{model.name} has no tokenizer")
    yield BridgeRunner(model, places)
