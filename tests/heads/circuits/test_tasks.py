"""Tasks in tokens: equal lengths, answers that differ, reasons for what is left out, users' files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import DataError, DoesNotApply, InputError
from probes.heads.circuits import SOURCES, Pair, build_task, load_task, make_task, read_pairs
from probes.heads.circuits.names import TASKS
from probes.heads.circuits.tasks import batches


def test_the_names_offered_are_those_that_exist() -> None:
    assert set(SOURCES) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_generated_pairs_differ_and_are_the_same_for_the_same_seed(name: str) -> None:
    def first(seed: int) -> list[Pair]:
        drawn = SOURCES[name].draw(np.random.default_rng(seed), list)
        return [next(drawn) for _ in range(30)]

    pairs = first(3)
    assert pairs == first(3)
    assert pairs != first(4)
    for pair in pairs:
        assert pair.clean != pair.corrupted
        assert not set(pair.answers) & set(pair.wrongs)
        assert pair.clean.split()[-1] == pair.corrupted.split()[-1] or name == "coloured_objects"
        # a different number of words would be a different number of tokens
        assert len(pair.clean.split()) == len(pair.corrupted.split())


def test_years_after_the_start_are_right_and_up_to_it_wrong() -> None:
    drawn = SOURCES["greater_than"].draw(np.random.default_rng(0), list)
    for _ in range(20):
        pair = next(drawn)
        year = int(pair.clean.split(" to ")[0][-2:])
        assert all(int(later) > year for later in pair.answers)
        assert all(int(earlier) <= year for earlier in pair.wrongs)
        assert len(pair.answers) + len(pair.wrongs) == 100


def test_rows_hold_the_tokens_of_their_texts(tiny: Callable[[str], Any]) -> None:
    model = tiny("llama")
    pairs = [
        Pair("the cat sees", "the dog sees", (" bird",), (" fish", " tree")),
        Pair("red blue in", "red green in", (" bird",), (" fish",)),
        Pair("old king in", "old queen in", (" bird",), (" fish",)),
        Pair("gold iron in", "gold wood in", (" bird",), (" fish",)),
    ]
    task = make_task(model, "own", pairs)
    ids = model.tokenizer
    row = task.rows[0]
    assert list(row.clean) == ids("the cat sees")["input_ids"]
    assert list(row.corrupted) == ids("the dog sees")["input_ids"]
    assert list(row.answers) == ids("bird")["input_ids"]
    assert set(row.wrongs) == set(ids("fish tree")["input_ids"])
    assert row.changed == (False, True, False)


def test_what_cannot_be_used_is_counted_with_its_reason(tiny: Callable[[str], Any]) -> None:
    good = [
        Pair(f"{word} sees", f"the {word} sees"[4:].replace(word, "dog"), (" bird",), (" fish",))
        for word in ("cat", "tree", "king", "queen")
    ]
    bad = [
        Pair("the cat sees", "cat sees", (" bird",), (" fish",)),
        Pair("cat sees", "cat sees", (" bird",), (" fish",)),
        Pair("cat sees in", "dog sees in", (" bird",), (" bird",)),
        Pair("cat zebra in", "dog sees in", (" bird",), (" fish",)),
        Pair(" ".join(["cat"] * 70), " ".join(["dog"] * 70), (" bird",), (" fish",)),
    ]
    task = make_task(tiny("llama"), "own", [*bad, *good])
    assert len(task) == 4
    assert task.skipped == {
        "clean and corrupted prompt differ in number of tokens": 1,
        "clean and corrupted prompt are the same tokens": 1,
        "answer and wrong answer begin with the same token": 1,
        "a word is unknown to the tokenizer": 1,
        "the prompt is longer than the model takes": 1,
    }


def test_a_beginning_that_all_answers_share_becomes_part_of_the_prompt(
    tiny: Callable[[str], Any],
) -> None:
    words = ("cat", "dog", "tree", "king")
    pairs = [
        Pair(f"{a} in", f"{b} in", (" red bird",), (" red fish",))
        for a, b in zip(words, words[::-1], strict=True)
    ]
    model = tiny("llama")
    row = make_task(model, "own", pairs).rows[0]
    assert model.tokenizer.decode(list(row.clean)) == "cat in red"
    assert model.tokenizer.decode(list(row.answers)) == "bird"
    assert model.tokenizer.decode(list(row.wrongs)) == "fish"


def test_too_few_pairs_do_not_apply_and_say_why(tiny: Callable[[str], Any]) -> None:
    with pytest.raises(DoesNotApply, match="a word is unknown to the tokenizer"):
        build_task(tiny("llama"), "ioi", 5)
    with pytest.raises(DoesNotApply, match="no language-model head"):
        build_task(tiny("bert"), "ioi", 5)
    with pytest.raises(InputError, match="did you mean 'ioi'"):
        build_task(tiny("llama"), "iio", 5)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_batches_hold_every_row_once(lengths: list[int], tokens: int) -> None:
    from probes.heads.circuits.tasks import Row, Task

    pair = Pair("a", "b", ("c",), ("d",))
    rows = tuple(Row((1,) * n, (2,) * n, (3,), (4,), pair) for n in lengths)
    made = list(batches(Task("t", rows), tokens))
    assert sorted(i for group in made for i in group) == list(range(len(rows)))
    for group in made:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= tokens


def test_a_users_file(tiny: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [
        {"clean": f"{word} sees ", "corrupted": "dog sees", "answer": "bird", "wrong": "fish | sun"}
        for word in ("cat", "tree", "king", "queen", "sun")
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    pairs = read_pairs(path)
    assert pairs[0] == Pair("cat sees", "dog sees", (" bird",), (" fish", " sun"))
    task = load_task(tiny("gpt2"), path, n=4, seed=1)
    assert task.name == "mine"
    assert len(task) == 4
    assert {row.pair for row in task.rows} < set(pairs)


@pytest.mark.parametrize(
    ("text", "answers", "wrongs"),
    [
        ("clean,corrupted,io,s\na,b,Ann,Bo\n", (" Ann",), (" Bo",)),
        (
            "clean,corrupted,number\na,b,plural\n",
            (" are", " were", " have"),
            (" is", " was", " has"),
        ),
        (
            "clean,corrupted,start_year_2digits\na,b,97\n",
            ("98", "99"),
            tuple(f"{i:02d}" for i in range(98)),
        ),
    ],
)
def test_columns_of_public_files(
    tmp_path: Path, text: str, answers: tuple[str, ...], wrongs: tuple[str, ...]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert read_pairs(path) == [Pair("a", "b", answers, wrongs)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clean,wrong\na,b\n", "columns clean, corrupted, answer and wrong are needed"),
        ("clean,corrupted,answer,wrong\n", "no rows"),
        ("clean,corrupted,answer,wrong\na,b,c,\n", "line 2: the wrong is empty"),
        ("clean,corrupted,answer,wrong\na,b,|,d\n", "line 2: an answer"),
        ("clean,corrupted,number\na,b,dual\n", "singular or plural"),
        ("clean,corrupted,start_year_2digits\na,b,99\n", "0 to 98"),
    ],
)
def test_files_that_hold_no_pairs(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_pairs(path)
