"""`untrained`: the control that says what a probe reads from the architecture and the tokens alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from probes.errors import InputError, ModelError
from probes.models.copies import copy_model
from probes.models.model import Model, check_finite
from probes.models.quiet import quiet_transformers

_SEEDS = 2**32  # numpy takes no larger ones


def untrained(model: Model, seed: int = 0) -> Model:
    """The same model before training: every weight drawn anew by the architecture's own initialisation.

    Configuration, tokenizer, embedding spec, places, device and precision are those of `model`, which is left as it
    is. The same seed gives the same weights on every device: they are drawn on the CPU in float32. No random state of
    the process is touched. (Zhang & Bowman 2018, arXiv 1809.10040: the random-encoder baseline of probing.)

    Args:
        model: from `load_model` or `wrap_model`.
        seed: 0 … 2³² - 1.

    Raises:
        InputError: a seed that is none. ModelError: an architecture that cannot be built from its configuration.

    Examples:
        >>> fresh = untrained(load_model("minilm"))  # doctest: +SKIP
        >>> fresh.name  # doctest: +SKIP
        'minilm (untrained)'
    """
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < _SEEDS:
        raise InputError(f"seed is {seed!r}: a whole number from 0 to {_SEEDS - 1} is needed")
    fresh = _weights(_build(model, int(seed)))
    old = _weights(model.hf_model)
    missing = sorted(set(old) - set(fresh))
    if missing:
        raise ModelError(
            f"{model.name} has weights that its configuration does not make, such as {missing[0]}: "
            "it cannot be initialised anew"
        )
    tensors = {id(tensor): _like(tensor, fresh[name], name) for name, tensor in old.items()}
    twin = copy_model(model, f"{model.name} (untrained)", tensors)
    check_finite(twin.hf_model)
    return twin


def _build(model: Model, seed: int) -> nn.Module:
    """A model of the same class from the same configuration, on the CPU in float32."""
    kind: Any = type(model.hf_model)
    config = copy.deepcopy(model.config)
    before = torch.get_default_dtype()
    with _seeded(seed), torch.device("cpu"), quiet_transformers():
        torch.set_default_dtype(torch.float32)
        try:
            return cast("nn.Module", kind(config))
        except Exception as error:  # whatever the class raises for a configuration it does not take
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(
                f"{kind.__name__} cannot be built from the configuration of {model.name}: "
                f"{type(error).__name__}: {reason[:200]}"
            ) from error
        finally:
            torch.set_default_dtype(before)


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Seeds every generator on the CPU and puts their states back; `torch.manual_seed` would reseed CUDA too."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, tied ones under each of their names.

    Buffers that are not saved are computed from the configuration (rotary frequencies): training does not change them.
    """
    saved = module.state_dict().keys()
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    buffers = module.named_buffers(remove_duplicate=False)
    return {**named, **{name: buffer for name, buffer in buffers if name in saved}}


def _like(old: Tensor, new: Tensor, name: str) -> Tensor:
    if old.shape != new.shape:
        raise ModelError(
            f"weight {name} has shape {tuple(old.shape)}, its configuration makes {tuple(new.shape)}"
        )
    made = new.detach().to(old.device, old.dtype)
    if isinstance(old, nn.Parameter):
        return nn.Parameter(made, requires_grad=old.requires_grad)
    return made
