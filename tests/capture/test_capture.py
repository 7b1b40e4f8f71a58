"""`capture` as a whole: what it keeps, reuses, resumes, counts and refuses."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from probes import capture, open_store
from probes.capture import shard as shard_module
from probes.capture.capture import capture as capture_function
from probes.capture.memory import Halving, is_out_of_memory
from probes.capture.temporary import TemporaryFolder, sweep
from probes.capture.twins import in_dtype, sharing_weights
from probes.errors import (
    DataError,
    DoesNotApply,
    FathometerError,
    InputError,
    ModelError,
    StoreError,
)


class Passes:
    """Counts forward passes of a model's backbone while the context lasts; `fail` may raise instead."""

    def __init__(self, model: Any, fail: Any = None) -> None:
        self.model, self.n, self.fail = model, 0, fail
        self.rows: list[int] = []

    def __enter__(self) -> Passes:
        def count(module: Any, args: Any, kwargs: Any) -> None:
            self.n += 1
            self.rows.append(len(kwargs["input_ids"]))
            if self.fail is not None:
                self.fail(self, kwargs)

        base = self.model.structure.base
        self.handle = base.register_forward_pre_hook(count, with_kwargs=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self.handle.remove()


# -- one name, one object ------------------------------------------------------------------------------------------


def test_the_package_is_the_function() -> None:
    import probes
    import probes.capture.sites

    assert callable(probes.capture)
    assert probes.capture.sites.SITES is probes.capture.SITES  # and still a package
    assert inspect.signature(probes.capture) == inspect.signature(capture_function)
    with pytest.raises(InputError, match="either texts or pixel_values"):
        probes.capture(None or _Bare())


class _Bare:
    n_layers = 1
    name = "bare"
    padding_sides = ("right",)
    device = torch.device("cpu")

    class embedding:  # noqa: N801
        pooling = "mean"


@pytest.mark.parametrize(
    "statement",
    [
        "import probes.capture.sites; from probes import capture",
        "from probes import capture; import probes.capture.sites",
        "import probes.capture as capture; capture.sites.SITES",
    ],
)
def test_callable_however_it_is_imported_and_torch_stays_out(statement: str) -> None:
    code = f"{statement}\nimport sys\nassert callable(capture) and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# -- values --------------------------------------------------------------------------------------------------------


def test_rows_are_in_order_whatever_the_batches_and_shards(tiny: Any, zoo: Any) -> None:
    model, texts = tiny("llama"), zoo.texts(40)
    one = capture(model, texts, ["exit", "z"])
    many = capture(model, texts, ["exit", "z"], shard_rows=7, batch_tokens=20)
    assert len(many.shards) == 6
    assert len(one.shards) == 1
    assert one["exit", 3].shape == (40, model.d_model)
    assert one["z", 0].shape == (40, model.n_heads, model.d_head)
    for site in one.sites():
        for layer in one.layers(site):
            np.testing.assert_allclose(many[site, layer], one[site, layer], rtol=1e-4, atol=1e-5)
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in texts]
    assert many.rows()["tokens"].tolist() == lengths


@pytest.mark.parametrize("pooling", ["mean", "last", "first", "max", "weighted"])
@pytest.mark.parametrize("special", [True, False])
def test_pooled_states_are_those_of_the_token_states(
    pooling: str, special: bool, tiny: Any, zoo: Any
) -> None:
    model, texts = tiny("bert"), zoo.texts(12)
    every = capture(model, texts, pooling="none", special_tokens=special)
    pooled = capture(model, texts, pooling=pooling, special_tokens=special)
    lengths = np.diff(every.offsets)
    assert lengths.tolist() == [len(text.split()) + (2 if special else 0) for text in texts]
    for layer in (0, 3):
        for row, (a, b) in enumerate(zip(every.offsets, every.offsets[1:], strict=False)):
            tokens = every["exit", layer][a:b]
            rank = np.arange(1, len(tokens) + 1)[:, None]
            expected = {
                "mean": tokens.mean(0),
                "last": tokens[-1],
                "first": tokens[0],
                "max": tokens.max(0),
                "weighted": (rank * tokens).sum(0) / rank.sum(),
            }[pooling]
            np.testing.assert_allclose(pooled["exit", layer][row], expected, rtol=1e-4, atol=1e-5)


