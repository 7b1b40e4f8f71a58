"""Reading the files of SAELens: what they say is checked before anything is computed from it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from numpy.typing import NDArray

from probes.errors import FathometerError, InputError, NonFiniteError, unknown_name

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"

Double = NDArray[np.float64]

VARIANT_OF = {
    "standard": "l1",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "matryoshka",
}
NORMALISATIONS = ("none", "expected_average_only_in", "covariance_whitening")
_PER_ROW = ("layer_norm", "constant_norm_rescale")
_RANKED = ("topk", "batchtopk", "matryoshka_batchtopk")  # where lengths of decoder rows may count


@dataclass(frozen=True)
class Config:
    """What `cfg.json` says, as far as it changes a number."""

    architecture: str
    d: int
    m: int
    k: int | None
    subtract: bool  # whether b_dec is taken off the input
    normalise: str
    lengthen: bool  # whether pre-activations are multiplied by the length of their decoder row
    metadata: dict[str, Any]

    @property
    def variant(self) -> str:
        return VARIANT_OF[self.architecture]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; `FathometerError` where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FathometerError(
            f"{path} cannot be read ({type(error).__name__}): a folder that SAELens wrote, with {CONFIG} "
            f"and {WEIGHTS}, is needed"
        ) from error
    if not isinstance(found, dict):
        raise FathometerError(f"{path} holds {type(found).__name__}: a JSON object is needed")
    return found


def read_config(folder: Path) -> Config:
    """`cfg.json` of `folder`, of sae-lens 6 or older."""
    path = folder / CONFIG
    raw = read_json(path)
    architecture = raw.get("architecture", "standard")
    activation = raw.get("activation_fn", raw.get("activation_fn_str", "relu"))
    k = raw.get("k")
    if activation == "topk":  # before sae-lens 6
        architecture, given = "topk", raw.get("activation_fn_kwargs")
        k = given.get("k", k) if isinstance(given, dict) else k
    elif activation != "relu":
        raise InputError(f"{path}: activation function {activation!r}: relu and topk can be read")
    if architecture not in VARIANT_OF:
        raise unknown_name("architecture", str(architecture), VARIANT_OF, f"It stands in {path}.")
    metadata = raw.get("metadata")
    ranked = architecture in _RANKED
    return Config(
        architecture,
        _size(raw.get("d_in"), "d_in", path),
        _size(raw.get("d_sae"), "d_sae", path),
        max(1, round(_k(k, path))) if ranked else None,
        _flag(raw.get("apply_b_dec_to_input", True), "apply_b_dec_to_input", path),
        _normalisation(raw.get("normalize_activations"), path),
        ranked
        and _flag(
            # inference files are without by default, training files with
            raw.get("rescale_acts_by_decoder_norm", architecture != "topk"),
            "rescale_acts_by_decoder_norm",
            path,
        ),
        metadata if isinstance(metadata, dict) else {},
    )


def _size(value: Any, name: str, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise FathometerError(f"{path}: {name} is {value!r}: a whole number from 1 is needed")
    return value


def _k(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
        raise FathometerError(f"{path}: k is {value!r}: a number above 0 is needed")
    return float(value)


def _flag(value: Any, name: str, path: Path) -> bool:
    if value not in (True, False):
        raise FathometerError(f"{path}: {name} is {value!r}: true or false is needed")
    return bool(value)


def _normalisation(value: Any, path: Path) -> str:
    if value is None or isinstance(value, bool):  # before sae-lens 3
        return NORMALISATIONS[bool(value)]
    if value in _PER_ROW:
        raise InputError(
            f"{path}: normalize_activations {value!r} divides every state by a length of its own, which no weights can "
            f"take up: {', '.join(NORMALISATIONS)} can be read"
        )
    if value not in NORMALISATIONS:
        raise unknown_name("normalize_activations", str(value), NORMALISATIONS, f"It is in {path}.")
    return str(value)


def read_tensors(path: Path) -> dict[str, Double]:
    """All tensors of a safetensors file in float64; `NonFiniteError` for NaN and infinity."""
    try:
        found = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise FathometerError(
            f"{path} is missing or damaged ({type(error).__name__}): weights in safetensors are needed"
        ) from error
    tensors = {name: t.double().numpy() for name, t in found.items()}
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(f"{path}: {name} holds NaN or infinity")
    return tensors


def read_scaler(folder: Path) -> float:
    """The factor that states were multiplied by, from the file that SAELens keeps beside a checkpoint."""
    path = folder / SCALER
    if not path.is_file():
        raise InputError(
            f"{folder}: states were multiplied by a number (expected_average_only_in) that is not there: put {SCALER} "
            "beside the weights, or save the autoencoder with save_inference_model, which folds it in"
        )
    factor = read_json(path).get("scaling_factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise FathometerError(f"{path}: scaling_factor is {factor!r}: a number above 0 is needed")
    return float(factor)


def read_whitening(folder: Path, d: int) -> tuple[Double, Double, Double]:
    """Mean (d,), whitening matrix (d, d) and its inverse, which SAELens keeps beside a checkpoint."""
    path = folder / WHITENING
    if not path.is_file():
        raise InputError(
            f"{folder}: states were whitened (covariance_whitening) by a matrix that is not there: put {WHITENING} "
            "beside the weights, or save the autoencoder with save_inference_model, which folds it in"
        )
    tensors = read_tensors(path)
    shapes = {"mean": (d,), "matrix": (d, d), "inverse_matrix": (d, d)}
    check_shapes(tensors, shapes, path)
    return tensors["mean"], tensors["matrix"], tensors["inverse_matrix"]


def read_weights(folder: Path, config: Config) -> dict[str, Double]:
    """The weights that the architecture has, float64, in the names of the inference files."""
    path = folder / WEIGHTS
    tensors = read_tensors(path)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors and not np.allclose(tensors.pop(name), 1):
            raise InputError(f"{path}: {name} (before sae-lens 6) differs from 1 and is not read")
    if config.architecture == "jumprelu" and "log_threshold" in tensors:
        tensors["threshold"] = np.exp(tensors.pop("log_threshold"))
    if "topk_threshold" in tensors:
        tensors["threshold"] = np.full(
            config.m, float(tensors.pop("topk_threshold").reshape(-1)[0])
        )
    m, d = config.m, config.d
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d, m), "W_dec": (m, d), "b_dec": (d,)}
    own = {"gated": ("b_gate", "r_mag", "b_mag"), "l1": ("b_enc",), "topk": ("b_enc",)}
    shapes |= dict.fromkeys(own.get(config.variant, ("b_enc", "threshold")), (m,))
    check_shapes(tensors, shapes, path)
    return tensors


def check_shapes(
    tensors: dict[str, Double], shapes: dict[str, tuple[int, ...]], path: Path
) -> None:
    """`FathometerError` unless exactly these tensors are there."""
    came = {name: values.shape for name, values in tensors.items()}
    if came != shapes:
        wrong = sorted(n for n in came.keys() | shapes.keys() if came.get(n) != shapes.get(n))
        told = "; ".join(
            f"{n}: {came.get(n, 'missing')}, {shapes.get(n, 'none')} due" for n in wrong
        )
        raise FathometerError(f"{path} does not fit its {CONFIG}: {told[:300]}")
