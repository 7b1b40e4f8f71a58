"""Which tokens a span has, for four kinds of tokenizer, against judges that never look at a tokenizer's offsets."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from probes.capture.spans import check_spans, sentence_spans, span_tokens, word_spans
from probes.capture.tokens import TextEncoder
from probes.errors import DataError, DoesNotApply
from probes.types import TokenLabels

CORPUS = [
    "the capital of France is Paris and the capital of Japan is Tokyo",
    "Élodie's café isn't in Paris; it's in naïve little Łódź, she says",
    "the the capital capital Paris Paris, is is in in France France.",
]


def byte_level(trim: bool) -> PreTrainedTokenizerFast:
    """GPT-2's kind (the space before a word belongs to its token), or RoBERTa's, which trims it from the offsets."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=specials
    )
    core.train_from_iterator(CORPUS, trainer)
    core.decoder = decoders.ByteLevel()
    if trim:
        core.post_processor = processors.RobertaProcessing(
            ("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=False
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's kind: lower case, no accents, "##" inside words."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=specials)
    core.train_from_iterator([*CORPUS, ALPHABET, " ".join(ALPHABET)], trainer)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's kind: "▁" stands for the space and is put before the first word."""
    pieces = [("<unk>", 0.0), ("▁", -4.0), *((f"▁{w}", -2.0) for w in ("the", "Paris", "is"))]
    pieces += [(letter, -5.0) for letter in ALPHABET]
    core = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def prepended() -> PreTrainedTokenizerFast:
    """Llama's kind: the "▁" before the text comes from the normaliser."""
    made = unigram()
    core = made.backend_tokenizer
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.pre_tokenizer = pre_tokenizers.Split("never", "isolated")
    return made


ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.;'éïłŁódźÉ日本"


def _positions_of_bytes(text: str) -> list[int]:
    """The character that each byte of the text belongs to."""
    return [i for i, letter in enumerate(text) for _ in letter.encode()]


def characters_by_bytes(tokenizer: Any, text: str, ids: list[int]) -> list[set[int]]:
    owner, found, at = _positions_of_bytes(text), [], 0
    letters = _letter_to_byte()
    for token in tokenizer.convert_ids_to_tokens(ids):
        if token in ("<s>", "</s>"):
            found.append(set())
            continue
        data = bytes(letters[letter] for letter in token)
        assert text.encode()[at : at + len(data)] == data
        found.append(set(owner[at : at + len(data)]))
        at += len(data)
    assert at == len(owner)
    return found


def _letter_to_byte() -> dict[str, int]:
    """GPT-2's table, from its definition: printable bytes stand for themselves, the others for 256, 257, …"""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


def characters_by_folding(tokenizer: Any, text: str, ids: list[int]) -> list[set[int]]:
    folded = [
        (letter, i)
        for i, original in enumerate(text)
        for letter in unicodedata.normalize("NFD", original).lower()
        if not letter.isspace() and unicodedata.category(letter) != "Mn"
    ]
    found, at = [], 0
    for token in tokenizer.convert_ids_to_tokens(ids):
        if token in ("[CLS]", "[SEP]"):
            found.append(set())
            continue
        token = token.removeprefix("##") if at else token
        piece = folded[at : at + len(token)]
        assert "".join(letter for letter, _ in piece) == token
        found.append({i for _, i in piece})
        at += len(token)
    assert at == len(folded)
    return found


def characters_by_metaspace(tokenizer: Any, text: str, ids: list[int]) -> list[set[int]]:
    written, found, at = "▁" + text.replace(" ", "▁"), [], 0
    for token in tokenizer.convert_ids_to_tokens(ids):
        assert written[at : at + len(token)] == token
        found.append({i - 1 for i in range(at, at + len(token)) if i > 0})
        at += len(token)
    assert at == len(written)
    return found


Judge = Callable[[Any, str, list[int]], list[set[int]]]
KINDS: dict[str, tuple[Any, Judge]] = {
    "gpt2": (byte_level(trim=False), characters_by_bytes),
    "roberta": (byte_level(trim=True), characters_by_bytes),
    "bert": (word_piece(), characters_by_folding),
    "t5": (unigram(), characters_by_metaspace),
    "llama": (prepended(), characters_by_metaspace),
}
WORDS = st.sampled_from(["the", "Paris", "Paris's", "isn't", "Élodie", "日本", "Łódź,", "x", "of."])


def brute_force(
    kind: str, text: str, ids: list[int], span: tuple[int, int], prompt: int
) -> list[int]:
    """Tokens that share a character, white space at the span's edges left out, and what lies between them."""
    tokenizer, judge = KINDS[kind]
    wanted = set(range(span[0] + prompt, span[1] + prompt))
    while wanted and text[min(wanted)].isspace():
        wanted.remove(min(wanted))
    while wanted and text[max(wanted)].isspace():
        wanted.remove(max(wanted))
    hit = [i for i, characters in enumerate(judge(tokenizer, text, ids)) if characters & wanted]
    return list(range(hit[0], hit[-1] + 1)) if hit else []


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=8),
    st.sampled_from([" ", "  "]),
    st.sampled_from(["", "query: ", "the", " "]),
    st.integers(0, 60),
    st.integers(1, 60),
)
def test_against_a_judge_without_offsets(
    kind: str, words: list[str], space: str, prompt: str, start: int, length: int
) -> None:
    assume(not (kind == "bert" and ":" in prompt))  # a letter that its vocabulary lacks
    assume(not (kind in ("t5", "llama") and ":" in prompt))
    assume(not (kind == "t5" and prompt.startswith(" ")))  # Metaspace then adds no space of its own
    text = space.join(words)
    span = (start % len(text), min(len(text), start % len(text) + length))
    assume(text[span[0] : span[1]].strip())
    (tokens,) = TextEncoder(KINDS[kind][0], 500, prompt, offsets=True)([text])
    (checked,) = check_spans([[span]], [text])
    ((first, last),) = span_tokens(tokens, checked, len(prompt), 0)
    expected = brute_force(kind, prompt + text, tokens.ids.tolist(), span, len(prompt))
    assert list(range(first, last)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_before_or_behind_a_word_does_not_matter(kind: str) -> None:
    """The control for the rule: " Paris" is one token in two of these, and it covers the space."""
    text = "the the Paris is"
    encoder = TextEncoder(KINDS[kind][0], 50, offsets=True)
    (tokens,) = encoder([text])
    for word in ("Paris", "the"):
        at = text.rindex(word)
        spans = [(at, at + len(word)), (at - 1, at + len(word)), (at - 1, at + len(word) + 1)]
        (checked,) = check_spans([spans], [text])
        found = span_tokens(tokens, checked, 0, 0).tolist()
        assert found[0] == found[1] == found[2]
        pieces = KINDS[kind][0].convert_ids_to_tokens(tokens.ids[slice(*found[0])].tolist())
        assert "".join(pieces).lstrip("Ġ▁").replace("##", "").lower() == word.lower()


def test_a_control_token_inside_the_text_does_not_shift_what_follows(zoo: Any) -> None:
    encoder = TextEncoder(zoo.tokenizer(), 50, offsets=True)
    for text in ("a [SEP] dog sees [CLS][MASK] two birds", "[PAD]  dog", "the dog</s> dog"):
        (tokens,) = encoder([text])
        span = (text.rindex("dog"), text.rindex("dog") + 3)
        (checked,) = check_spans([[span]], [text])
        ((first, last),) = span_tokens(tokens, checked, 0, 0)
        word = zoo.tokenizer().convert_ids_to_tokens(tokens.ids[first:last].tolist())
        assert word == ["dog"]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("text", ["one two three four five six", "one two [SEP] four five six"])
def test_every_span_that_truncation_touches_is_refused(side: str, text: str, zoo: Any) -> None:
    tokenizer = zoo.tokenizer()
    tokenizer.truncation_side = side
    whole = TextEncoder(tokenizer, 60, offsets=True)([text])[0]
    encoder = TextEncoder(
        tokenizer, 5, offsets=True
    )  # room for three words between [CLS] and [SEP]
    (tokens,) = encoder([text])
    assert tokens.truncated
    count = len(whole) - 2
    kept = set(range(3)) if side == "right" else set(range(count - 3, count))
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            if not text[start:end].strip():
                continue
            (span,) = check_spans([[(start, end)]], [text])
            ((first, last),) = span_tokens(whole, span, 0, 0) - 1  # without [CLS]
            if set(range(first, last)) <= kept:
                ((a, b),) = span_tokens(tokens, span, 0, 0)
                assert tokens.ids[a:b].tolist() == whole.ids[first + 1 : last + 1].tolist()
            else:
                with pytest.raises(DataError, match=r"text 0, span 0 .* beyond the 5 tokens"):
                    span_tokens(tokens, span, 0, 0)


def test_a_character_that_the_tokenizer_drops_has_no_token() -> None:
    text = "the \u0007 Paris"  # BERT removes control characters
    (tokens,) = TextEncoder(KINDS["bert"][0], 50, offsets=True)([text])
    with pytest.raises(DataError, match=r"text 9, span 0 \(4, 5\) holds no token"):
        span_tokens(tokens, np.array([[4, 5]]), 0, 9)
    assert span_tokens(tokens, np.array([[4, 11]]), 0, 9).shape == (1, 2)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False
        all_special_ids: tuple[int, ...] = ()
        unk_token_id = None

    with pytest.raises(DoesNotApply, match=r"Slow does not say which characters .* fast tokenizer"):
        TextEncoder(Slow(), 10, offsets=True)


# -- checks of what came --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[(0, 3)]], "spans for 1 texts came with 2 texts"),
        ([[(0, 3)], [(2, 9)]], r"text 1, span 0 \(2, 9\) lies outside the text of 6 characters"),
        ([[(0, 3), (-1, 2)], []], r"text 0, span 1 \(-1, 2\) lies outside"),
        ([[(3, 1)], []], r"text 0, span 0 \(3, 1\) lies outside"),
        ([[(2, 2)], []], r"text 0, span 0 \(2, 2\) holds no token: it is empty"),
        ([[(3, 4)], []], r"span 0 \(3, 4\) holds no token: it is empty or white space"),
        ([[(0, 1.5)], []], "the spans of text 0 are no list"),
        ([[(0, 1), (2,)], []], "the spans of text 0 are no list"),
        ([[(True, False)], []], "the spans of text 0 are no list"),
        ([[0, 3], [0, 3]], "the spans of text 0 are no list"),
        ([[], []], "no text has a span"),
    ],
)
def test_refused_spans(spans: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_spans(spans, ["the cat", "a bird"])


def test_an_array_means_one_span_per_text() -> None:
    found = check_spans(np.array([[0, 4], [2, 6]]), ["the cat", "a bird"])
    assert [row.tolist() for row in found] == [[[0, 3]], [[2, 6]]]
    pairs = np.array([[[0, 3], [4, 7]], [[0, 1], [2, 6]]])  # (text, span, edge)
    assert [row.tolist() for row in check_spans(pairs, ["the cat", "a bird"])] == pairs.tolist()


# -- sentences and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ('He said: "Go." She went.', ['He said: "Go."', "She went."]),
        ("Pi is 3.14 today. He is in box B. Then.", ["Pi is 3.14 today.", "He is in box B.", "Then."]),
        ("What?! No... really. Yes", ["What?!", "No... really.", "Yes"]),
        ("東京です。そうですか？はい。", ["東京です。", "そうですか？", "はい。"]),
        ("Title\n\nA line\nand its rest.", ["Title", "A line\nand its rest."]),
        ("", []),
        (" \n\n ", []),
        ("...", ["..."]),
        ("He saw Mr. Fox e.g. Nick. Dr. No? No. Oh", ["He saw Mr. Fox e.g. Nick.", "Dr. No?", "No.", "Oh"]),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    assert [text[a:b] for a, b in sentence_spans(text)] == sentences


@settings(deadline=None)
@given(st.text(st.sampled_from("aB .!?…。\n\"')\u3000"), max_size=60))
def test_sentences_are_in_order_apart_and_leave_nothing_out(text: str) -> None:
    spans = sentence_spans(text)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)


@given(st.lists(st.text("abé日'", min_size=1, max_size=5), min_size=1, max_size=9))
def test_words_lie_where_the_dataset_puts_them(words: list[str]) -> None:
    text, spans = word_spans(words)
    data = TokenLabels("t", (tuple(words),), (("x",) * len(words),))
    assert (text,) == data.all_texts()
    assert [text[a:b] for a, b in spans] == words
