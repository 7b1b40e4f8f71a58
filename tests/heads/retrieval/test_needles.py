"""Needles: built-in ones are sound, files are read with their rows named in errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.errors import DataError, InputError
from probes.heads.retrieval import Needle, builtin_needles, distractors_for, load_needles


def test_builtin_needles_are_many_and_distinct() -> None:
    needles = builtin_needles()
    assert len(needles) >= 20
    for field in ("name", "sentence", "answer", "question", "lead"):
        assert len({getattr(n, field) for n in needles}) == len(needles)
    for needle in needles:
        words = needle.answer.split()
        assert len(words) >= 3
        assert len(set(words)) == len(words)
        assert "".join(needle.parts) == needle.sentence
        assert needle.parts[1] == f" {needle.answer}"
        assert not needle.sentence.startswith(
            needle.lead
        )  # the reply does not begin as the sentence does


def test_distractors_have_the_same_form_and_other_answers() -> None:
    needles = builtin_needles()
    for needle in needles:
        for other in distractors_for(needle, needles, 5):
            assert other.name.split("-")[0] == needle.name.split("-")[0]
            assert other.answer != needle.answer
    with pytest.raises(InputError, match="0 to 23"):
        distractors_for(needles[0], needles, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "gold"}, "0 times"),
        ({"sentence": "tea or tea"}, "2 times"),
        ({"question": "Is it TEA?"}, "question .* holds the answer"),
        ({"lead": "Tea is"}, "lead .* holds the answer"),
        ({"answer": " tea"}, "space"),
        ({"sentence": " "}, "empty sentence"),
    ],
)
def test_unsound_needles_are_refused(change: dict[str, str], message: str) -> None:
    given = {"name": "x", "sentence": "We drink tea.", "answer": "tea", "question": "What?"}
    Needle(**given)
    with pytest.raises(DataError, match=message):
        Needle(**{**given, **change})


@pytest.mark.parametrize(
    ("sentence", "answer", "lead"),
    [
        ("Long ago. The door is green.", "green", "Long ago. The door is"),
        ('She said "green".', "green", 'She said "'),
        ("Green is the door.", "Green", "The answer is"),
        ("GREEN or not, it is green.", "green", "The answer is"),  # which would hold the answer
    ],
)
def test_a_reply_begins_as_the_sentence_unless_told(sentence: str, answer: str, lead: str) -> None:
    needle = Needle("x", sentence, answer, "Which colour?")
    assert needle.lead == lead
    assert Needle("x", sentence, answer, "Which colour?", "It is").lead == "It is"
    assert needle == Needle("x", sentence, answer, "Which colour?", " ")


def test_files(tmp_path: Path) -> None:
    table = tmp_path / "needles.csv"
    table.write_text(
        'sentence,answer,question,lead\n"We drink, at noon, tea.",tea,What?,We drink\nMy cat is Ömür.,Ömür,Who?,\n',
        encoding="utf-8",
    )
    first, second = load_needles(table)
    assert (first.sentence, first.lead) == ("We drink, at noon, tea.", "We drink")
    assert (second.answer, second.lead) == ("Ömür", "My cat is")
    lines = tmp_path / "needles.jsonl"
    lines.write_text(
        json.dumps({"sentence": "A b.", "answer": "b", "question": "?", "name": "n"}) + "\n"
    )
    assert load_needles(lines)[0].name == "n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence,answer\na b,b\n", "no column 'question'"),
        ("sentence,answer,question\na b,b,?\na b,c,?\n", "line 3: .*0 times"),
        ("sentence,answer,question\n", "needles|rows|empty"),
        ("sentence,answer,question,name\na b,b,?,x\na c,c,?,x\n", "second needle"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_needles(path)
