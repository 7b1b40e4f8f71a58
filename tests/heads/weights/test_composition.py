"""Composition, spectra and copying: definitions by brute force, closed forms, and TransformerLens' own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.errors import DoesNotApply, InputError
from probes.heads.weights import (
    all_head_weights,
    composition_scores,
    copying_scores,
    head_spectra,
    head_weights,
)
from probes.heads.weights.chance import highest_score, power_sums


def _matrices(model: Any, block: int) -> dict[str, torch.Tensor]:
    w = head_weights(model, block)
    return {
        "OV": (w.W_V @ w.W_O).double(),
        "QK": (w.W_Q @ w.W_K.transpose(-1, -2)).double(),
    }


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_definition_by_brute_force(name: str, kind: str, tiny: Any) -> None:
    model = tiny(name)
    table = composition_scores(model, kind, draws=2)
    whole = {b: _matrices(model, b) for b in range(3)}
    assert len(table) == 3 * 16
    for row in table.itertuples():
        A = whole[row.block_from]["OV"][row.head_from]
        B = whole[row.block_to]["OV" if kind == "V" else "QK"][row.head_to]
        B = B.T if kind == "K" else B
        expected = (A @ B).norm() / (A.norm() * B.norm())
        assert row.value == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_equal_to_transformer_lens(name: str, zoo: Any) -> None:
    pytest.importorskip("transformer_lens")
    from probes.capture.bridge_backend import BridgeRunner
    from probes.capture.sites import Place

    model = zoo.build(name)
    bridge = BridgeRunner(model, [Place("z", 0)]).bridge
    for kind in ("Q", "K", "V"):
        theirs = bridge.all_composition_scores(kind).scores.detach().numpy()
        table = composition_scores(model, kind, draws=2)
        at = [table[c].to_numpy(int) for c in ("block_from", "head_from", "block_to", "head_to")]
        np.testing.assert_allclose(table["value"].to_numpy(float), theirs[tuple(at)], atol=1e-4)


def test_components_are_rank_one_matrices(tiny: Any) -> None:
    model = tiny("gpt2")
    table = composition_scores(model, "Q", components=3, draws=2)
    parts = table[table["component"].notna()]
    assert sorted(parts["component"].unique()) == [0, 1, 2]
    earlier, later = _matrices(model, 0)["OV"], _matrices(model, 2)["QK"]
    u, s, vh = torch.linalg.svd(earlier[1])
    rows = parts[
        (parts["block_from"] == 0) & (parts["head_from"] == 1)
        & (parts["block_to"] == 2) & (parts["head_to"] == 3)
    ].set_index("component")  # fmt: skip
    for c in range(3):
        A = s[c] * torch.outer(u[:, c], vh[c])
        expected = float((A @ later[3]).norm() / (A.norm() * later[3].norm()))
        assert rows.loc[c, "value"] == pytest.approx(expected, abs=1e-6)


def test_floor_is_that_of_rotated_matrices(tiny: Any) -> None:
    """Against really rotating one matrix; and random weights lie within it about as often as they should."""
    model = tiny("gpt2")
    table = composition_scores(model, "V", draws=400, seed=3)
    assert float(table["floor"].mean()) == pytest.approx(32**-0.5, rel=0.03)
    inside = table["value"].between(table["floor_low"], table["floor_high"])
    assert inside.mean() > 0.85
    A, B = _matrices(model, 0)["OV"][0], _matrices(model, 1)["OV"][0]
    generator = torch.Generator().manual_seed(0)
    random = []
    for _ in range(400):
        R = torch.linalg.qr(torch.randn(32, 32, generator=generator, dtype=torch.float64)).Q
        random.append(float((A @ R @ B).norm() / (A.norm() * B.norm())))
    first = table.iloc[0]
    assert first["floor"] == pytest.approx(np.mean(random), rel=0.03)
    assert first["floor_low"] == pytest.approx(np.quantile(random, 0.025), rel=0.06)
    assert first["floor_high"] == pytest.approx(np.quantile(random, 0.975), rel=0.06)


def test_planted_composition_stands_out(zoo: Any) -> None:
    """A head that reads exactly the directions that an earlier one writes: the largest score, far above its floor."""
    model = zoo.build("llama")
    early = model.structure.blocks[0].module.self_attn
    late = model.structure.blocks[2].module.self_attn
    with torch.no_grad():  # query head 3 of block 2 reads what head 1 of block 0 writes
        late.q_proj.weight[24:32] = early.o_proj.weight[:, 8:16].T
    table = composition_scores(model, "Q")
    best = table.loc[table["value"].astype(float).idxmax()]
    assert (best["block_from"], best["head_from"]) == (0, 1)
    assert (best["block_to"], best["head_to"]) == (2, 3)
    assert best["value"] > 1.5 * best["floor_high"]


def test_same_seed_same_table(tiny: Any) -> None:
    a, b = (composition_scores(tiny("gpt2"), "Q", draws=5, seed=1) for _ in range(2))
    assert a.equals(b)


def test_refusals(tiny: Any) -> None:
    with pytest.raises(InputError, match="unknown kind of composition 'X'"):
        composition_scores(tiny("gpt2"), "X")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 draws"):
        composition_scores(tiny("gpt2"), draws=1)
    with pytest.raises(DoesNotApply, match="no attention heads"):
        composition_scores(tiny("mamba"))


def test_spectra_are_those_of_the_wide_products(tiny: Any) -> None:
    model = tiny("qwen3")
    table = head_spectra(model)
    assert set(table["rank"]) == set(range(1, 13))
    for name, wide in _matrices(model, 1).items():
        own = table[(table["block"] == 1) & (table["circuit"] == name) & (table["head"] == 2)]
        expected = torch.linalg.svdvals(wide[2])[:12].numpy()
        np.testing.assert_allclose(own["singular_value"], expected, rtol=1e-5)


def test_copying_by_brute_force_and_by_a_head_that_copies(zoo: Any) -> None:
    model = zoo.build("gpt2")
    embedding = model.hf_model.get_input_embeddings().weight.detach().double()
    block = model.structure.blocks[0].module.attn
    with (
        torch.no_grad()
    ):  # head 2 writes back just what it reads: W_O = W_Vᵀ, and embeddings are tied
        block.c_proj.weight[16:24] = block.c_attn.weight[:, 64 + 16 : 64 + 24].T
    table = copying_scores(model).set_index(["block", "head"])["value"]
    assert table[0, 2] == pytest.approx(1.0, abs=1e-6)
    wide = embedding @ _matrices(model, 1)["OV"][1] @ embedding.T
    values = torch.linalg.eigvals(wide)
    assert table[1, 1] == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-5)
    assert table.between(-1, 1).all()
    with pytest.raises(DoesNotApply, match="language-model head"):
        copying_scores(zoo.build("bert"))


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_the_highest_of_many_random_pairs_stays_below_its_bound(decay: float) -> None:
    """Really rotated at random: of 40 × 2,500 pairs about 5 % of the 40 sets hold one above, not nearly all."""
    generator = torch.Generator().manual_seed(int(10 * decay))
    d, r, sets, pairs = 64, 8, 40, 2500
    values = torch.exp(-decay * torch.arange(r))
    shares = values**2 / (values**2).sum()
    sums = power_sums(values[None].double().numpy()) ** 2
    bound = highest_score(sums, d, pairs)[0]
    single = highest_score(sums, d, 1)[0]
    above = alone = 0
    for _ in range(sets):
        frames = torch.linalg.qr(torch.randn(pairs, d, r, generator=generator)).Q[:, :r] ** 2
        scores = torch.einsum("i,nij,j->n", shares, frames, shares).sqrt()
        above += bool((scores > bound).any())
        alone += int((scores > single).sum())
    assert above <= 6  # 2 are expected
    assert (
        0.02 < alone / (sets * pairs) < 0.065
    )  # less with equal values: squared cosines sum to one


def test_a_planted_pair_lies_above_the_highest_by_chance_and_random_ones_do_not(zoo: Any) -> None:
    model = zoo.build("gpt2")
    first, last = model.structure.blocks[0].module.attn, model.structure.blocks[2].module.attn
    with (
        torch.no_grad()
    ):  # the queries of head 1 of block 2 read just what head 3 of block 0 writes
        last.c_attn.weight[:, 8:16] = first.c_proj.weight[24:32].T
    table = composition_scores(model, "Q", components=2)
    whole, parts = table[table["component"].isna()], table[table["component"].notna()]
    assert parts["floor_max_high"].isna().all()
    found = whole[whole["value"] > whole["floor_max_high"]]
    names = ["block_from", "head_from", "block_to", "head_to"]
    assert found[names].to_numpy().tolist() == [[0, 3, 2, 1]]
    assert (whole["value"] > whole["floor_high"]).sum() >= 1
    assert (whole["floor_max_high"] > whole["floor_high"]).all()


def test_known_weights_are_not_sought_again(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    tables = [composition_scores(model, "K", draws=3), head_spectra(model), copying_scores(model)]
    known = all_head_weights(model)
    for module in ("composition", "spectra"):
        monkeypatch.delattr(f"probes.heads.weights.{module}.all_head_weights")
    again = [
        composition_scores(model, "K", draws=3, weights=known),
        head_spectra(model, known),
        copying_scores(model, known),
    ]
    assert all(one.equals(other) for one, other in zip(tables, again, strict=True))
