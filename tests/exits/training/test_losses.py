"""What is trained at a layer is what a cut model returns, and Starbucks is the mean of losses at its pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from zoo import texts

from probes.capture import capture
from probes.errors import InputError
from probes.exits.training.bridge import trainable
from probes.exits.training.losses import (
    LOSSES,
    LossPlan,
    StarbucksLoss,
    base_loss,
    check_pairs,
    embeddings_at,
    starbucks_pairs,
)
from probes.linalg import normalise_rows

TEXTS = list(dict.fromkeys(texts(12, seed=4)))
PAIRS = [(0, 8), (1, 16), (2, 32), (3, 32)]


def tokens(made, given=TEXTS):
    tokenise = getattr(made, "preprocess", None) or made.tokenize
    return dict(tokenise(given))


@pytest.mark.parametrize("name", ["tiny", "tiny_normed"])
def test_what_is_trained_at_a_layer_is_what_a_model_cut_there_returns(request, name):
    model = request.getfixturevalue(name)
    pooling = model.embedding.pooling
    with trainable(model, pooling, None, {}) as made, torch.no_grad():
        found = embeddings_at(made.eval(), tokens(made), PAIRS)
    acts = capture(model, TEXTS, sites=["exit"], pooling=pooling)
    for (layer, dim), embedding in zip(PAIRS, found, strict=True):
        wanted = normalise_rows(acts["exit", layer][:, :dim])
        np.testing.assert_allclose(embedding.numpy(), wanted, atol=2e-6)


def test_without_the_final_norm_the_library_would_train_another_state(tiny_normed):
    """The control: its own hidden states of inner layers are raw."""
    pooling = tiny_normed.embedding.pooling
    acts = capture(tiny_normed, TEXTS, sites=["exit"], pooling=pooling)
    with trainable(tiny_normed, pooling, None, {}) as made, torch.no_grad():
        del made[0].forward  # the class' own again
        raw = embeddings_at(made.eval(), tokens(made), [(1, 32), (3, 32)])
    wanted = normalise_rows(acts["exit", 1])
    assert np.abs(raw[0].numpy() - wanted).max() > 1e-3
    np.testing.assert_allclose(raw[1].numpy(), normalise_rows(acts["exit", 3]), atol=2e-6)


def test_training_leaves_the_given_model_as_it_was(tiny):
    before = tiny.weights_hash
    with trainable(tiny, "mean", None, {}) as made, torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    assert tiny.weights_hash == before


def test_starbucks_is_the_mean_of_the_losses_at_its_pairs(tiny):
    labels = torch.linspace(0, 1, 6)
    with trainable(tiny, "mean", None, {}) as made, torch.no_grad():
        made.eval()
        base = base_loss(made, "cosent")
        columns = [tokens(made, TEXTS[:6]), tokens(made, TEXTS[6:12])]
        alone = [
            base.compute_loss_from_embeddings(
                [embeddings_at(made, column, [pair])[0] for column in columns], labels
            )
            for pair in PAIRS
        ]
        whole = StarbucksLoss(made, base, PAIRS, alignment=0)(columns, labels)
        aligned = StarbucksLoss(made, base, PAIRS)(columns, labels)
        last = StarbucksLoss(made, base, PAIRS[-1:])(columns, labels)
        plain = base([dict(column) for column in columns], labels)
    assert torch.stack(alone).mean() == pytest.approx(float(whole), rel=1e-6)
    assert float(aligned) > float(whole)  # a divergence is not negative
    assert float(last) == pytest.approx(float(plain), rel=1e-5)


def test_the_full_embedding_teaches_and_does_not_learn_from_the_alignment(tiny):
    """With the base loss silenced only the shallow side may get a gradient."""

    class Silent(torch.nn.Module):
        def compute_loss_from_embeddings(self, embeddings, labels):
            return sum(e.sum() * 0 for e in embeddings)

    with trainable(tiny, "mean", None, {}) as made:
        made.eval()
        columns = [tokens(made, TEXTS[:6]), tokens(made, TEXTS[6:])]
        StarbucksLoss(made, Silent(), [(1, 8), (3, 32)])(columns, torch.zeros(6)).backward()
        grads = {n: p.grad for n, p in made.named_parameters() if p.grad is not None}
    first = [g.abs().max() for n, g in grads.items() if "layer.0." in n]
    third = [g.abs().max() for n, g in grads.items() if "layer.2." in n]
    assert max(first) > 0
    assert max(third) == 0


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("kind", ["tiny", "tiny_normed"])
def test_every_loss_reaches_the_first_block_and_leaves_the_model_as_it_found_it(
    request, name, kind
):
    model = request.getfixturevalue(kind)
    plan = LossPlan(3, starbucks_pairs(3, 32), (8, 16, 32))
    with trainable(model, "mean", None, {}) as made:
        loss = LOSSES[name](made, base_loss(made, "ranking"), plan)
        columns = [tokens(made, TEXTS[:6]), tokens(made, TEXTS[6:])]
        before = made[0].forward
        loss(columns, torch.arange(6)).backward()
        assert made[0].forward == before
        grads = [p.grad for p in made.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    assert any(bool((g != 0).any()) for g in grads)


def test_pairs_that_do_not_exist_are_refused_and_the_full_model_is_always_one():
    assert check_pairs([(2, 16), (1, 8)], 3, 32) == ((1, 8), (2, 16), (3, 32))
    for bad in ((4, 8), (1, 33), (1, 0)):
        with pytest.raises(InputError, match="layers 0 to 3"):
            check_pairs([bad], 3, 32)
