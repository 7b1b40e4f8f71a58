"""Scores against a slow and obvious reference: eager attention, full matrices, loops."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from planted_heads import planted_model
from transformers.cache_utils import DynamicLayer
from zoo import SPECS, VOCABULARY, D, build

from probes.capture.attention_call import FusedCall
from probes.errors import DoesNotApply, InputError
from probes.heads.retrieval import (
    Needle,
    answer_trial,
    build_trial,
    copy_scores,
    decode_trial,
    haystack_ids,
    measure_trial,
)
from probes.heads.retrieval.passes import Context, aside, empty_context, read_on, row_logits

_WIDE = {"hidden_size": D, "vocab_size": VOCABULARY, "bos_token_id": 5, "eos_token_id": 6}
# Not Falcon with ALiBi: its eager and fused attention give logits that differ by more than 1.
ALIBI: dict[str, Any] = {
    "bloom": ("BloomConfig", "BloomForCausalLM", {**_WIDE, "n_head": 4, "n_layer": 3}),
}
DECODERS = [
    name
    for name, (_, head, _) in {**SPECS, **ALIBI}.items()
    if head.endswith(("CausalLM", "LMHeadModel")) and name != "mamba"
]
EOS = 6


@pytest.fixture(autouse=True)
def _with_alibi(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in ALIBI.items():
        monkeypatch.setitem(SPECS, name, spec)


def greedy(model: Any, ids: Any, n: int) -> list[int]:
    """n tokens of the model's own, each from a whole pass; up to an end of text."""
    now, found = list(ids), []
    for _ in range(n):
        with torch.no_grad():
            token = int(model.hf_model(torch.tensor([now]), use_cache=False).logits[0, -1].argmax())
        if token == EOS:
            break
        found.append(token)
        now.append(token)
    return found


def own_words(model: Any, trial: Any, n: int = 9) -> Any:
    """The trial with the model's own reply for an answer, which may be read anywhere in the context."""
    said = greedy(model, trial.ids, n)
    spans = {**trial.spans, "answer": trial.spans["context"]}
    return dataclasses.replace(trial, answer_ids=np.asarray(said, np.int64), spans=spans)


def reference(model: Any, trial: Any, eager: Any) -> tuple[Any, bool, float]:
    """Copy scores, whether answered, and the answer's log-probability, from everything that there is."""
    ids = torch.tensor([trial.forced_ids.tolist()])
    with torch.no_grad():
        out = eager(model)(ids, output_attentions=True, use_cache=False)
    logits = out.logits[0].double().log_softmax(-1)
    needle = set(trial.ids[trial.answer.start : trial.answer.stop].tolist())
    score = np.zeros((model.n_layers, model.n_heads))
    logprob, right = 0.0, []
    for i, token in enumerate(trial.answer_ids.tolist()):
        row = len(trial.ids) - 1 + i
        logprob += float(logits[row, token])
        right.append(int(logits[row].argmax()) == token)
    for block in range(model.n_layers):
        for head in range(model.n_heads):
            copied = set()
            for i, token in enumerate(trial.answer_ids.tolist()):
                weights = out.attentions[block][0, head, len(trial.ids) - 1 + i]
                top = int(weights.argmax())
                if right[i] and top in trial.answer and int(trial.ids[top]) == token:
                    copied.add(token)
            score[block, head] = len(copied) / len(needle)
    return score, all(right), logprob


@pytest.mark.parametrize("name", DECODERS)
def test_forced_and_decoded_scores_equal_the_slow_reference(
    name: str, make_trial: Any, eager: Any
) -> None:
    model = build(name)
    trial = own_words(model, make_trial(model, chat=False))
    if not len(trial.answer_ids):
        pytest.skip("the model says nothing")
    score, answered, logprob = reference(model, trial, eager)
    forced = measure_trial(model, trial, "forced", extras=False)
    assert answered
    assert forced.answered
    np.testing.assert_allclose(forced.score, score, atol=1e-6)
    assert forced.logprob == pytest.approx(logprob, abs=1e-4)
    with_extras = measure_trial(model, trial, "forced")  # by way of a cache
    np.testing.assert_allclose(with_extras.score, score, atol=1e-6)
    assert with_extras.logprob == pytest.approx(logprob, abs=1e-4)
    decoded = measure_trial(model, trial, "decode", extras=False)
    assert decoded.answered
    np.testing.assert_allclose(decoded.score, score, atol=1e-6)


