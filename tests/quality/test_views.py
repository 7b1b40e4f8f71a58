"""Two views of a text: same text, other wording; halves by sentence."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DoesNotApply, InputError
from probes.quality import make_views

TEXTS = [f"The city number {i} lies far. Its river runs slow. Nobody swims." for i in range(30)]


@pytest.mark.parametrize("kind", ["swap", "drop"])
def test_noise_makes_two_different_views_of_every_text(kind: str) -> None:
    views = make_views(TEXTS, kind, seed=1)
    assert views.rows.tolist() == list(range(30))
    assert len(views.first) == len(views.second) == 30
    assert sum(a != b for a, b in zip(views.first, views.second, strict=True)) > 25
    again, other = make_views(TEXTS, kind, seed=1), make_views(TEXTS, kind, seed=2)
    assert views.first == again.first
    assert views.second != other.first  # no draw of one seed is a draw of the next


def test_halves_together_are_the_text_and_single_sentences_are_left_out() -> None:
    views = make_views(["No second one here", *TEXTS], "split")
    assert views.rows.tolist() == list(range(1, 31))
    for row, first, second in zip(views.rows, views.first, views.second, strict=True):
        assert f"{first} {second}" == TEXTS[row - 1]
        assert first.endswith("far.")
    assert np.all([bool(text) for text in (*views.first, *views.second)])


def test_too_few_texts_of_two_sentences_is_said() -> None:
    with pytest.raises(DoesNotApply, match="19 of 21 texts have two sentences, 20 are needed"):
        make_views([*TEXTS[:19], "One.", "Two."], "split")
    with pytest.raises(InputError, match="did you mean 'swap'"):
        make_views(TEXTS, "swop")
