"""Trials: every span is where it is said to be, for every tokenizer, length, depth and odd text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from probes.errors import DataError, InputError
from probes.heads.retrieval import (
    Needle,
    Placed,
    build_trial,
    builtin_needles,
    haystack_ids,
    plan_trials,
)

CORPUS = [
    "The council met in April. Nobody was surprised! What did they decide? Nothing of note.",
    "Rivers run to the sea; the sea is not full. A stone fell (twice). Then it rained.",
    "Кошка спит. 東京は大きい. Ünïcode naïve façade. Emoji \N{GRINNING FACE} end here.",
] * 6
TEMPLATE = "{{ '<s>user ' }}{{ messages[0]['content'] }}{{ '</s><s>bot ' }}"


def byte_level() -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator(CORPUS + [n.sentence for n in builtin_needles()], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def metaspace() -> Any:
    """As SentencePiece does it: the start of a text counts as a space, unknown characters are bytes."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    core.train_from_iterator(CORPUS + [n.sentence for n in builtin_needles()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def stand_in(tokenizer: Any, causal: bool = True, chat: bool = False) -> Any:
    """As much of a model as a trial needs."""
    if chat:
        tokenizer.chat_template = TEMPLATE
    return SimpleNamespace(
        name="stand-in", tokenizer=tokenizer, max_length=4096, is_causal=causal,
        require_tokenizer=lambda: tokenizer,
    )  # fmt: skip


BYTES, META = stand_in(byte_level()), stand_in(metaspace())
CHAT = stand_in(byte_level(), chat=True)
STACKS = {id(m): haystack_ids(m, CORPUS * 3) for m in (BYTES, META, CHAT)}
WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="▁"),
    min_size=1,
    max_size=9,
)


def check(model: Any, trial: Any, tokens: int) -> None:
    """All that is promised of a trial's spans."""
    words = model.tokenizer
    assert trial.tokens == len(trial.ids) <= tokens
    inside = trial.ids[trial.answer.start : trial.answer.stop]
    np.testing.assert_array_equal(inside, trial.answer_ids)
    sentence, question, context = trial.sentence, trial.question, trial.spans["context"]
    assert sentence.start <= trial.answer.start < trial.answer.stop <= sentence.stop
    assert context.start <= sentence.start < sentence.stop <= context.stop
    taken = [sentence, question, *trial.distractors]
    places = [place for span in taken for place in span]
    assert len(places) == len(set(places))
    assert not set(question) & set(context)
    null = trial.null_ids[trial.null_spans["question"].start : trial.null_spans["question"].stop]
    if "[UNK]" not in words.get_vocab():
        assert words.decode(null).strip().upper() == "N/A"
    if trial.reply:
        np.testing.assert_array_equal(trial.ids[: context.stop], trial.null_ids[: context.stop])
        assert trial.rows.start == len(trial.ids) - 1
        assert len(trial.rows) == len(trial.answer_ids)
        assert trial.rows.stop == len(trial.forced_ids)
    null_sentence = trial.null_spans["sentence"]
    np.testing.assert_array_equal(
        trial.null_ids[null_sentence.start : null_sentence.stop],
        trial.ids[sentence.start : sentence.stop],
    )


@pytest.mark.parametrize("model", [BYTES, META, CHAT], ids=["byte-level", "metaspace", "chat"])
@given(
    words=st.lists(WORD, min_size=1, max_size=4),
    tokens=st.integers(400, 500),
    depth=st.floats(0, 1),
    start=st.integers(0, 10**6),
    glue=st.sampled_from([" ", ' "', " (", ": "]),
)
@settings(max_examples=25, deadline=None)
def test_the_needle_is_where_it_is_said_to_be(
    model: Any, words: list[str], tokens: int, depth: float, start: int, glue: str
) -> None:
    answer = "~" + " ".join(words) + "~"  # unlike all else in the sentence
    if answer in f"The name of it is{glue}":
        return
    needle = Needle("odd", f"The name of it is{glue}{answer}.", answer, "What is its name?")
    others = [Placed(builtin_needles()[0], 0.3), builtin_needles()[1]]
    trial = build_trial(model, needle, STACKS[id(model)], tokens, depth, others, start=start)
    check(model, trial, tokens)
    text = model.tokenizer.decode(trial.ids[trial.answer.start : trial.answer.stop])
    assert text.strip() == answer
    whole = model.tokenizer.decode(trial.ids[trial.sentence.start : trial.sentence.stop])
    assert whole.strip() == needle.sentence


