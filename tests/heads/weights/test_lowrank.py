"""Low-rank tests: against weights that are really changed, optimal logits, and the model itself at full rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.capture.attention import attention_calls
from probes.capture.hooks import is_edited, run_backbone
from probes.errors import DoesNotApply, InputError
from probes.heads.ablation import Judge
from probes.heads.weights import head_weights, leading_directions, low_rank, low_rank_curve

ROWS = [list(range(8 + i, 40 + i)) for i in range(6)]


def states(model: Any, row: list[int] = ROWS[2]) -> torch.Tensor:
    ids = torch.tensor([row])
    with torch.no_grad():
        return run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})[0]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("rank", [0, 1, 3, 7])
def test_output_circuit_equals_changed_weights(name: str, rank: int, zoo: Any) -> None:
    """The same as the output weights that a truncated W_V W_O asks for (value biases still pass the old ones)."""
    model, changed = zoo.build(name), zoo.build(name)
    w = head_weights(model, 1)
    u, s, vh = torch.linalg.svd(w.W_V[2] @ w.W_O[2])
    wide = u[:, :rank] * s[:rank] @ vh[:rank]
    new = (
        torch.linalg.pinv(w.W_V[2]) @ wide
    )  # (d_head, d): W_V new = wide, the column space of W_V is kept
    attention = changed.structure.blocks[1].module
    with torch.no_grad():
        if name == "llama":
            attention.self_attn.o_proj.weight[:, 16:24] = new.T
        else:
            bias = w.biases["V"][2]
            attention.attn.c_proj.weight[16:24] = new
            attention.attn.c_proj.bias += bias @ (w.W_O[2] - new)
    with low_rank(model, [(1, 2)], "OV", rank):
        assert is_edited(model)
        found = states(model)
    torch.testing.assert_close(found, states(changed), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gpt-neox", "bert"])
@pytest.mark.parametrize("circuit", ["QK", "OV"])
def test_full_rank_is_the_model_and_less_is_not(name: str, circuit: Any, tiny: Any) -> None:
    model = tiny(name)
    heads = [(0, 1), (2, 3)]
    directions = leading_directions(model, heads, circuit, ROWS)
    whole = states(model)
    with low_rank(model, heads, circuit, directions.width, directions=directions):
        assert torch.equal(states(model), whole)
    distances = []
    for rank in (directions.width - 1, 2, 0):
        with low_rank(model, heads, circuit, rank, directions=directions):
            distances.append(float((states(model) - whole).norm()))
    assert 0 < distances[0] < distances[2]
    assert torch.equal(states(model), whole)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_attention_logits_are_the_best_of_their_rank(name: str, tiny: Any) -> None:
    """On one calibration row: centred logits equal the truncated singular value decomposition of the whole matrix."""
    model = tiny(name)
    row = ROWS[:1]
    logits: dict[str, torch.Tensor] = {}

    def all_pairs(kind: str) -> Any:
        def look(call: Any) -> None:
            key = call.key[0].repeat_interleave(call.heads.n // call.key.shape[1], 0)
            logits[kind] = (call.query[0] @ (key - key.mean(1, keepdim=True)).transpose(1, 2))[
                1
            ].double()

        return look

    with torch.no_grad(), attention_calls(model, all_pairs("whole"), [1]):
        states(model, row[0])
    u, s, vh = torch.linalg.svd(logits["whole"])
    for rank in (1, 3):
        with (
            low_rank(model, [(1, 1)], "QK", rank, row),
            attention_calls(model, all_pairs("cut"), [1]),
        ):
            states(model, row[0])
        best = u[:, :rank] * s[:rank] @ vh[:rank]
        torch.testing.assert_close(logits["cut"], best, atol=1e-3, rtol=1e-3)


def test_rank_0_attends_evenly(tiny: Any) -> None:
    model = tiny("llama")
    patterns: list[torch.Tensor] = []
    with (
        low_rank(model, [(1, 1)], "QK", 0, ROWS),
        attention_calls(model, lambda c: patterns.append(c.pattern()), [1]),
    ):
        states(model)
    n = patterns[0].shape[-1]
    even = torch.tril(torch.ones(n, n)) / torch.arange(1, n + 1)[:, None]
    torch.testing.assert_close(patterns[0][0, 1], even)
    assert not torch.allclose(patterns[0][0, 0], even, atol=1e-2)


def test_generation_with_a_cache(tiny: Any) -> None:
    """One query at a time gives the same as all at once."""
    model = tiny("llama")
    ids = torch.tensor([ROWS[0][:9]])
    with torch.no_grad(), low_rank(model, [(0, 1), (1, 3)], "QK", 2, ROWS):
        whole = model.hf_model(ids).logits[:, -1]
        past = model.hf_model(ids[:, :-1], use_cache=True).past_key_values
        step = model.hf_model(ids[:, -1:], past_key_values=past).logits[:, -1]
    torch.testing.assert_close(step, whole, atol=1e-4, rtol=1e-4)


def test_curve_finds_the_head_that_matters(zoo: Any) -> None:
    """A model in which one head alone writes: cutting it moves the states, cutting random others does not."""
    model = zoo.build("llama")
    with torch.no_grad():
        for block in model.hf_model.model.layers:
            keep = torch.zeros(32)
            if block is model.hf_model.model.layers[1]:
                keep[8:16] = 1
            block.self_attn.o_proj.weight.mul_(keep)
    whole = [states(model, row) for row in ROWS]

    def read(model: Any, items: Any) -> dict[str, Any]:
        return {"moved": [float((states(model, ROWS[i]) - whole[i]).norm()) for i in items]}

    judge = Judge(6, read)
    table = low_rank_curve(model, judge, [(1, 1)], [1, 2, 8], calibration=ROWS, draws=3)
    assert len(table) == 2 * 3 * 2
    at = table.set_index(["circuit", "heads", "rank"])["value"].astype(float).sort_index()
    for circuit in ("QK", "OV"):
        assert at[circuit, "top", 1] > at[circuit, "top", 2] > 0
        assert at[circuit, "top", 8] == 0
        assert (at[circuit, "random"] < 1e-4).all()
    low = table[(table["heads"] == "top") & (table["rank"] == 1)]["low"]
    assert (low > 0).all()
    assert (table["n"] == 6).all()
    again = low_rank_curve(model, judge, [(1, 1)], [1, 2, 8], calibration=ROWS, draws=3)
    assert table.equals(again)
    default = low_rank_curve(model, judge, [(1, 1)], circuits=("OV",))
    assert sorted(set(default["rank"])) == [1, 2, 4, 8]


def test_refusals(tiny: Any) -> None:
    model = tiny("llama")
    with pytest.raises(InputError, match="give calibration="):
        leading_directions(model, [(0, 0)], "QK")
    with (
        pytest.raises(InputError, match="from 0 to d_head = 8"),
        low_rank(model, [(0, 0)], "OV", 9),
    ):
        pass
    with pytest.raises(InputError, match=r"head 0\.7 does not exist"):
        leading_directions(model, [(0, 7)], "OV")
    with pytest.raises(DoesNotApply, match="attention is eager"):
        leading_directions(tiny("gptj"), [(0, 0)], "QK", ROWS)
    with pytest.raises(InputError, match="unknown circuit 'KQ'"):
        leading_directions(model, [(0, 0)], "KQ")  # type: ignore[arg-type]
    few = leading_directions(model, [(0, 0)], "OV")
    with (
        pytest.raises(InputError, match="of other heads"),
        low_rank(model, [(0, 1)], "OV", 1, directions=few),
    ):
        pass
    judge = Judge(4, lambda _m, items: {"x": np.zeros(len(items))})
    table = low_rank_curve(tiny("gptj"), judge, [(0, 0)], [1], calibration=ROWS)
    assert set(table["circuit"]) == {"OV"}
    assert any("eager" in note for note in table.attrs["notes"])
