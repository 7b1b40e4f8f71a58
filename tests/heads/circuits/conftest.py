"""Tiny models and pairs of prompts that every test of circuits can use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from planted_heads import planted_model
from zoo import build, texts

from probes.heads.circuits import Pair, Task, make_task


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Any]:
    """A random-weight model of the zoo by name, made once."""
    return cache(build)


def zoo_pairs(n: int = 10) -> list[Pair]:
    """Pairs of 10 to 12 words that differ in the first one and in the last but one."""
    found: list[Pair] = []
    for seed in range(n):
        words = (texts(1, seed=seed + 50, longest=12)[0].split() + ["the", "dog"] * 6)[
            : 10 + seed % 3
        ]
        clean, corrupted = (
            " ".join((first, *words[1:-2], last, words[-1]))
            for first, last in (("queen", "gold"), ("stone", "iron"))
        )
        found.append(Pair(clean, corrupted, (" cat",), (" dog", " bird")))
    return found


@pytest.fixture(scope="session")
def zoo_task(tiny: Callable[[str], Any]) -> Callable[[str], Task]:
    """The zoo's pairs in the tokens of one of its models."""
    return cache(lambda name: make_task(tiny(name), "zoo", zoo_pairs()))


FILLER = ("a", "cat", "dog", "bird", "tree", "house", "river", "stone", "sun", "moon")


def planted_pairs(n: int = 12) -> list[Pair]:
    """ "… cat dog … cat" asks for "dog"; corrupted, the first "cat" is another word, and nothing can be looked up."""
    found: list[Pair] = []
    for i in range(n):
        words = [FILLER[(i + k * (1 + 2 * (i % 2))) % 10] for k in range(6)]
        asked, answer, other, wrong = words[1], words[2], words[4], words[5]
        found.append(
            Pair(
                f"sees {asked} {answer} sings {asked}",
                f"sees {other} {answer} sings {asked}",
                (f" {answer}",),
                (f" {wrong}",),
            )
        )
    return found


@pytest.fixture(scope="session")
def planted() -> tuple[Any, dict[str, tuple[int, int]], Task]:
    """The hand-built model, its heads by what they do, and the induction task."""
    model, heads = planted_model()
    return model, heads, make_task(model, "induction", planted_pairs())
