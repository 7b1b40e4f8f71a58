"""A fitted autoencoder on disk: the files of a checkpoint, without what only training needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from probes.errors import FathometerError
from probes.sae.checkpoint import read_checkpoint, save_checkpoint
from probes.sae.settings import Training

if TYPE_CHECKING:
    from probes.sae.estimator import SparseAutoencoder

KIND = "fitted sparse autoencoder"
REQUIRED = ("encoder_", "encoder_bias_", "decoder_", "decoder_bias_", "mean_")
OPTIONAL = ("threshold_", "magnitude_log_scale_", "magnitude_bias_")


def save_estimator(sae: SparseAutoencoder, folder: Path) -> None:
    """Replace what lies in `folder` by `sae`."""
    arrays = {name: getattr(sae, name) for name in (*REQUIRED, *OPTIONAL)}
    tensors = {name: torch.tensor(a) for name, a in arrays.items() if a is not None}
    tensors["scale_"] = torch.tensor(sae.scale_, dtype=torch.float64)
    parameters = {name: _plain(value) for name, value in sae.get_params(deep=False).items()}
    history: list[dict[str, float]] = sae.history_.to_dict("records")  # type: ignore[assignment]
    identity = {"kind": KIND, "parameters": parameters}
    save_checkpoint(folder, tensors, identity, sae.n_steps_, history)


def _plain(value: Any) -> Any:
    if isinstance(value, Training):
        return dataclasses.asdict(value)
    return value.item() if isinstance(value, np.generic) else value


def load_estimator(cls: type[SparseAutoencoder], folder: Path) -> SparseAutoencoder:
    """The estimator that lies in `folder`."""
    found = read_checkpoint(folder)
    if found.identity.get("kind") != KIND:
        raise FathometerError(
            f"{folder} holds no fitted autoencoder but a training: fit again with checkpoint={str(folder)!r}"
        )
    parameters = dict(found.identity["parameters"])
    training = dict(parameters.pop("training"))
    if training["prefixes"] is not None:
        training["prefixes"] = tuple(training["prefixes"])
    sae = cls(**parameters, training=Training(**training))
    for name in REQUIRED:
        setattr(sae, name, found.tensors[name].numpy())
    for name in OPTIONAL:
        tensor = found.tensors.get(name)
        setattr(sae, name, None if tensor is None else tensor.numpy())
    sae.scale_ = float(found.tensors["scale_"])
    sae.history_ = pd.DataFrame(found.history)
    sae.n_steps_, sae.n_features_in_ = found.step, sae.decoder_.shape[1]
    return sae
