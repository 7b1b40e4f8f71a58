"""A training that was broken off and continued is the uninterrupted one, bit for bit; saved means saved."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probes.errors import FathometerError, InputError
from probes.sae import VARIANTS, SparseAutoencoder, Training, train_together
from probes.sae.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint


def same(one: SparseAutoencoder, two: SparseAutoencoder) -> bool:
    names = ("encoder_", "encoder_bias_", "decoder_", "decoder_bias_", "mean_", "threshold_")
    return (
        all(np.array_equal(getattr(one, n), getattr(two, n)) for n in names)
        and one.scale_ == two.scale_
        and one.history_.equals(two.history_)
    )


class Stop(Exception):
    pass


def stop_at(step: int) -> Any:
    def report(done: int, total: int) -> None:
        if done == step:
            raise Stop

    return report


def make(variant: str, **options: Any) -> SparseAutoencoder:
    training = Training(aux_k=4, dead_after=500, log_every=3)
    given = {"steps": 30, "batch_size": 170, "device": "cpu", "training": training, **options}
    return SparseAutoencoder(32, 2, variant, **given)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_resumed_is_uninterrupted_bit_for_bit(variant: str, tmp_path: Path, planted: Any) -> None:
    X = planted.X[:1000]  # several passes: the order must go on too
    whole = make(variant).fit(X)
    for stop in (1, 13, 29):
        folder = tmp_path / str(stop)
        with pytest.raises(Stop):
            make(variant).fit(X, checkpoint=folder, every=4, progress=stop_at(stop))
        calls: list[int] = []
        resumed = make(variant).fit(
            X, checkpoint=folder, every=4, progress=lambda done, total, c=calls: c.append(done)
        )
        assert calls[0] == stop // 4 * 4 + 1  # it did go on, and did not begin anew
        assert same(whole, resumed)
    finished = make(variant).fit(X, checkpoint=folder, every=4, progress=stop_at(0))
    assert same(whole, finished)


def test_a_stream_resumes_too(tmp_path: Path, planted: Any) -> None:
    parts = np.array_split(planted.X, 7)
    whole = make("topk").fit(parts)
    with pytest.raises(Stop):
        make("topk").fit(parts, checkpoint=tmp_path, every=5, progress=stop_at(17))
    assert same(whole, make("topk").fit(parts, checkpoint=tmp_path, every=5))


def test_several_resume_together(tmp_path: Path, planted: Any) -> None:
    def saes() -> dict[str, SparseAutoencoder]:
        return {"a": make("topk"), "b": make("l1", seed=5)}

    whole = train_together(saes(), planted.X)
    with pytest.raises(Stop):
        train_together(saes(), planted.X, checkpoint=tmp_path, every=4, progress=stop_at(14))
    (tmp_path / "b" / "checkpoint.json").unlink()  # killed between the two: one is further
    resumed = train_together(saes(), planted.X, checkpoint=tmp_path, every=4)
    assert all(same(whole[name], resumed[name]) for name in whole)


def test_another_training_is_refused_and_damage_is_seen(tmp_path: Path, planted: Any) -> None:
    make("topk").fit(planted.X, checkpoint=tmp_path)
    for other in (make("topk", seed=1), make("batchtopk"), make("topk", steps=31)):
        with pytest.raises(InputError, match="another autoencoder"):
            other.fit(planted.X, checkpoint=tmp_path)
    with pytest.raises(InputError, match="other data"):
        make("topk").fit(planted.X[:-1], checkpoint=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(FathometerError, match="damaged"):
        make("topk").fit(planted.X, checkpoint=tmp_path)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(FathometerError, match="cannot be read"):
        make("topk").fit(planted.X, checkpoint=tmp_path)
    with pytest.raises(InputError, match="every is 0"):
        make("topk").fit(planted.X, checkpoint=tmp_path / "x", every=0)


def test_a_writer_that_is_killed_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"who": 1}, 5, [])
    with monkeypatch.context() as patched:

        def killed(*args: Any, **kwargs: Any) -> None:
            raise Stop

        patched.setattr("probes.sae.checkpoint.write_json", killed)
        with pytest.raises(Stop):
            save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"who": 1}, 6, [])
    assert read_checkpoint(tmp_path).step == 5
    save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"who": 1}, 7, [])
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


TENSORS = st.dictionaries(
    st.text("abc._0", min_size=1, max_size=8),
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=4,
)
ROWS = st.lists(
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False)),
    max_size=3,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TENSORS, ROWS, st.dictionaries(st.text(max_size=5), st.integers()), st.integers(0, 10**9))
def test_what_is_saved_is_what_is_read(
    arrays: dict[str, np.ndarray], rows: Any, identity: Any, step: int
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "a" / "b"
        assert load_checkpoint(folder, identity) is None
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_checkpoint(folder, tensors, identity, step, rows)
        found = load_checkpoint(folder, identity)
        assert found is not None
        assert (found.step, found.history, found.identity) == (step, rows, identity)
        assert sorted(found.tensors) == sorted(arrays)
        for name, array in arrays.items():
            read = found.tensors[name].numpy()
            assert read.dtype == array.dtype
            assert read.shape == array.shape
            assert read.tobytes() == array.tobytes()
        with pytest.raises(InputError):
            load_checkpoint(folder, {**identity, "more": 1})


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_fitted_autoencoder_is_saved_and_loaded(
    variant: str, tmp_path: Path, planted: Any
) -> None:
    training = Training(prefixes=(8, 32), log_every=5)
    sae = make(variant, training=training)
    sae.fit(planted.X)
    sae.save(tmp_path / "sae")
    again = SparseAutoencoder.load(tmp_path / "sae")
    assert same(sae, again)
    assert again.get_params() == sae.get_params()
    assert again.n_features_in_ == 24
    assert np.array_equal(again.transform(planted.X).data, sae.transform(planted.X).data)
    assert json.loads((tmp_path / "sae" / "checkpoint.json").read_text())["version"] == 1


def test_loading_what_is_no_autoencoder(tmp_path: Path, planted: Any) -> None:
    with pytest.raises(FathometerError, match="cannot be read"):
        SparseAutoencoder.load(tmp_path)
    make("topk").fit(planted.X, checkpoint=tmp_path)
    with pytest.raises(FathometerError, match="but a training"):
        SparseAutoencoder.load(tmp_path)