def test_some_of_these_references_are_not_all_zero(make_trial: Any) -> None:
    """The comparison above would otherwise say nothing."""
    found = []
    for name in DECODERS:
        model = build(name)
        trial = own_words(model, make_trial(model, chat=False))
        found.append(measure_trial(model, trial, extras=False).score.max())
    assert sum(score > 0 for score in found) >= 4


def test_a_forced_token_that_the_model_does_not_say_scores_nothing(
    llama: Any, make_trial: Any, eager: Any
) -> None:
    trial = make_trial(llama)
    score, answered, _ = reference(llama, trial, eager)
    result = measure_trial(llama, trial)
    assert result.answered is answered is False
    np.testing.assert_allclose(result.score, score, atol=1e-6)
    assert answer_trial(llama, trial).logprob == pytest.approx(result.logprob, abs=1e-4)
    assert all(rank > 0 for rank in answer_trial(llama, trial).ranks[:1])


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gemma2", "falcon", "bloom"])
def test_mass_is_that_of_full_matrices(name: str, make_trial: Any, eager: Any) -> None:
    model = build(name)
    trial = make_trial(model, depth=1.0)  # near enough for sliding windows
    found = measure_trial(model, trial).mass
    twin = eager(model)
    want = np.zeros_like(found)
    for sign, ids, spans in ((1, trial.ids, trial.spans), (-1, trial.null_ids, trial.null_spans)):
        with torch.no_grad():
            out = twin(torch.tensor([ids.tolist()]), output_attentions=True)
        for block in range(model.n_layers):
            for row in spans["question"]:
                part = out.attentions[block][
                    0, :, row, spans["sentence"].start : spans["sentence"].stop
                ]
                want[block] += sign * part.sum(-1).numpy() / len(spans["question"])
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert np.abs(want).max() > 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_contribution_is_the_change_of_the_logit_by_what_the_head_reads(
    name: str, make_trial: Any
) -> None:
    """By a finite difference of the real norm and head along what the head writes from the needle less the rest."""
    model = build(name)
    trial = make_trial(model)
    found = measure_trial(model, trial).contribution
    seen: dict[int, Any] = {}
    block = 1

    def look(call: Any) -> None:
        rows = list(trial.rows)
        assert isinstance(call, FusedCall)
        value = call.rest["value"][0].double()
        value = value.repeat_interleave(call.heads.n // len(value), 0)
        sign = torch.full((call.shape[3],), -1.0, dtype=torch.float64)
        sign[list(trial.answer)] = 1
        seen["read"] = torch.einsum("hrk,k,hkd->rhd", call.pattern(rows)[0].double(), sign, value)

    from probes.capture.attention import attention_calls

    last: list[Any] = []
    hook = model.structure.blocks[-1].module.register_forward_hook(
        lambda _m, _a, out: last.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    ids = torch.tensor([trial.forced_ids.tolist()])
    with torch.no_grad(), attention_calls(model, look, [block]):
        model.hf_model(ids, use_cache=False)
    hook.remove()
    rows = list(trial.rows)
    final = last[0][0, rows].double()
    tail = [module.double() for module in model.structure.tail]
    projection = model.structure.blocks[block].o_proj.double()
    head = model.structure.lm_head.double()
    target = torch.tensor(trial.answer_ids.tolist())

    def above_mean(states: Any) -> Any:
        for module in tail:
            states = module(states)
        logits = head(states)
        return logits.gather(1, target[:, None])[:, 0] - logits.mean(1)

    for number in range(model.n_heads):
        z = torch.zeros_like(seen["read"])
        z[:, number] = seen["read"][:, number]
        with torch.no_grad():
            written = projection(z.flatten(1)) - projection(torch.zeros_like(z.flatten(1)))
            step = 1e-3
            change = above_mean(final + step * written) - above_mean(final - step * written)
        assert found[block, number] == pytest.approx(float((change / (2 * step)).mean()), abs=1e-3)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_half_precision_keeps_the_contribution(name: str, make_trial: Any) -> None:
    """Sums rounded to 8 bits are no other sums; and the weights come back as they were."""
    from probes.models import wrap_model

    whole = build(name)
    half = wrap_model(build(name).hf_model.to(torch.bfloat16), whole.tokenizer, name=name)
    before = {key: x.clone() for key, x in half.hf_model.state_dict().items()}
    trial = make_trial(whole)
    exact, coarse = measure_trial(whole, trial), measure_trial(half, trial)
    assert coarse.why == {}
    found = np.corrcoef(exact.contribution.ravel(), coarse.contribution.ravel())
    assert found[0, 1] > 0.95
    after = half.hf_model.state_dict()
    assert all(
        x.dtype == after[key].dtype and torch.equal(x, after[key]) for key, x in before.items()
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("opt-post-norm", "residual stream"),
        ("gemma2", "norm behind"),
        ("granite", "attn_out"),
        ("gptj", "sdpa"),
    ],
)
def test_contribution_is_missing_with_its_reason(name: str, reason: str, make_trial: Any) -> None:
    model = build(name)
    result = measure_trial(model, make_trial(model))
    assert result.contribution is None
    assert reason in result.why["contribution"]
    assert result.score is not None
    assert result.mass is not None


def test_planted_copy_head_scores_one_and_all_others_nothing() -> None:
    model, heads = planted_model()
    needle = Needle(
        "lisbon",
        "the secret word of Lisbon is copper.",
        "copper",
        "what is the secret word of Lisbon?",
        "the secret word of Lisbon is",
    )
    texts = [
        "a cat is a bird. the dog is a tree. the sun is the moon. a river is a stone. a house is a tree."
    ]
    haystack = haystack_ids(model, texts * 3)
    for depth in (0.2, 0.5, 0.8):
        trial = build_trial(model, needle, haystack, 80, depth, chat=False)
        for mode in ("forced", "decode"):
            result = measure_trial(model, trial, mode)
            assert result.answered
            assert result.emitted == "copper"
            assert result.score[heads["copy"]] == pytest.approx(1.0, abs=0.01)
            others = result.score.copy()
            others[heads["copy"]] = 0
            assert others.max() == 0
        assert np.unravel_index(result.contribution.argmax(), result.score.shape) == heads["copy"]


def test_planted_copy_head_is_lost_without_the_needle_token_looked_at() -> None:
    """Control: the same trial, with another place called the needle."""
    model, _ = planted_model()
    needle = Needle(
        "lisbon",
        "the secret word of Lisbon is copper.",
        "copper",
        "what is the secret word of Lisbon?",
        "the secret word of Lisbon is",
    )
    haystack = haystack_ids(model, ["a cat is a bird. the dog is a tree. the sun is the moon."] * 4)
    trial = build_trial(model, needle, haystack, 70, 0.5, chat=False)
    moved = range(trial.answer.start - 1, trial.answer.stop - 1)
    elsewhere = dataclasses.replace(trial, spans={**trial.spans, "answer": moved})
    assert measure_trial(model, elsewhere).score.max() == 0


def test_a_token_copied_twice_counts_once() -> None:
    context, answer = np.array([9, 4, 5, 4]), range(1, 4)  # distinct: 4 and 5
    tops = np.array([[1], [3], [1]])
    assert copy_scores(tops, [4, 4, 4], context, answer).tolist() == [0.5]


def test_looking_at_another_token_of_the_needle_is_no_hit() -> None:
    assert copy_scores(np.array([[2]]), [4], np.array([9, 4, 5]), range(1, 3)).tolist() == [0.0]


def test_no_pattern_of_all_rows_is_made(llama: Any, make_trial: Any, monkeypatch: Any) -> None:
    trial = make_trial(llama)
    asked: list[int] = []
    plain = FusedCall.logits

    def noted(self: Any, rows: Any = None, heads: Any = None) -> Any:
        asked.append(-1 if rows is None else len(rows))
        return plain(self, rows, heads)

    monkeypatch.setattr(FusedCall, "logits", noted)
    measure_trial(llama, trial, "forced", extras=False)
    assert asked == [len(trial.answer_ids)] * llama.n_layers


def test_model_and_inputs_stay_as_they_were(llama: Any, make_trial: Any) -> None:
    trial = make_trial(llama)
    before, ids = llama.weights_hash, trial.ids.copy()
    first = measure_trial(llama, trial)
    second = measure_trial(llama, trial)
    assert llama.weights_hash == before
    assert all(p.grad is None for p in llama.hf_model.parameters())
    np.testing.assert_array_equal(trial.ids, ids)
    np.testing.assert_array_equal(first.contribution, second.contribution)


@pytest.mark.parametrize("name", ["bert", "mpnet", "t5-encoder", "roberta"])
def test_encoders_have_query_mass_only(name: str, make_trial: Any, eager: Any) -> None:
    model = build(name)
    trial = make_trial(model, 50)
    result = measure_trial(model, trial)
    assert result.score is None
    assert "says no answer" in result.why["score"]
    assert np.abs(result.mass).max() > 0
    twin = eager(model)
    want = 0.0
    for sign, ids, spans in ((1, trial.ids, trial.spans), (-1, trial.null_ids, trial.null_spans)):
        with torch.no_grad():
            out = twin(torch.tensor([ids.tolist()]), output_attentions=True)
        sentence, question = spans["sentence"], spans["question"]
        part = out.attentions[2][
            0, 1, question.start : question.stop, sentence.start : sentence.stop
        ]
        want += sign * float(part.sum(-1).mean())
    assert result.mass[2, 1] == pytest.approx(want, abs=1e-5)


def test_models_that_cannot_be_asked_say_why(llama: Any, make_trial: Any) -> None:
    trial = make_trial(llama)
    with pytest.raises(DoesNotApply, match="no attention heads"):
        measure_trial(build("mamba"), trial)
    with pytest.raises(InputError, match="'forced' or 'decode'"):
        measure_trial(llama, trial, "sampled")  # type: ignore[arg-type]
    with pytest.raises(DoesNotApply, match=r"sees later tokens|language-model head"):
        decode_trial(build("bert"), trial)


def test_reading_aside_leaves_the_context_as_it_was_and_copies_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("llama")
    context = empty_context(model)
    first, second, other = np.arange(7, 19), np.arange(9, 13), np.arange(20, 26)
    read_on(model, first, context)
    before = [layer.keys for layer in context.cache.layers]
    monkeypatch.setattr(Context, "copy", lambda _: pytest.fail("copied"))
    with aside(context) as elsewhere:
        read_on(model, other, elsewhere)
        assert elsewhere.tokens == 18
    assert context.tokens == 12
    assert all(a is layer.keys for a, layer in zip(before, context.cache.layers, strict=True))
    after = row_logits(model, read_on(model, second, context), range(4))
    whole = row_logits(model, read_on(model, np.concatenate([first, second])), range(12, 16))
    torch.testing.assert_close(after, whole, atol=1e-4, rtol=1e-4)


def test_a_context_that_forgets_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("mistral")
    copies: list[Context] = []
    whole = Context.copy

    def counted(self: Context) -> Context:
        copies.append(self)
        return whole(self)

    monkeypatch.setattr(Context, "copy", counted)
    context = empty_context(model)
    read_on(model, np.arange(7, 19), context)
    sliding = any(type(layer) is not DynamicLayer for layer in context.cache.layers)
    with aside(context) as elsewhere:
        read_on(model, np.arange(20, 26), elsewhere)
    assert len(copies) == sliding == 1
    assert context.tokens == 12
