"""The format of SAELens: against its arithmetic written out, against the package itself, and against bad files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from probes.errors import FathometerError, InputError, NonFiniteError
from probes.sae import VARIANTS, SparseAutoencoder
from probes.sae.saelens import load_saelens, saelens_metadata, save_saelens

WORKER = Path(__file__).with_name("saelens_worker.py")
SAELENS = "6.54.12"


@pytest.fixture(scope="module")
def trained(planted: Any) -> dict[str, SparseAutoencoder]:
    return {
        name: SparseAutoencoder(48, 3, name, steps=60, batch_size=256, device="cpu").fit(
            planted.X[:2000]
        )
        for name in VARIANTS
    }


def theirs(folder: Path, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and copies as the package computes them, written out here in float64 from the file alone."""
    config = json.loads((folder / "cfg.json").read_text())
    w = {
        name: values.astype(np.float64)
        for name, values in safetensors.numpy.load_file(folder / "sae_weights.safetensors").items()
    }
    assert config["normalize_activations"] == "none"
    x = X.astype(np.float64) - w["b_dec"] * config["apply_b_dec_to_input"]
    if config["architecture"] == "gated":
        size = np.maximum(x @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"], 0)
        codes = (x @ w["W_enc"] + w["b_gate"] > 0) * size
    else:
        pre = x @ w["W_enc"] + w["b_enc"]
        codes = np.maximum(pre, 0)
        if config["architecture"] == "jumprelu":
            codes = codes * (pre > w["threshold"])
        if config["architecture"] == "topk":
            kept = np.zeros_like(codes)
            best = np.argsort(-pre, axis=1)[:, : config["k"]]
            np.put_along_axis(kept, best, np.take_along_axis(codes, best, 1), 1)
            codes = kept
    return codes, codes @ w["W_dec"] + w["b_dec"]


def agree(one: Any, two: Any, size: float = 1e-5) -> None:
    np.testing.assert_allclose(one, two, rtol=0, atol=size * max(1.0, float(np.abs(two).max())))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_files_give_our_codes_by_their_arithmetic(
    name: str, trained: Any, planted: Any, tmp_path: Path
) -> None:
    sae, X = trained[name], planted.X[2000:2400]
    save_saelens(sae, tmp_path, model_name="gpt2", hook_name="blocks.3.hook_resid_post")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    codes, copies = theirs(tmp_path, X)
    agree(np.maximum(sae.transform(X).toarray(), 0), codes)
    if sae.transform(X).data.min() > 0:
        agree(sae.reconstruct(X), copies)
    metadata = saelens_metadata(tmp_path)
    assert metadata["model_name"] == "gpt2"
    assert metadata["sae_lens_version"] == SAELENS  # none would make SAELens read an old layout


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_what_was_saved_is_loaded(name: str, trained: Any, planted: Any, tmp_path: Path) -> None:
    sae, X = trained[name], planted.X[2000:2400]
    save_saelens(sae, tmp_path)
    back = load_saelens(tmp_path)
    assert (back.variant, back.k, back.n_features, back.n_features_in_) == (name, 3, 48, 24)
    assert back.n_steps_ == 60
    np.testing.assert_allclose(np.linalg.norm(back.decoder_, axis=1), 1, atol=1e-5)
    assert back.scale_ == pytest.approx(sae.scale_, rel=1e-5)
    codes = sae.transform(X)
    if codes.data.min() > 0:
        agree(back.transform(X).toarray(), codes.toarray())
        agree(back.reconstruct(X), sae.reconstruct(X))
    again = tmp_path / "again"
    save_saelens(back, again)
    agree(load_saelens(again).reconstruct(X), back.reconstruct(X))


def test_loaded_is_like_fitted(trained: Any, planted: Any, tmp_path: Path) -> None:
    """It can be cloned, fitted again, and kept in the format of this library."""
    save_saelens(trained["jumprelu"], tmp_path / "theirs")
    back = load_saelens(tmp_path / "theirs")
    back.save(tmp_path / "ours")
    X = planted.X[:50]
    again = SparseAutoencoder.load(tmp_path / "ours")
    assert np.array_equal(again.transform(X).toarray(), back.transform(X).toarray())
    assert list(back.history_.columns) == list(trained["jumprelu"].history_.columns)
    back.set_params(steps=5, batch_size=64).fit(planted.X[:200])
    assert back.n_steps_ == 5


def test_where_fewer_than_k_are_positive_their_topk_has_fewer_codes(
    planted: Any, tmp_path: Path
) -> None:
    """And so has ours, once it has been through the format."""
    X = planted.X[:500]
    sae = SparseAutoencoder(48, 40, steps=30, batch_size=256, device="cpu").fit(X)
    save_saelens(sae, tmp_path)
    codes, copies = theirs(tmp_path, X)
    assert ((codes > 0).sum(1) < 40).any()
    agree(np.maximum(sae.transform(X).toarray(), 0), codes)
    back = load_saelens(tmp_path)
    agree(back.transform(X).toarray(), codes)
    agree(back.reconstruct(X), copies)


def test_rows_of_different_lengths(tmp_path: Path) -> None:
    """Codes are the file's; with unit_rows the lengths move into the codes, and copies stay."""
    X = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    for architecture in ("standard", "jumprelu", "gated"):
        folder = tmp_path / architecture
        random_file(folder, architecture, seed=1)
        plain, unit = load_saelens(folder), load_saelens(folder, unit_rows=True)
        codes, copies = theirs(folder, X)
        agree(plain.transform(X).toarray(), codes)
        lengths = np.linalg.norm(plain.decoder_, axis=1)
        assert np.ptp(lengths) > 0.1
        agree(unit.transform(X).toarray(), codes * lengths)
        np.testing.assert_allclose(np.linalg.norm(unit.decoder_, axis=1), 1, atol=1e-6)
        for sae in (plain, unit):
            agree(sae.reconstruct(X), copies)
    random_file(tmp_path / "topk", "topk", seed=1)
    with pytest.raises(InputError, match="other features would be chosen"):
        load_saelens(tmp_path / "topk", unit_rows=True)


def random_file(folder: Path, architecture: str, seed: int, d: int = 5, m: int = 9) -> None:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d, m), "W_dec": (m, d), "b_dec": (d,)}
    names = {"gated": ("b_gate", "r_mag", "b_mag"), "jumprelu": ("b_enc", "threshold")}
    shapes |= dict.fromkeys(names.get(architecture, ("b_enc",)), (m,))
    w = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if "threshold" in w:
        w["threshold"] = np.abs(w["threshold"])
    folder.mkdir()
    safetensors.numpy.save_file(w, folder / "sae_weights.safetensors")
    config = {
        "d_in": d, "d_sae": m, "architecture": architecture, "dtype": "float32",
        "apply_b_dec_to_input": bool(seed % 2), "normalize_activations": "none",
        "metadata": {"sae_lens_version": SAELENS},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps({**config, "k": 3}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    seed=st.integers(0, 2**31),
    d=st.integers(1, 12),
    m=st.integers(1, 20),
    scale=st.floats(1e-2, 1e2),
    offset=st.floats(-30, 30),
)
def test_any_weights_survive(
    variant: str, seed: int, d: int, m: int, scale: float, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    sae = SparseAutoencoder(m, min(3, m), variant, device="cpu")
    decoder = rng.normal(size=(m, d))
    sae.decoder_ = (decoder / np.linalg.norm(decoder, axis=1, keepdims=True)).astype(np.float32)
    sae.encoder_, sae.encoder_bias_ = real(rng, m, d), real(rng, m)
    sae.decoder_bias_, sae.mean_ = real(rng, d), real(rng, d) + np.float32(offset)
    sae.scale_ = scale
    sae.threshold_ = None if variant == "topk" else np.abs(real(rng, m))
    gated = variant == "gated"
    sae.magnitude_log_scale_ = 0.3 * real(rng, m) if gated else None
    sae.magnitude_bias_ = real(rng, m) if gated else None
    sae.n_steps_, sae.n_features_in_ = 7, d
    X = sae.mean_ + real(rng, 30, d) / scale
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_saelens(sae, folder, note="ü", sizes=[1, 2])
        codes, copies = theirs(folder, X)
        back = load_saelens(folder)
        assert saelens_metadata(folder)["note"] == "ü"
    assert back.variant == variant
    # a code at its threshold may fall on either side after rounding
    same = np.abs(back.transform(X).toarray() - codes).max(1) < 1e-3 * max(1, np.abs(codes).max())
    assert same.mean() >= 0.9
    agree(back.reconstruct(X)[same], copies[same], 1e-4)


def real(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def test_before_fit_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        save_saelens(SparseAutoencoder(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_metadata_that_json_cannot_hold(trained: Any, tmp_path: Path) -> None:
    for bad in (object(), float("nan"), torch.zeros(2)):
        with pytest.raises(InputError, match="metadata cannot be kept"):
            save_saelens(trained["topk"], tmp_path, thing=bad)
    assert not list(tmp_path.iterdir())


def test_another_autoencoder_is_replaced(trained: Any, planted: Any, tmp_path: Path) -> None:
    save_saelens(trained["gated"], tmp_path)
    save_saelens(trained["batchtopk"], tmp_path)
    X = planted.X[:50]
    agree(load_saelens(tmp_path).reconstruct(X), trained["batchtopk"].reconstruct(X))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "cfg.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architecture": "transcoder"}, "unknown architecture 'transcoder'"),
        ({"normalize_activations": "layer_norm"}, "no weights can take up"),
        ({"normalize_activations": "constant_norm_rescale"}, "no weights can take up"),
        ({"normalize_activations": "sphere"}, "unknown normalize_activations"),
        ({"normalize_activations": "expected_average_only_in"}, "activation_scaler.json"),
        ({"normalize_activations": "covariance_whitening"}, "activation_whitening.safetensors"),
        ({"activation_fn": "tanh-relu"}, "relu and topk can be read"),
        ({"d_in": 6}, "does not fit"),
        ({"d_sae": "many"}, "d_sae is 'many'"),
        ({"d_in": ...}, "d_in is None"),
        ({"architecture": "topk", "k": 0}, "k is 0"),
        ({"architecture": "topk", "k": None}, "k is None"),
        ({"apply_b_dec_to_input": "no"}, "true or false"),
    ],
)
def test_what_cannot_be_read_is_told(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    random_file(folder, "standard", seed=1)
    edit(folder, **changes)
    with pytest.raises(FathometerError, match=told):
        load_saelens(folder)


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(FathometerError, match=r"cfg\.json cannot be read"):
        load_saelens(tmp_path / "nowhere")
    folder = tmp_path / "sae"
    random_file(folder, "standard", seed=1)
    weights = folder / "sae_weights.safetensors"
    whole = weights.read_bytes()
    for bad in (b"", whole[:100], b"\x80\x04pickle"):
        weights.write_bytes(bad)
        with pytest.raises(FathometerError, match="missing or damaged"):
            load_saelens(folder)
    tensors = safetensors.numpy.load(whole)
    tensors["b_enc"][2] = np.nan
    safetensors.numpy.save_file(tensors, weights)
    with pytest.raises(NonFiniteError, match="b_enc"):
        load_saelens(folder)
    tensors["b_enc"][2] = 0
    safetensors.numpy.save_file({**tensors, "extra": tensors["b_enc"]}, weights)
    with pytest.raises(FathometerError, match="extra"):
        load_saelens(folder)
    (folder / "cfg.json").write_text("[1]")
    with pytest.raises(FathometerError, match="a JSON object is needed"):
        load_saelens(folder)
    # what is only in a pickle is not looked at
    torch.save(tensors, folder / "sae_weights.pt")
    weights.unlink()
    random_file(tmp_path / "other", "standard", seed=2)
    shutil.copy(tmp_path / "other" / "cfg.json", folder / "cfg.json")
    with pytest.raises(FathometerError, match="weights in safetensors are needed"):
        load_saelens(folder)


# The package itself ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def saelens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that holds sae-lens, which pins libraries that this project does not use."""
    kept = os.environ.get("FATHOMETER_TEST_CACHE")
    root = Path(kept) if kept else tmp_path_factory.mktemp("saelens")
    place = root / f"saelens-{SAELENS}-python{sys.version_info.major}.{sys.version_info.minor}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        install(place, python)
        (place / "complete").touch()
    return python


def install(place: Path, python: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
    ours = (
        torch.__version__
    )  # the same wheel as here, which on a machine without a GPU is the one without CUDA
    for version in dict.fromkeys((ours, ours.split("+")[0])):
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", f"sae-lens=={SAELENS}", f"torch=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
    said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    if os.environ.get("CI"):
        pytest.fail(f"pip cannot install sae-lens {SAELENS}: {said}")
    pytest.skip(f"pip cannot install sae-lens {SAELENS} here: {said}")


def work(python: Path, command: str, folder: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [python, WORKER, command, folder],
        capture_output=True,
        text=True,
        check=False,
        env={**clean, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_package_reads_what_we_write(
    saelens: Path, trained: Any, planted: Any, tmp_path: Path
) -> None:
    X = planted.X[2000:2400]
    many = SparseAutoencoder(48, 40, steps=30, batch_size=256, device="cpu").fit(planted.X[:500])
    written = {**trained, "topk-many": many}
    for name, sae in written.items():
        save_saelens(sae, tmp_path / name, model_name="planted")
        np.save(tmp_path / name / "states.npy", X)
    work(saelens, "use", tmp_path)
    for name, sae in written.items():
        found = {n: np.load(tmp_path / name / f"{n}.npy") for n in ("codes", "copies")}
        codes = sae.transform(X).toarray()
        agree(np.maximum(codes, 0), found["codes"])
        expected = (
            sae.reconstruct(X) if codes.min() >= 0 else load_saelens(tmp_path / name).reconstruct(X)
        )
        agree(expected, found["copies"])


@pytest.mark.slow
def test_we_read_what_the_package_writes(saelens: Path, tmp_path: Path) -> None:
    """All its architectures, inference files and checkpoints, with scaled and with whitened states."""
    work(saelens, "make", tmp_path)
    folders = sorted(path.parent for path in tmp_path.glob("*/cfg.json"))
    assert len(folders) == 32
    for folder in folders:
        X, codes, copies = (np.load(folder / f"{n}.npy") for n in ("states", "codes", "copies"))
        sae = load_saelens(folder)
        assert (codes > 0).any(), folder.name
        agree(sae.transform(X).toarray(), codes)
        agree(sae.reconstruct(X), copies)
    (tmp_path / "train-topk-scaled" / "activation_scaler.json").unlink()
    with pytest.raises(InputError, match="save_inference_model"):
        load_saelens(tmp_path / "train-topk-scaled")
