"""Head types on random tokens that repeat: planted heads found, TransformerLens agrees, nothing without repetition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zoo
from planted_heads import HEADS, SECRETS, V, planted_model

from probes.capture.attention_call import SoftmaxCall
from probes.capture.bridge_backend import open_bridge
from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError
from probes.heads.types import induction_scores
from probes.heads.types.measures import DUPLICATE, INDUCTION, PREVIOUS
from probes.heads.types.repeated import CONTROL, draw_tokens, pair_attention
from probes.models.structure import Heads

PLANTED = {
    "induction_score": HEADS["induction"],
    "previous_token_score": HEADS["previous"],
    "duplicate_token_score": HEADS["duplicate"],
}


def scores(table: pd.DataFrame, measure: str, variant: str | None = None) -> pd.Series:
    """Values by (block, head)."""
    same = (
        table["variant"].isna() if variant is None else table["variant"].eq(variant).fillna(False)
    )
    mine = table[(table["measure"].eq(measure) & same).to_numpy(bool)]
    return mine.set_index(["block", "head"])["value"].astype(float)


@pytest.fixture(scope="module")
def planted() -> Any:
    return planted_model()[0]


@pytest.fixture(scope="module")
def table(planted: Any) -> pd.DataFrame:
    return induction_scores(planted, sequences=12, seed=1)


@pytest.mark.parametrize("measure", list(PLANTED))
def test_planted_heads_are_found_and_only_they(table: pd.DataFrame, measure: str) -> None:
    found, control = scores(table, measure), scores(table, measure, CONTROL)
    assert len(found) == len(control) == 12
    assert found[PLANTED[measure]] == pytest.approx(1.0, abs=1e-4)
    if measure != "previous_token_score":
        # Nothing to find, so they rest on the first token: just so far away from one of the 20 queries.
        assert control[PLANTED[measure]] < 0.05 + 1e-4
    others = found.drop([PLANTED[measure], HEADS["copy"]])
    assert others.max() < 0.25  # uniform attention near the beginning is no more


def test_the_copy_head_does_induction_for_its_own_words_only(table: pd.DataFrame) -> None:
    share = len(SECRETS) / (V - 4)
    found = scores(table, "induction_score")[HEADS["copy"]]
    assert found == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_transformer_lens_has_the_same_stripes(name: str) -> None:
    model = zoo.build(name)
    n, repeats, length, seed = 6, 2, 16, 3
    table = induction_scores(model, length=length, sequences=n, seed=seed)
    tokens, _ = draw_tokens(model, length, repeats, n, np.random.default_rng(seed))
    patterns: dict[str, torch.Tensor] = {}

    def keep(pattern: torch.Tensor, hook: Any) -> None:
        patterns[hook.name] = pattern.detach()

    hooks = [(f"blocks.{b}.attn.hook_pattern", keep) for b in range(model.n_layers)]
    with open_bridge(model, [Place("z", 0)]) as runner, runner.bridge.hooks(fwd_hooks=hooks):
        runner.bridge(torch.from_numpy(tokens.ids), return_type=None)
    offsets = {INDUCTION.name: 1 - length, PREVIOUS.name: -1, DUPLICATE.name: -length}
    for measure, offset in offsets.items():
        found = scores(table, measure)
        for block in range(model.n_layers):
            stripe = patterns[f"blocks.{block}.attn.hook_pattern"].diagonal(offset, -2, -1)
            if measure == INDUCTION.name:
                stripe = stripe[..., 1:]  # theirs begins at the last token of the first time
            for head, value in enumerate(stripe.mean((0, -1))):
                assert found[block, head] == pytest.approx(float(value), abs=1e-4)


def test_more_repeats_and_special_tokens_around(planted: Any) -> None:
    model = zoo.build("bert")  # [CLS] … [SEP]
    tokens, plain = draw_tokens(model, 9, 3, 5, np.random.default_rng(0))
    assert tokens.ids.shape == plain.ids.shape == (5, 1 + 27 + 1)
    assert (tokens.ids[:, 0] == 0).all()
    assert (tokens.ids[:, -1] == 2).all()
    for row in tokens.ids[:, 1:-1]:
        assert len(set(row)) == 9
        assert (row[:9] == row[18:]).all()
        assert row.min() >= len(zoo.SPECIALS)
    assert all(len(set(row)) == 27 for row in plain.ids[:, 1:-1])
    for measure in (INDUCTION, DUPLICATE, PREVIOUS):
        queries, keys = tokens.pairs(measure)
        assert keys.min() >= 1
        assert queries.max() == 27
    found = scores(induction_scores(planted, length=12, repeats=3, sequences=4), "induction_score")
    # in the third time there are two earlier occurrences, between which the head does not choose
    assert found[HEADS["induction"]] == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("name", ["bert", "modernbert", "t5-encoder"])
def test_encoders_have_no_induction(name: str) -> None:
    model = zoo.build(name)
    found = induction_scores(model, sequences=3)
    assert set(found["measure"]) == {"previous_token_score", "duplicate_token_score"}
    assert "sees later tokens" in found.attrs["notes"][0]
    with pytest.raises(DoesNotApply, match="sees later tokens"):
        induction_scores(model, measures=["induction_score"])


@pytest.mark.parametrize("name", ["gpt-neox", "opt", "mistral", "gemma2", "falcon", "phi3"])
def test_other_decoders_give_shares(name: str) -> None:
    found = induction_scores(zoo.build(name), sequences=3, length=10)
    assert len(found) == 3 * 2 * 3 * 4
    assert found["value"].between(0, 1).all()
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()


def test_seeds_batches_and_refusals(planted: Any) -> None:
    one = induction_scores(planted, sequences=5, batch=5, length=8)
    two = induction_scores(planted, sequences=5, batch=2, length=8)
    assert np.allclose(one["value"].astype(float), two["value"].astype(float), atol=1e-6)
    other = induction_scores(planted, sequences=5, length=8, seed=1)
    assert not one["value"].equals(other["value"])
    with pytest.raises(InputError, match="room for lengths from 2 to 20"):
        induction_scores(planted, length=21)
    with pytest.raises(InputError, match="did you mean"):
        induction_scores(planted, measures=["induction_scores"])
    with pytest.raises(InputError, match="at least 1, 1 and 2"):
        induction_scores(planted, repeats=1)
    for name in ("mamba", "vit"):
        with pytest.raises(DoesNotApply):
            induction_scores(zoo.build(name))


def test_pieces_of_any_size_give_the_same() -> None:
    given = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    call = SoftmaxCall(0, Heads(3, 3, 4), given, lambda x: x.softmax(-1))
    queries, keys = np.array([0, 3, 5, 11]), np.array([0, 1, 5, 2])
    expected = given.softmax(-1)[:, :, queries, keys].mean(-1)
    for at_once in (1, 2 * 3 * 12 * 5, 10**9):
        found = pair_attention(call, {"m": (queries, keys)}, at_once)["m"]
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.models
@pytest.mark.slow
def test_a_real_model_has_induction_heads(users_cache: None) -> None:
    from probes.models import load_model

    model = load_model("smollm2")
    found = induction_scores(model, sequences=4)
    for measure, least in (("induction_score", 0.8), ("previous_token_score", 0.8)):
        assert scores(found, measure).max() > least
    assert scores(found, "induction_score", CONTROL).max() < 0.2