def test_the_model_says_how_to_pool(tiny: Any, zoo: Any) -> None:
    assert capture(tiny("bert"), zoo.texts(2)).identity["pooling"] == "mean"
    assert capture(tiny("llama"), zoo.texts(2)).identity["pooling"] == "last"


def test_a_control_token_in_a_text_changes_nothing_else(tiny: Any) -> None:
    """A text that spells [SEP] gives what the same characters give, not what the control token gives."""
    model = tiny("bert")
    spelled, plain, acting = "a cat [SEP] a dog", "a cat zzz zzz zzz a dog", [1, 7, 9, 2, 7, 10, 2]
    acts = capture(model, [spelled, plain])
    np.testing.assert_allclose(acts["exit", 3][0], acts["exit", 3][1], rtol=1e-4, atol=1e-5)
    ids = torch.tensor([acting])
    with torch.no_grad():
        other = model.structure.base(
            input_ids=ids, attention_mask=torch.ones_like(ids)
        ).last_hidden_state.mean(1)
    assert np.abs(acts["exit", 3][0] - other[0].numpy()).max() > 0.01


def test_prompt_and_layers(tiny: Any) -> None:
    model = tiny("bert")
    with_prompt = capture(model, ["cat"], prompt="find the ", layers=[2])
    whole = capture(model, ["find the cat"], layers=[2])
    assert with_prompt.layers("exit") == (2,)
    np.testing.assert_array_equal(with_prompt["exit", 2], whole["exit", 2])
    named = capture(model, ["cat"], ["blocks.1.hook_resid_post", "blocks.0.attn.hook_z"])
    assert (named.layers("resid_post"), named.layers("z")) == ((2,), (0,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tiny: Any, zoo: Any) -> None:
    model, texts = tiny("llama"), zoo.texts(10)
    before = model.weights_hash
    half, full = (
        capture(model, texts, dtype=dtype, pooling="mean"),
        capture(model, texts, pooling="mean"),
    )
    assert half["exit", 3].dtype == np.float32
    difference = np.abs(half["exit", 3] - full["exit", 3]).max() / np.abs(full["exit", 3]).max()
    assert 1e-5 < difference < 0.1
    assert model.weights_hash == before
    assert model.dtype == torch.float32
    assert half.fingerprint != full.fingerprint
    tokens = capture(model, texts, dtype=dtype, pooling="none")
    assert tokens.ragged


def test_twins(tiny: Any) -> None:
    model = tiny("llama")
    assert in_dtype(model, torch.float32) is model
    half = in_dtype(model, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    frequencies = [b for n, b in half.hf_model.named_buffers() if n.endswith("inv_freq")]
    assert frequencies
    assert all(b.dtype == torch.float32 for b in frequencies)
    twin = sharing_weights(model)
    assert twin.structure.blocks[0].module is not model.structure.blocks[0].module
    mine, its = dict(model.hf_model.named_parameters()), dict(twin.hf_model.named_parameters())
    assert all(its[name] is mine[name] for name in mine)
    modules = {id(m) for m in twin.hf_model.modules()}
    assert all(id(block.o_proj) in modules for block in twin.structure.blocks)


# -- reuse and resume ----------------------------------------------------------------------------------------------


def test_the_same_request_runs_the_model_once(tiny: Any, zoo: Any, tmp_path: Path) -> None:
    model, texts = tiny("gpt2"), zoo.texts(10)
    with Passes(model) as passes:
        first = capture(model, texts, out=tmp_path / "acts")
        assert passes.n > 0
        before = passes.n
        again = capture(model, list(texts), out=tmp_path / "acts")
        assert passes.n == before
    np.testing.assert_array_equal(first["exit", 2], again["exit", 2])
    assert open_store(tmp_path / "acts").complete


CHANGES: dict[str, dict[str, Any]] = {
    "texts": {"texts": ["another text"] * 10},
    "sites": {"sites": ["resid_post"]},
    "layers": {"layers": [1]},
    "pooling": {"pooling": "max"},
    "special_tokens": {"special_tokens": False},
    "prompt": {"prompt": "the "},
    "dtype": {"dtype": "bfloat16"},
    "max_length": {"max_length": 20},
    "batch_tokens": {"batch_tokens": 10},
    "padding_side": {"padding_side": "left"},
    "shard_rows": {"shard_rows": 3},
    "backend": {"backend": "nnsight"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_request_is_refused_with_the_difference(
    change: str, tiny: Any, zoo: Any, tmp_path: Path
) -> None:
    model = tiny("gpt2")
    request: dict[str, Any] = {"texts": zoo.texts(10), "out": tmp_path / "acts"}
    capture(model, **request)
    with pytest.raises(StoreError, match="another identity"):
        capture(model, **{**request, **CHANGES[change]})


def test_other_weights_are_another_request(zoo: Any, tmp_path: Path) -> None:
    capture(zoo.build("gpt2"), zoo.texts(5), out=tmp_path / "acts")
    with pytest.raises(StoreError, match="weights"):
        capture(zoo.build("gpt2", seed=1), zoo.texts(5), out=tmp_path / "acts")


def test_a_broken_off_capture_goes_on_where_it_stopped(tiny: Any, zoo: Any, tmp_path: Path) -> None:
    model, texts = tiny("gpt2"), zoo.texts(20)
    request: dict[str, Any] = {"out": tmp_path / "acts", "shard_rows": 4, "batch_tokens": 1000}

    def third(passes: Passes, kwargs: Any) -> None:
        if passes.n == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Passes(model, third):
        capture(model, texts, **request)
    store = open_store(tmp_path / "acts")
    assert not store.complete
    assert store.pending() == [2, 3, 4]
    seen: list[tuple[int, int]] = []
    with Passes(model) as passes:
        store = capture(
            model, texts, progress=lambda done, total: seen.append((done, total)), **request
        )
    assert passes.n == 3
    assert seen == [(12, 20), (16, 20), (20, 20)]
    whole = capture(model, texts, shard_rows=4, batch_tokens=1000)
    np.testing.assert_array_equal(store["exit", 3], whole["exit", 3])
    pd.testing.assert_frame_equal(store.rows(), whole.rows())
    assert store.verify(deep=True).ok


KILLED = """
import os, random, signal, sys, time, torch
torch.set_num_threads(1)
sys.path[:0] = [{root!r}, {tests!r}]
import zoo
from probes import capture
model, texts = zoo.build("gpt2"), zoo.texts(300)
capture(model, texts[:5])  # everything is imported before the first fork
rng = random.Random(0)
for kill in range({kills}):
    pid = os.fork()
    if not pid:
        capture(model, texts, out={out!r}, shard_rows=10, batch_tokens=60)
        os._exit(0)
    time.sleep(rng.uniform(0, 0.15))
    os.kill(pid, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_resumes_to_the_same_bytes(
    tiny: Any, zoo: Any, tmp_path: Path
) -> None:
    out, root = tmp_path / "acts", Path(__file__).parents[2]
    code = KILLED.format(root=str(root), tests=str(root / "tests"), out=str(out), kills=12)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split().count("-9") >= 3  # the control: it was killed while it worked
    request: dict[str, Any] = {"shard_rows": 10, "batch_tokens": 60}
    resumed = capture(tiny("gpt2"), zoo.texts(300), out=out, **request)
    whole = capture(tiny("gpt2"), zoo.texts(300), out=tmp_path / "whole", **request)
    assert resumed.verify(deep=True).ok
    hashes = [[record.sha256 for record in store._committed()] for store in (resumed, whole)]
    assert hashes[0] == hashes[1]
    shards = sorted(path.name for path in (out / "shards").iterdir())
    assert shards == sorted(
        path.name for path in (tmp_path / "whole" / "shards").iterdir()
    )  # no orphan left


# -- temporary stores ----------------------------------------------------------------------------------------------


def test_a_temporary_store_goes_with_its_last_reference(tiny: Any, zoo: Any) -> None:
    acts = capture(tiny("gpt2"), zoo.texts(3))
    path, layers, array = acts.path, acts["exit"], acts["exit", 1]
    expected = array.copy()
    del acts
    gc.collect()
    assert path.exists()  # the mapping still reads from it
    assert layers[1].shape == array.shape
    del layers
    gc.collect()
    assert not path.exists()
    assert not path.parent.exists()
    np.testing.assert_array_equal(array, expected)  # an array taken from it lives on


def test_a_temporary_store_goes_at_the_end_of_the_process_and_after_a_failure(
    tiny: Any, zoo: Any, own_cache: Path
) -> None:
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests')!r}]\n"
        "import zoo; from probes import capture\n"
        "acts = capture(zoo.build('gpt2'), zoo.texts(3)); print(acts.path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert str(own_cache) in done.stdout
    assert not list((own_cache / "temporary").iterdir())

    def fail(passes: Passes, kwargs: Any) -> None:
        raise ValueError("in the pass")

    with pytest.raises(ValueError, match="in the pass"), Passes(tiny("gpt2"), fail):
        capture(tiny("gpt2"), zoo.texts(3))
    assert not list((own_cache / "temporary").iterdir())


def test_what_a_killed_process_left_is_swept(own_cache: Path) -> None:
    mine = TemporaryFolder()
    left = mine.path.parent / "capture-left"
    left.mkdir()
    assert sweep(mine.path.parent) == 1
    assert mine.path.exists()
    assert not left.exists()
    mine.remove()
    assert not mine.path.exists()


# -- warnings and refusals -----------------------------------------------------------------------------------------


def test_long_texts_are_cut_and_counted(tiny: Any, zoo: Any, tmp_path: Path) -> None:
    model = tiny("bert")
    texts = ["the cat " * 50_000, "a cat", "a dog " * 40, "one two"]
    for _ in range(2):  # a reused store warns too
        with pytest.warns(
            UserWarning, match=r"2 of 4 texts are longer than 64 tokens and were cut"
        ):
            acts = capture(model, texts, out=tmp_path / "acts")
    assert acts.rows()["truncated"].tolist() == [True, False, True, False]
    assert acts.rows()["tokens"].tolist() == [64, 4, 64, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(model, texts[1::2])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a", ""], "text 1 is empty"),
        (["a", "  \n"], "text 1 is empty"),
        (["a", 3], "text 1 is int"),
        ([], "no texts came"),
        ("a cat", "wrap it in a list"),
        (["a", "\ud800"], "surrogate"),
    ],
)
def test_bad_texts_are_refused(texts: Any, words: str, tiny: Any) -> None:
    with pytest.raises(DataError, match=words):
        capture(tiny("bert"), texts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sites": ["exti"]}, "did you mean 'exit'"),
        ({"layers": [9]}, "layers 0 to 3"),
        ({"pooling": "maen"}, "did you mean 'mean'"),
        ({"backend": "jax"}, "unknown backend"),
        ({"dtype": "int8"}, "unknown dtype"),
        ({"padding_side": "top"}, "unknown padding_side"),
        ({"max_length": 2}, "takes 3 to 64 tokens"),
        ({"max_length": 65}, "takes 3 to 64 tokens"),
        ({"shard_rows": 0}, "shard_rows"),
        ({"batch_tokens": -1}, "batch_tokens"),
        ({"pixel_values": torch.zeros(1, 3, 4, 4)}, "either texts or pixel_values"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str, tiny: Any) -> None:
    with pytest.raises(InputError, match=words):
        capture(tiny("bert"), ["a cat"], **options)


def test_what_does_not_apply(tiny: Any) -> None:
    with pytest.raises(DoesNotApply, match="heads"):
        capture(tiny("mamba"), ["a cat"], ["z"])
    with pytest.raises(FathometerError, match="pixel_values"):
        capture(tiny("vit"), ["a cat"])
    with pytest.raises(InputError, match="reads texts"):
        capture(tiny("bert"), pixel_values=torch.zeros(1, 3, 12, 12))
    with pytest.raises(InputError, match="special tokens"):
        capture(tiny("vit"), pixel_values=torch.zeros(1, 3, 12, 12), special_tokens=False)
    with pytest.raises(DataError, match="channel, height, width"):
        capture(tiny("vit"), pixel_values=torch.zeros(3, 12, 12))


def test_not_a_number_is_counted_and_told(zoo: Any) -> None:
    model = zoo.build("gpt2")
    model.structure.blocks[1].module.mlp.c_proj.bias.data[3] = torch.nan
    with pytest.warns(UserWarning, match="exit at layer 2 in texts 0, 1, 2"):
        acts = capture(model, zoo.texts(3), layers=[1, 2])
    assert acts.nonfinite()["layer"].tolist() == [2]


def test_no_write_access(tiny: Any, zoo: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FathometerError):
        capture(tiny("gpt2"), zoo.texts(2), out=tmp_path / "file" / "acts")


def test_the_progress_bar(tiny: Any, zoo: Any, capsys: pytest.CaptureFixture[str]) -> None:
    capture(tiny("gpt2"), zoo.texts(5), progress=True)
    assert "5/5" in capsys.readouterr().err


# -- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
@pytest.mark.parametrize("fits", [1, 3])
def test_a_batch_that_does_not_fit_is_halved(
    error: Exception, fits: int, tiny: Any, zoo: Any
) -> None:
    model, texts = tiny("gpt2"), zoo.texts(24)
    whole = capture(model, texts)

    def too_large(passes: Passes, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > fits:
            raise error

    with Passes(model, too_large) as passes:
        halved = capture(model, texts)
    assert max(passes.rows) > fits  # the control: it did not fit
    np.testing.assert_allclose(halved["exit", 3], whole["exit", 3], rtol=1e-4, atol=1e-5)
    failures = sum(rows > fits for rows in passes.rows)
    assert failures <= 5  # what fitted is remembered: later batches are not tried in vain


def test_one_text_that_does_not_fit_is_named(tiny: Any) -> None:
    def always(passes: Passes, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] >= 6:
            raise torch.OutOfMemoryError("no")

    model = tiny("gpt2")
    with pytest.raises(ModelError, match="text 1 of 6 tokens alone"), Passes(model, always):
        capture(model, ["a cat", "a cat sees one red house", "a dog"])


def test_other_errors_pass_unchanged(tiny: Any, zoo: Any) -> None:
    def other(passes: Passes, kwargs: Any) -> None:
        raise RuntimeError("shape mismatch")

    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shape mismatch"), Passes(tiny("gpt2"), other) as passes:
        capture(tiny("gpt2"), zoo.texts(4))
    assert passes.n == 1


def test_halving_keeps_every_row(zoo: Any) -> None:
    from probes.capture.batching import pad_batch
    from probes.capture.tokens import TextEncoder

    tokens = TextEncoder(zoo.tokenizer(), 20)(zoo.texts(13))
    batch = pad_batch(tokens, np.arange(13), pad_id=0, side="right", special=True)
    seen: list[int] = []

    def run(part: Any) -> None:
        if len(part.rows) > 2:
            raise MemoryError
        seen.extend(part.rows.tolist())

    Halving(run)(batch)
    assert seen == list(range(13))


def test_memory_of_a_shard_is_given_back(
    tiny: Any, zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of shards, no more than one shard's arrays are alive at a time."""
    gc.collect()
    before = sum(isinstance(thing, shard_module.PooledRows) for thing in gc.get_objects())
    alive: list[int] = []
    original = shard_module.PooledRows.write

    def write(self: Any, store: Any, index: int) -> Any:
        gc.collect()
        alive.append(
            sum(isinstance(thing, shard_module.PooledRows) for thing in gc.get_objects()) - before
        )
        return original(self, store, index)

    monkeypatch.setattr(shard_module.PooledRows, "write", write)
    capture(tiny("gpt2"), zoo.texts(12), shard_rows=3)
    assert alive == [1, 1, 1, 1]
