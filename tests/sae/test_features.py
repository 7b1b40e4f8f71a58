"""Features described: against brute force over unbatched states, closed forms, and features that were planted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_heads import BEFORE as BEFORE_PLACE
from planted_heads import FILLER, D, planted_model
from planted_heads import TOKEN as TOKEN_PLACE
from scipy import sparse, stats
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from probes.capture import capture
from probes.capture.observe import Reading
from probes.errors import DataError, DoesNotApply, InputError
from probes.sae.baselines import NeuronCoder
from probes.sae.examples import QUARTERS, ExamplePlan
from probes.sae.features import COLUMNS, FeatureTables, best_concepts, describe_features
from probes.sae.kept import Entries, Kept, random_keys, text_peaks
from probes.sae.logit_weights import logit_weights
from probes.sae.search import search_features
from probes.sae.similarity import nearest_features, similar_features
from probes.sae.token_states import text_codes
from probes.sae.token_text import SpelledTexts, Types


class Rectified:
    """Codes relu(x · W − threshold): any function of the state will do."""

    def __init__(self, d: int, m: int, threshold: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.decoder_ = rng.normal(size=(m, d)).astype(np.float32) / np.sqrt(d)
        self.threshold = threshold

    def transform(self, X: Any) -> Any:
        return sparse.csr_array(np.maximum(np.asarray(X) @ self.decoder_.T - self.threshold, 0))

    def inverse_transform(self, codes: Any) -> Any:
        return np.asarray(codes @ self.decoder_)


def token_codes(model: Any, coder: Any, texts: list[str], site: str, layer: int) -> list[Any]:
    """Dense codes (tokens, m) of every text, by another way: a store of all tokens, from batches without padding."""
    store = capture(model, texts, [site], "none", [layer], padding_side="none")
    states = np.asarray(store[site, layer])
    codes = coder.transform(states.reshape(len(states), -1)).toarray()
    return np.split(codes, store.offsets[1:-1])


@pytest.mark.parametrize(
    ("name", "site", "special"),
    [("llama", "resid_post", True), ("bert", "z", True), ("bert", "resid_post", False)],
)
def test_all_numbers_and_windows_are_those_of_texts_read_alone(
    name: str, site: str, special: bool
) -> None:
    model, texts = zoo.build(name), zoo.texts(60, longest=30)
    coder = Rectified(model.d_model, 40, 0.6)
    plan = ExamplePlan(top=4, per_quarter=2, sample=32, before=5, after=3)
    made = describe_features(
        model,
        coder,
        texts,
        site,
        1,
        held_out=[],
        plan=plan,
        special_tokens=special,
        batch_tokens=64,
    )
    codes = token_codes(model, coder, texts, site, 1)
    begin, end = (1, None) if model.is_causal else (None, None) if special else (1, -1)
    flat = np.vstack(
        [c[begin:end] for c in codes]
    )  # no first token of a causal model, no [CLS] and [SEP]
    for own in codes:
        own[: begin or 0] = 0
        own[len(own) + (end or 0) :] = 0
    assert made.tokens == len(flat)
    table = made.features
    assert list(table.columns) == list(COLUMNS)
    live = (flat != 0).any(0)
    assert live.sum() > 0
    assert (table["dead"] == ~live).all()
    assert np.allclose(table["density"], (flat != 0).mean(0))
    assert np.allclose(table["max_active"][live].astype(float), flat.max(0)[live], atol=1e-4)
    mean = flat.sum(0)[live] / (flat != 0).sum(0)[live]
    assert np.allclose(table["mean_active"][live].astype(float), mean, atol=1e-4)
    assert table["mean_active"][~live].isna().all()
    peaks = np.stack([c.max(0) for c in codes])  # (texts, m)
    for row in made.examples.to_dict("records"):
        feature, text = row["feature"], row["text"]
        own = codes[text][:, feature]
        values, tokens = json.loads(row["values"]), json.loads(row["tokens"])
        assert len(values) == len(tokens) <= plan.width
        assert values[row["peak"]] == pytest.approx(row["activation"], rel=1e-3)
        if row["quantile"] == "top":
            wanted = np.sort(peaks[:, feature])[::-1][row["rank"] - 1]
            assert row["activation"] == pytest.approx(wanted, abs=1e-4)
            at = int(own.argmax())
            first = max(0, at - plan.before)
            assert row["peak"] == at - first
            assert np.allclose(values, own[first : at + plan.after + 1], atol=1e-3)
    tops = made.examples[made.examples["quantile"] == "top"]
    assert not tops.duplicated(["feature", "text"]).any()
    count = tops.groupby("feature").size()
    assert (count == np.minimum((peaks > 0).sum(0), plan.top)[count.index]).all()


def test_quarters_are_those_of_all_activations_and_no_token_comes_twice() -> None:
    model, texts = zoo.build("llama"), zoo.texts(200, longest=20)
    coder = Rectified(model.d_model, 24, 1.0)
    plan = ExamplePlan(per_quarter=3, sample=4000)  # all of them
    made = describe_features(model, coder, texts, "resid_post", 2, held_out=[], plan=plan)
    every = np.vstack([c[1:] for c in token_codes(model, coder, texts, "resid_post", 2)])
    checked = 0
    for feature, rows in made.examples.groupby("feature"):
        values = np.sort(every[:, feature][every[:, feature] > 0])
        for row in rows[rows["quantile"] != "top"].to_dict("records"):
            number = QUARTERS.index(row["quantile"])
            n = len(values)
            own = values[np.arange(n) * 4 // n == number]
            assert own.min() - 1e-4 <= row["activation"] <= own.max() + 1e-4
            checked += 1
        places = rows.assign(at=rows["activation"].round(5))
        assert not places.duplicated(["text", "at"]).any()
    assert checked > 100


def test_neither_batches_nor_their_order_matter() -> None:
    # later tokens count, so that no two states are equal but for rounding
    model, texts = zoo.build("bert"), sorted(set(zoo.texts(80, longest=25)))
    coder = Rectified(model.d_model, 32, 0.8)
    tables = [
        describe_features(
            model, coder, texts, "resid_post", 2, plan=ExamplePlan(sample=8), batch_tokens=size
        )
        for size in (16, 4096)
    ]
    for one, two in (
        (tables[0].features, tables[1].features),
        (tables[0].examples, tables[1].examples),
    ):
        rest = [
            name
            for name in one.columns
            if name not in ("values", "activation", "mean_active", "max_active")
        ]
        pd.testing.assert_frame_equal(one[rest], two[rest], rtol=1e-4)
    assert np.allclose(
        tables[0].examples["activation"], tables[1].examples["activation"], atol=1e-4
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
def test_kept_entries_are_the_best_of_all_however_they_come(seed: int, k: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = 60, 4
    feature = rng.integers(0, m, n)
    value = rng.integers(1, 9, n).astype(float) + rng.permutation(n) / 1000
    entries = Entries(feature, value, np.arange(n), rng.integers(0, 5, n))
    kept = Kept(m, k, 2)
    for chosen in np.array_split(rng.permutation(n), parts):
        one = entries.part(chosen)
        kept.offer(
            one, one.value, lambda rows, one=one: np.stack([one.value[rows], one.text[rows]], 1)
        )
    for f in range(m):
        best = np.sort(value[feature == f])[::-1][:k]
        got = kept.value[f][kept.filled[f]]
        assert np.allclose(got, best)
        assert np.allclose(kept.window[f][kept.filled[f]][:, 0], best)
        assert (kept.window[f][kept.filled[f]][:, 1] == kept.text[f][kept.filled[f]]).all()


def test_sample_is_uniform_and_peaks_are_one_per_text() -> None:
    n = 20_000
    entries = Entries(np.zeros(n, int), np.arange(n) % 7.0, np.arange(n) // 10, np.arange(n) % 10)
    keys = random_keys(entries, 3)
    assert stats.kstest(keys, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(keys[1:], keys[:-1])[0, 1]) < 0.03
    order = np.random.default_rng(0).permutation(n)
    assert (random_keys(entries.part(order), 3) == keys[order]).all()
    assert not np.allclose(keys, random_keys(entries, 4))
    peaks = text_peaks(entries)
    assert len(peaks) == n // 10
    assert entries.value[peaks].min() >= 5


def byte_tokenizer(special: bool) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<s>", "he", "Ġhe"])}
    core = Tokenizer(models.BPE(vocabulary, [("h", "e"), ("Ġ", "he")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevel()
    if special:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", pad_token="<s>", model_max_length=64
    )


def test_pieces_put_together_are_the_text() -> None:
    from probes.models import wrap_model

    texts = ["he said he 🙂 went", "  two\nlines\tand é", "plain"]
    for special in (False, True):
        words = byte_tokenizer(special)
        assert len(words) > zoo.VOCABULARY
        model = zoo.hf_model("llama")
        model.resize_token_embeddings(len(words))
        spelled = SpelledTexts(Reading.of(wrap_model(model, words, name="bytes"), texts))
        for number, text in enumerate(texts):
            pieces = spelled.pieces(number)
            assert "".join(pieces[special:]) == text
            assert pieces[:special] == ["<s>"][:special]
            assert len(pieces) == spelled.starts[number + 1] - spelled.starts[number]
        assert spelled.pieces(0)[special : special + 2] == ["he", " "]
        assert " he" in spelled.pieces(0)
        assert spelled.at(np.array([0, 0, 2]), np.array([-1, 99, 0])).tolist()[:2] == [-1, -1]
    types = Types.make(words)
    assert (
        types.of[words.convert_tokens_to_ids("he")] == types.of[words.convert_tokens_to_ids("Ġhe")]
    )
    assert types.of[words.convert_tokens_to_ids("h")] == types.of[words.convert_tokens_to_ids("H")]


def test_word_pieces_and_prompts_are_shown_as_written() -> None:
    model = zoo.build("bert")
    spelled = SpelledTexts(Reading.of(model, ["the  cat", "dog runs"], prompt="a "))
    assert spelled.pieces(0) == ["[CLS]", "a", " the", "  cat", "[SEP]"]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_logit_weights_are_the_direct_path(name: str) -> None:
    if name not in zoo.NAMES:
        pytest.skip(f"the zoo has no {name}")
    model = zoo.build(name)
    rows = np.random.default_rng(0).normal(size=(7, model.d_model)).astype(np.float32)
    made = logit_weights(model, rows, "resid_post", 2, n=5)
    # the tail at a large state: the change by a small row, with the scale of that state, is the frozen one
    (norm,) = model.structure.tail
    head = model.structure.lm_head.weight.detach()[: len(model.tokenizer)]
    with torch.no_grad():
        signs = torch.ones(model.d_model, dtype=torch.float64)
        signs[1::2] = -1
        gain = getattr(norm, "weight", torch.ones(model.d_model)).double()
        gain = gain + 1 if "gemma" in name else gain
        written = torch.from_numpy(rows).double()
        written = written - written.mean(1, keepdim=True) if name == "gpt2" else written
        wanted = (written * gain) @ head.double().T
    order = wanted.argsort(1, descending=True).numpy()
    assert (made.up == order[:, :5]).all()
    assert (made.down == order[:, ::-1][:, :5]).all()
    assert np.allclose(made.kurtosis, stats.kurtosis(wanted.numpy(), axis=1), atol=1e-3)
    assert made.up_tokens[0][0].strip() == model.tokenizer.decode([int(order[0, 0])]).strip()


def test_logit_weights_elsewhere() -> None:
    model = zoo.build("llama")
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(4, model.n_heads * model.d_head)).astype(np.float32)
    project = model.structure.module_for("z", 1)
    written = heads @ project.weight.detach().numpy().T
    through = logit_weights(model, heads, "z", 1, 5)
    assert (through.up == logit_weights(model, written, "resid_post", 2, 5).up).all()
    past = logit_weights(model, written, "exit", 2, 5).up
    head = model.structure.lm_head.weight.detach().numpy()[: len(model.tokenizer)]
    assert (past == np.argsort(-(written @ head.T), axis=1)[:, :5]).all()
    with pytest.raises(DoesNotApply, match="no language-model head"):
        logit_weights(zoo.build("bert"), heads, "resid_post", 1)
    with pytest.raises(InputError, match="wide"):
        logit_weights(model, np.ones((2, 5)), "resid_post", 1)
    with pytest.raises(InputError, match="tokens"):
        logit_weights(model, written, "resid_post", 1, n=0)


def test_nearest_decoder_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(1500, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    nearest, size = nearest_features(rows)
    assert (nearest == cosine.argmax(1)).mean() > 0.999  # float32 ties
    assert np.allclose(size, cosine.max(1), atol=1e-5)
    some = similar_features(rows, 7, 5)
    assert some["feature"].tolist() == np.argsort(-cosine[7])[:5].tolist()
    with pytest.raises(InputError, match="does not exist"):
        similar_features(rows, 1500)


class Planted:
    """One feature per word that it stands on, one per word that came before, and as many that fire at random."""

    def __init__(self, words: list[int], share: float) -> None:
        self.words, self.share = words, share

        self.decoder_ = np.random.default_rng(0).normal(size=(3 * len(words), D))

    def transform(self, X: Any) -> Any:
        X = np.asarray(X, np.float64)
        noise = np.abs(np.sin(1e4 * X[:, TOKEN_PLACE].sum(1) + 1e5 * X[:, -9:] @ np.arange(1, 10)))
        own = (X[:, TOKEN_PLACE][:, self.words] > 0.5) * (1 + noise[:, None])
        before = (X[:, BEFORE_PLACE][:, self.words] > 0.5) * (1 + noise[:, None])
        rng = np.random.default_rng(np.frombuffer(X.astype(np.float32).tobytes()[:8], np.uint32))
        chance = (rng.random(own.shape) < self.share) * (1 + noise[:, None])
        return sparse.csr_array(np.hstack([own, before, chance]))

    def inverse_transform(self, codes: Any) -> Any:
        return np.asarray(codes @ self.decoder_)


@pytest.fixture
def sentences() -> list[str]:
    rng = np.random.default_rng(0)
    rare, common = list(FILLER[2:6]), list(FILLER[6:])
    found = []
    for _ in range(400):
        words = rng.choice(common, 20).tolist()
        if rng.random() < 0.3:
            words[rng.integers(3, 18)] = str(rng.choice(rare))
        found.append(" ".join(words))
    return found


def test_planted_features_are_picked_with_their_sign_and_random_ones_are_not(
    sentences: list[str],
) -> None:
    model, _ = planted_model()
    names = list(FILLER[2:6])
    words = [model.tokenizer.convert_tokens_to_ids(word) for word in names]
    coder = Planted(words, 0.004)
    made = describe_features(model, coder, sentences, "resid_post", 1)
    table = made.features.set_index("feature")
    n = len(words)
    assert (table["density"].iloc[2 * n :] > 5e-4).all()
    picked = table["why"].dropna()
    assert sorted(picked.index) == list(range(2 * n))
    assert sorted(table["shown"].dropna()) == list(range(1, 2 * n + 1))
    for i, name in enumerate(names):
        assert picked[i].startswith(f"Active on “{name}”: 100 %")
        assert picked[n + i].startswith(f"Active right after “{name}”: 100 %")
    other = [f"{text} {FILLER[0]}" for text in reversed(sentences[:150])]
    again = describe_features(model, coder, sentences, "resid_post", 1, held_out=other, shown=3)
    assert again.features["shown"].notna().sum() == 3


def test_a_sign_that_fails_in_held_out_texts_is_not_shown(sentences: list[str]) -> None:
    model, _ = planted_model()
    words = [model.tokenizer.convert_tokens_to_ids(word) for word in FILLER[2:6]]
    common = [" ".join(np.random.default_rng(i).choice(FILLER[6:], 20)) for i in range(60)]
    made = describe_features(
        model, Planted(words, 0.01), sentences, "resid_post", 1, held_out=common
    )
    assert made.features["shown"].isna().all()
    few = describe_features(model, Planted(words, 0.01), sentences[:4], "resid_post", 1)
    assert few.features["shown"].isna().all()
    assert any("hold some out" in note for note in few.notes)


def test_concepts_are_merged_by_the_fit_half_and_can_be_shown(sentences: list[str]) -> None:
    def told(feature: int, auroc: float, fit: float, dataset: str) -> pd.DataFrame:
        row = {"feature": [feature], "dataset": [dataset], "concept": ["it"], "auroc": [auroc]}
        ends = {
            "auroc_low": [auroc - 0.05],
            "auroc_high": [min(1, auroc + 0.05)],
            "fit_auroc": [fit],
        }
        return pd.DataFrame(row | ends)

    both = best_concepts([told(9, 0.95, 0.9, "one"), told(9, 0.99, 0.8, "two")])
    assert both["dataset"].tolist() == ["one"]
    assert not len(best_concepts([]))
    model, _ = planted_model()
    words = [model.tokenizer.convert_tokens_to_ids(word) for word in FILLER[2:6]]
    coder = Planted(words, 0.004)
    made = describe_features(model, coder, sentences, "resid_post", 1, concepts=[both])
    row = made.features.set_index("feature").loc[9]  # fires at random
    assert row["why"].startswith("Active where “it” is (one): AUROC 0.95 [0.90, 1.00]")
    assert made.features["concept"].notna().sum() == 1


def test_codes_of_texts_are_pooled_codes_of_tokens() -> None:
    model, texts = zoo.build("llama"), zoo.texts(30)
    states = np.random.default_rng(0).normal(size=(50, model.d_model))
    coders = {"one": Rectified(model.d_model, 20, 0.5), "signed": NeuronCoder(5).fit(states)}
    ways = {"mean": lambda c: c.mean(0), "max": lambda c: c.max(0), "last": lambda c: c[-1]}
    for pooling, way in ways.items():
        some = {"pooling": pooling, "skip_first": 0, "batch_tokens": 40}
        found = text_codes(model, {**coders, "dense": None}, texts, "resid_post", 2, **some)
        for name, coder in coders.items():
            wanted = np.stack([way(c) for c in token_codes(model, coder, texts, "resid_post", 2)])
            assert found[name].shape == wanted.shape
            assert np.allclose(found[name].toarray(), wanted, atol=1e-4)
    dense = text_codes(model, {"dense": None}, texts, "resid_post", 2, skip_first=0)["dense"]
    wanted = np.asarray(capture(model, texts, ["resid_post"], "mean", [2])["resid_post", 2])
    assert np.allclose(dense, wanted, atol=1e-4)
    later = text_codes(model, coders, ["the", *texts], "resid_post", 2)["one"].toarray()
    codes = token_codes(model, coders["one"], texts, "resid_post", 2)
    assert not later[0].any()  # a first token only
    assert np.allclose(later[1:], [c[1:].sum(0) / max(1, len(c) - 1) for c in codes], atol=1e-4)
    with pytest.raises(DataError, match="nothing is left"):
        text_codes(model, coders, ["the"], "resid_post", 2)
    with pytest.raises(InputError, match="pooling"):
        text_codes(model, coders, texts, "resid_post", 2, pooling="median")


def test_search_by_promoted_token_example_and_concept() -> None:
    features = pd.DataFrame(
        {
            "feature": [0, 1, 2, 3],
            "concept": ["past tense", None, None, None],
            "dataset": ["verbs", None, None, None],
            "up_tokens": [None, '[" was", " Were"]', '[" warm"]', None],
        }
    )
    examples = pd.DataFrame(
        {
            "feature": [2, 3, 3],
            "tokens": ['[" it", " was", " so"]', '[" New", " Y", "ork", " was"]', '["x"]'],
            "values": ["[3.0, 1.0, 0.0]", "[2.0, 1.0, 1.0, 0.0]", "[1.0]"],
        }
    )
    tables = FeatureTables(features, examples, 8, 3)
    found = search_features(tables, "WAS")
    assert found[["feature", "where"]].values.tolist() == [[1, "promoted tokens"], [2, "examples"]]
    assert found["score"].tolist() == [1.0, 0.25]
    york = search_features(tables, "new york").iloc[0]
    assert (york["feature"], york["score"], york["found"]) == (3, 0.5, "New York")
    assert search_features(tables, "tense")["where"].tolist() == ["concept"]
    assert search_features(tables, "verbs")["score"].tolist() == [1.0]
    assert not len(search_features(tables, "zebra"))
    with pytest.raises(InputError, match="empty"):
        search_features(tables, "  ")


@pytest.mark.models
@pytest.mark.slow
def test_features_of_a_real_encoder() -> None:
    from probes.datasets import load_dataset
    from probes.models import load_model
    from probes.sae import SparseAutoencoder, from_model

    model, data = load_model("minilm"), load_dataset("sentiment")
    texts = list(data.texts[:500])
    sae = SparseAutoencoder(n_features=512, k=8, steps=200, batch_size=1024, device="cpu")
    sae.fit(from_model(model, texts, "resid_post", 3))
    made = describe_features(model, sae, texts, "resid_post", 3)
    assert made.features["up_tokens"].isna().all()
    assert "no language-model head" in made.notes[0]
    assert made.features["shown"].notna().sum() >= 3
    for row in made.examples.to_dict("records")[::50]:
        tokens = json.loads(row["tokens"])
        shown = "".join(token for token in tokens if token not in ("[CLS]", "[SEP]"))
        assert shown.strip() in texts[row["text"]]


def test_errors() -> None:
    with pytest.raises(InputError, match="at most 23"):
        ExamplePlan(before=20, after=20)
    model = zoo.build("llama")
    with pytest.raises(InputError, match="no layer"):
        describe_features(model, Rectified(model.d_model, 4, 0.5), ["the cat"], "resid_post", 9)