@given(
    st.lists(st.sampled_from(zoo.WORDS), min_size=1, max_size=3, unique=True),
    st.integers(40, 64),
    st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_with_the_word_tokenizer_of_the_tiny_models(
    words: list[str], tokens: int, depth: float
) -> None:
    for causal in (True, False):
        model = stand_in(zoo.tokenizer("decoder" if causal else "encoder"), causal)
        answer = " ".join(words)
        needle = Needle("w", f"zzz {answer} zzz.", answer, "who", "so")
        texts = ["the cat sees one dog. the bird sings. a fish eats."] * 8
        trial = build_trial(model, needle, haystack_ids(model, texts), tokens, depth)
        check(model, trial, tokens)
        assert model.tokenizer.decode(trial.ids[trial.answer.start : trial.answer.stop]) == answer


def test_a_special_token_in_a_text_is_only_text() -> None:
    needle = Needle("s", "The end is </s> now.", "</s>", "What is the end?")
    trial = build_trial(BYTES, needle, STACKS[id(BYTES)], 200, 0.5)
    assert BYTES.tokenizer.eos_token_id not in trial.ids
    assert BYTES.tokenizer.decode(trial.answer_ids).strip() == "</s>"


def test_template_is_there_and_only_where_asked_for() -> None:
    needle, stack = builtin_needles()[0], STACKS[id(CHAT)]
    text = CHAT.tokenizer.decode(build_trial(CHAT, needle, stack, 200, 0.5).ids)
    assert text.startswith("<s>user ")
    assert text.endswith(f"</s><s>bot {needle.lead}")
    plain = CHAT.tokenizer.decode(build_trial(CHAT, needle, stack, 200, 0.5, chat=False).ids)
    assert "<s>" not in plain
    assert plain.endswith(f"Question: {needle.question}\nAnswer: {needle.lead}")
    with pytest.raises(InputError, match="no chat template"):
        build_trial(BYTES, needle, STACKS[id(BYTES)], 200, 0.5, chat=True)


def test_depth_moves_the_needle_and_lands_between_sentences() -> None:
    needle, stack = builtin_needles()[0], STACKS[id(BYTES)]
    trials = [build_trial(BYTES, needle, stack, 400, depth) for depth in (0, 0.25, 0.5, 0.75, 1)]
    starts = [trial.sentence.start for trial in trials]
    assert starts == sorted(set(starts))
    assert starts[0] == trials[0].spans["context"].start
    assert trials[-1].sentence.stop == trials[-1].spans["context"].stop
    for trial in trials[1:]:
        before = BYTES.tokenizer.decode(trial.ids[: trial.sentence.start]).rstrip()
        assert before[-1] in ".!?)"


def test_the_haystack_is_never_repeated_and_differs_by_start() -> None:
    needle, stack = builtin_needles()[0], STACKS[id(BYTES)]
    with pytest.raises(DataError, match="more text or shorter lengths"):
        build_trial(BYTES, needle, stack, 4000, 0.5)
    first, second = (build_trial(BYTES, needle, stack, 200, 0.5, start=s) for s in (0, 150))
    assert not np.array_equal(first.ids[:60], second.ids[:60])


@pytest.mark.parametrize(
    ("tokens", "depth", "message"),
    [(30, 0.5, "at least"), (200, 1.5, "0 \\(beginning\\)"), (9000, 0.5, "takes 4,096")],
)
def test_what_cannot_be_is_refused(tokens: int, depth: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_trial(BYTES, builtin_needles()[0], STACKS[id(BYTES)], tokens, depth)


def test_an_answer_that_cannot_be_written_is_refused() -> None:
    model = stand_in(zoo.tokenizer("decoder"))
    stack = haystack_ids(model, ["the cat sees one dog. the bird sings."] * 9)
    with pytest.raises(DataError, match="no tokens for the answer"):
        build_trial(model, Needle("x", "the dog is xylophone.", "xylophone", "who"), stack, 60, 0.5)


def test_distractors_may_not_give_the_answer_away() -> None:
    needle = builtin_needles()[0]
    with pytest.raises(InputError, match="own answer"):
        build_trial(BYTES, needle, STACKS[id(BYTES)], 300, 0.5, [needle])


def test_plans_cover_the_grid_and_grow_without_changing() -> None:
    plan = plan_trials((100, 200), (0.1, 0.5, 0.9), trials=12, seed=3)
    for half in (plan[:6], plan[6:]):
        assert len({(t.tokens, t.depth) for t in half}) == 6
    assert plan_trials((100, 200), (0.1, 0.5, 0.9), trials=30, seed=3)[:12] == plan
    assert plan_trials((100, 200), (0.1, 0.5, 0.9), trials=12, seed=4) != plan
    assert len({t.needle.name for t in plan_trials(trials=24)}) == 24


def test_several_needles_share_a_context_and_are_asked_for_in_turn() -> None:
    plan = plan_trials((300,), (0.5,), trials=6, several=3, distractors=1)
    for group in (plan[:3], plan[3:]):
        assert len({t.start for t in group}) == 1
        assert len({t.needle.name for t in group}) == 3
        texts = {t.needle.sentence for t in group}
        for planned in group:
            assert len(planned.others) == 3
            trial = planned.build(BYTES, STACKS[id(BYTES)])
            text = BYTES.tokenizer.decode(trial.ids)
            assert all(sentence in text for sentence in texts)
            assert len(trial.distractors) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"lengths": ()},
        {"depths": (1.2,)},
        {"trials": 0},
        {"several": 99},
        {"distractors": 99},
    ],
)
def test_impossible_plans_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        plan_trials(**options)
