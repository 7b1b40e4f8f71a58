"""Autoencoders in the format of SAELens: a folder with `cfg.json` and `sae_weights.safetensors`.

What is centred and scaled here is folded into the weights there, so that codes and reconstructions are the same
numbers: with W_enc = scale · encoderᵀ, W_dec = decoder / scale and b_dec = mean + decoder_bias / scale, which SAELens
subtracts from its input too. Layout as sae-lens 6 writes it (https://github.com/decoderesearch/SAELens).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from probes.errors import EstimatorInputError, InputError
from probes.files import make_dir, replace_file, write_json
from probes.sae.estimator import SparseAutoencoder
from probes.sae.saelens_files import CONFIG, WEIGHTS, Config, read_config, read_weights
from probes.sae.saelens_fold import Plain, folded

Double = NDArray[np.float64]

OWN = "fathometer"  # key of the metadata under which variant and sparsity are kept, which SAELens has no names for
VERSION = "6.54.12"  # of sae-lens, whose layout this is; without one SAELens takes the file for an old one
_BY_THRESHOLD = ("jumprelu", "batchtopk", "matryoshka", "l1")  # what "jumprelu" may have been
_HISTORY = ("step", "fvu", "l0", "dead_share", "penalty", "learning_rate")


def save_saelens(sae: SparseAutoencoder, folder: str | Path, **metadata: Any) -> None:
    """Write a fitted autoencoder as SAELens would, in place of an autoencoder that lies in `folder`.

    "topk" becomes architecture topk, "gated" gated, "l1" standard, and all that have a threshold jumprelu, as SAELens
    does it with BatchTopK and Matryoshka. `metadata` is what SAELens keeps beside it, such as model_name="gpt2",
    hook_name="blocks.3.hook_resid_post", prepend_bos=True, context_size=128; numbers, texts, lists and mappings.

    SAELens sets codes of topk that are below zero to zero: where fewer than k pre-activations are positive, codes and
    reconstruction differ there (superposition of 48 features in 24 dimensions: none at k 3 and 16; at k 40, 11 % of the
    codes, for 0.0002 of the explained variance). Everything else is the same up to rounding.

    Raises `InputError` for metadata that JSON cannot hold, scikit-learn's `NotFittedError` before `fit`.
    """
    check_is_fitted(sae, "decoder_")
    architecture, tensors = _tensors(sae)
    m, d = sae.decoder_.shape
    config: dict[str, Any] = {
        "d_in": d,
        "d_sae": m,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": VERSION, **metadata, OWN: _own(sae)},
        "architecture": architecture,
    }
    if architecture == "topk":
        config |= {"k": min(int(sae.k), m), "rescale_acts_by_decoder_norm": False}
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metadata cannot be kept as JSON ({error}): numbers, texts, lists and mappings are needed"
        ) from error
    data = safetensors.torch.save(
        {name: torch.from_numpy(_float(a)) for name, a in tensors.items()}
    )
    place = make_dir(Path(folder))
    with contextlib.suppress(FileNotFoundError):
        (place / CONFIG).unlink()  # written last: without it there is no autoencoder
    replace_file(place / WEIGHTS, lambda handle: handle.write(data), durable=True, size=len(data))
    write_json(place / CONFIG, config, durable=True)


def _own(sae: SparseAutoencoder) -> dict[str, Any]:
    target = None if sae.target_l0 is None else float(sae.target_l0)
    return {
        "variant": sae.variant,
        "k": int(sae.k),
        "target_l0": target,
        "steps": int(sae.n_steps_),
    }


def _tensors(sae: SparseAutoencoder) -> tuple[str, dict[str, Double]]:
    """Architecture and weights, folded, in float64."""
    encoder, decoder = _wide(sae.encoder_), _wide(sae.decoder_)
    shift = _wide(sae.decoder_bias_)
    moved = encoder @ shift  # b_dec is subtracted from the input, which is more than the mean
    bias = _wide(sae.encoder_bias_) + moved
    common = {
        "W_enc": sae.scale_ * encoder.T,
        "W_dec": decoder / sae.scale_,
        "b_dec": _wide(sae.mean_) + shift / sae.scale_,
    }
    threshold = np.zeros(len(bias)) if sae.threshold_ is None else _wide(sae.threshold_)
    if sae.variant == "gated":
        assert sae.magnitude_log_scale_ is not None
        assert sae.magnitude_bias_ is not None
        log_scale = _wide(sae.magnitude_log_scale_)
        size = _wide(sae.magnitude_bias_) + np.exp(log_scale) * moved
        return "gated", {**common, "b_gate": bias - threshold, "r_mag": log_scale, "b_mag": size}
    common["b_enc"] = bias
    if sae.variant == "topk":
        return "topk", common
    if threshold.min() < 0:
        raise EstimatorInputError(
            f"a threshold is {threshold.min():.3g}: SAELens has no codes below zero"
        )
    if sae.variant == "l1" and not threshold.any():
        return "standard", common
    return "jumprelu", {**common, "threshold": threshold}


def _wide(values: Any) -> Double:
    return np.asarray(values, np.float64)


def load_saelens(folder: str | Path, *, unit_rows: bool = False) -> SparseAutoencoder:
    """The autoencoder that `save_saelens` or SAELens itself kept in `folder`, fitted.

    Codes are those that SAELens gives for the file. Where its decoder rows are equally long, `scale_` takes that up and
    the rows here have length 1. Where they are not, they stay as they are, or with `unit_rows` get length 1 and the
    codes their lengths (not for topk, whose choice of features that would change).

    Architectures standard, topk, jumprelu, gated, batchtopk and matryoshka_batchtopk, inference files and training
    checkpoints. normalize_activations "none" and, with the file beside it that SAELens keeps it in
    (activation_scaler.json, activation_whitening.safetensors), "expected_average_only_in" and "covariance_whitening",
    which are folded in: the autoencoder takes states as the model gives them. With reshape_activations "hook_z" states
    are to come flat, (n, heads · d_head).

    "topk" files get a `threshold_` of 0: SAELens sets those of the k largest that are below zero to zero.

    Raises `InputError` for what this format can say and this library cannot compute, `FathometerError` for files that
    are missing or damaged, `NonFiniteError` for NaN. Weights are read from safetensors only.
    """
    place = Path(folder)
    config = read_config(place)
    plain = folded(place, config, read_weights(place, config))
    lengths = np.linalg.norm(plain.decoder, axis=1)
    scale = 1.0
    if lengths.min() > 0 and np.ptp(lengths) <= 1e-5 * lengths.max():
        scale = float(1 / lengths.mean())
    elif unit_rows:
        plain = _unit_rows(plain, config, np.where(lengths > 0, lengths, 1.0))
    return _estimator(plain, config, scale)


def _unit_rows(plain: Plain, config: Config, lengths: Double) -> Plain:
    if config.variant == "topk":
        raise InputError(
            "decoder rows of this topk autoencoder differ in length: with unit_rows other features would be chosen; "
            "load it without"
        )
    return plain.stretched(lengths)


def _estimator(plain: Plain, config: Config, scale: float) -> SparseAutoencoder:
    m, d = plain.decoder.shape
    own = config.metadata.get(OWN)
    known: dict[str, Any] = own if isinstance(own, dict) else {}
    variant = config.variant
    named = known.get("variant")
    if variant == "jumprelu" and named in _BY_THRESHOLD:
        variant = str(named)
    k = config.k if config.k is not None else _count(known.get("k"), 32)
    sae = SparseAutoencoder(n_features=m, k=k, variant=variant)
    target = known.get("target_l0")
    if isinstance(target, int | float) and 0 < target <= m:
        sae.target_l0 = float(target)
    sae.encoder_ = _float(plain.encoder / scale)
    sae.decoder_ = _float(plain.decoder * scale)
    sae.encoder_bias_ = _float(plain.bias)
    sae.decoder_bias_ = _float((plain.out - plain.centre) * scale)
    sae.mean_, sae.scale_ = _float(plain.centre), scale
    sae.threshold_ = _float(plain.threshold)
    log_scale, size = plain.magnitude or (None, None)
    sae.magnitude_log_scale_ = None if log_scale is None else _float(log_scale)
    sae.magnitude_bias_ = None if size is None else _float(size)
    sae.history_ = pd.DataFrame(columns=list(_HISTORY), dtype=np.float64)
    sae.n_steps_, sae.n_features_in_ = _count(known.get("steps"), 0), d
    return sae


def _float(values: Double) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


def _count(value: Any, otherwise: int) -> int:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0
        else otherwise
    )


def saelens_metadata(folder: str | Path) -> dict[str, Any]:
    """What SAELens keeps beside an autoencoder: model_name, hook_name, context_size, … as they are in the file."""
    return read_config(Path(folder)).metadata
