"""Run by the tests in an environment that holds sae-lens: makes autoencoders with it, and uses those it is given.

`saelens_worker.py make FOLDER` writes one folder per kind with states.npy, codes.npy and copies.npy beside it;
`saelens_worker.py use FOLDER` writes codes and copies of states.npy beside each autoencoder it finds there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":  # pytest looks for doctests here, in an environment without it
    import sae_lens as sl
    from sae_lens.saes.sae import SAE
    from sae_lens.training.activation_scaler import ActivationScaler

D, M = 12, 40


def randomise(sae: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_({"threshold": noise.abs()}.get(name, 0.4 * noise))


def states(d: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(200, d, generator=generator) + 2
    X[:, 0] = 20 * X[:, 0] + 50  # a massive dimension, far from zero
    return X / 10


def scaled_states(X: torch.Tensor) -> ActivationScaler:
    scaler = ActivationScaler()
    rows = iter([X] * 4)
    scaler.estimate_scaling_factor(D, rows, 2)
    return scaler


def whitened_states(X: torch.Tensor) -> ActivationScaler:
    scaler = ActivationScaler()
    rows = iter([X] * 4)
    scaler.estimate_whitening(D, rows, 2)
    return scaler


def kinds() -> dict[str, object]:
    size = {"d_in": D, "d_sae": M}
    return {
        "standard": sl.StandardSAE(sl.StandardSAEConfig(**size)),
        "standard-no-b-dec": sl.StandardSAE(
            sl.StandardSAEConfig(**size, apply_b_dec_to_input=False)
        ),
        "topk": sl.TopKSAE(sl.TopKSAEConfig(**size, k=5)),
        "topk-many": sl.TopKSAE(sl.TopKSAEConfig(**size, k=32)),
        "topk-rescaled": sl.TopKSAE(
            sl.TopKSAEConfig(**size, k=5, rescale_acts_by_decoder_norm=True)
        ),
        "jumprelu": sl.JumpReLUSAE(sl.JumpReLUSAEConfig(**size)),
        "gated": sl.GatedSAE(sl.GatedSAEConfig(**size)),
        "gated-no-b-dec": sl.GatedSAE(sl.GatedSAEConfig(**size, apply_b_dec_to_input=False)),
    }


def training_kinds() -> dict[str, object]:
    size = {"d_in": D, "d_sae": M}
    batch = sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(**size, k=5))
    nested = sl.MatryoshkaBatchTopKTrainingSAE(
        sl.MatryoshkaBatchTopKTrainingSAEConfig(**size, k=5, matryoshka_widths=[10, M])
    )
    for sae in (batch, nested):
        sae.topk_threshold.fill_(0.8)
    return {
        "train-standard": sl.StandardTrainingSAE(sl.StandardTrainingSAEConfig(**size)),
        "train-topk": sl.TopKTrainingSAE(sl.TopKTrainingSAEConfig(**size, k=5)),
        "train-jumprelu": sl.JumpReLUTrainingSAE(sl.JumpReLUTrainingSAEConfig(**size)),
        "train-gated": sl.GatedTrainingSAE(sl.GatedTrainingSAEConfig(**size)),
        "train-batchtopk": batch,
        "train-matryoshka": nested,
    }


def keep(folder: Path, X: torch.Tensor, codes: torch.Tensor, copies: torch.Tensor) -> None:
    for name, values in (("states", X), ("codes", codes), ("copies", copies)):
        np.save(folder / f"{name}.npy", values.detach().float().numpy())


def use(folder: Path) -> None:
    sae = SAE.load_from_disk(folder)
    X = torch.tensor(np.load(folder / "states.npy"))
    with torch.no_grad():
        codes = sae.encode(X)
        keep(folder, X, codes, sae.decode(codes))


def make(root: Path) -> None:
    X = states(D)
    for i, (name, sae) in enumerate(kinds().items()):
        randomise(sae, i)
        folder = root / name
        sae.save_model(folder)
        np.save(folder / "states.npy", X.numpy())
        use(folder)
    for i, (name, sae) in enumerate(training_kinds().items()):
        randomise(sae, 20 + i)
        for kind, scaler in (("scaled", scaled_states(X)), ("whitened", whitened_states(X))):
            checkpoint = root / f"{name}-{kind}"
            normalise = "expected_average_only_in" if kind == "scaled" else "covariance_whitening"
            sae.cfg.normalize_activations = normalise
            sae.save_model(checkpoint)
            scaler.save(str(checkpoint / "activation_scaler.json"))
            sae.cfg.normalize_activations = "none"
            if "batchtopk" in name or "matryoshka" in name:
                reference = final(sae, root / f"{name}-plain-{kind}")
            else:
                reference = sae
            with torch.no_grad():
                codes = reference.encode(scaler.scale(X))
                keep(checkpoint, X, codes, scaler.unscale(reference.decode(codes)))
        final(sae, root / name)
        np.save(root / name / "states.npy", X.numpy())
        use(root / name)
    half = sl.StandardSAE(sl.StandardSAEConfig(d_in=D, d_sae=M))
    randomise(half, 40)
    folder = root / "bfloat16"
    half.to(torch.bfloat16).save_model(folder)
    whole = SAE.load_from_disk(folder, dtype="float32")
    with torch.no_grad():
        codes = whole.encode(X)
        keep(folder, X, codes, whole.decode(codes))
    old(root / "before-6", X)


def final(sae: object, folder: Path) -> SAE:
    """The inference model that SAELens makes of a trained one."""
    sae.save_inference_model(folder)
    made = SAE.load_from_disk(folder)
    np.save(folder / "states.npy", states(D).numpy())
    use(folder)
    return made


def old(folder: Path, X: torch.Tensor) -> None:
    """A topk file with the configuration of sae-lens 3."""
    sae = sl.TopKSAE(sl.TopKSAEConfig(d_in=D, d_sae=M, k=5))
    randomise(sae, 41)
    sae.save_model(folder)
    config = {
        "d_in": D, "d_sae": M, "dtype": "float32", "device": "cpu", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 5}, "hook_point": "blocks.0.hook_resid_pre",
        "normalize_activations": False, "model_name": "gpt2", "context_size": 128,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    np.save(folder / "states.npy", X.numpy())
    use(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, place = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        make(place)
    else:
        for found in sorted(place.glob("*/cfg.json")):
            use(found.parent)
