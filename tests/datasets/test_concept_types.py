"""Classes of pairs, numbers and spans: validated when made, hashed, split, limited and described."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from probes.datasets import components, describe, four_parts, group_folds, limit_dataset
from probes.errors import DataError, InputError
from probes.files import sha256_texts
from probes.types import Dataset, LabelledNumbers, LabelledPairs, LabelledTexts

N = 240
A = tuple(f"first {i}" for i in range(N))
B = tuple(f"second {i}" for i in range(N))
SPANS = np.tile([0, 5], (N, 1))


def pairs(**changes: object) -> LabelledPairs:
    base = LabelledPairs.make(
        "p", (A, B), ["yes", "no", "maybe"] * (N // 3), np.arange(N) // 3, spans=None
    )
    return replace(base, **changes)


def numbers(**changes: object) -> LabelledNumbers:
    rng = np.random.default_rng(0)
    base = LabelledNumbers("n", A, rng.normal(size=(N, 2)), ("lat", "lon"), np.arange(N) // 2)
    return replace(base, **changes)


def labelled(**changes: object) -> LabelledTexts:
    return replace(LabelledTexts.make("l", A, [i % 2 for i in range(N)]), **changes)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (pairs, {"texts_b": B[:-1]}, "240 first texts but 239 second texts"),
        (pairs, {"texts_b": ("", *B[1:])}, "text_b 0 is empty"),
        (pairs, {"labels": np.zeros(N, dtype=int)}, "all 240 rows have the label 'maybe'"),
        (pairs, {"labels": np.full(N, 7)}, "label code 7 has no name"),
        (pairs, {"labels": np.linspace(0, 1, N)}, "use LabelledPairs.make"),
        (pairs, {"spans": SPANS}, r"integers of shape \(240, 2, 2\) are needed"),
        (pairs, {"groups": np.arange(3)}, "groups has shape"),
        (numbers, {"targets": np.zeros((N, 3))}, r"\(240, 2\) is needed"),
        (numbers, {"targets": np.zeros(N)}, r"\(240, 2\) is needed"),
        (numbers, {"targets": np.zeros((N, 2))}, "lat is 0 in all 240 rows"),
        (numbers, {"targets": np.eye(N, 2) / [1, np.nan]}, "lon of row 0 is nan"),
        (numbers, {"targets": np.empty((N, 0)), "target_names": ()}, "one column per name"),
        (labelled, {"spans": SPANS.astype(float)}, "spans are float64"),
        (labelled, {"spans": SPANS[:-1]}, "integers of shape"),
        (labelled, {"spans": SPANS * [1, 100]}, "span 0:500 of row 0 lies outside its text of 7"),
        (labelled, {"spans": SPANS[:, ::-1].copy()}, "span 5:0 of row 0 lies outside"),
        (labelled, {"spans": SPANS - 1}, "span -1:4 of row 0"),
        (labelled, {"spans": np.tile([5, 6], (N, 1))}, "span 5:6 of row 0 holds only white space"),
    ],
)
def test_mistakes_name_their_row(make, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_infinite_labels_are_refused() -> None:
    with pytest.raises(DataError, match="label of row 1 is inf"):
        LabelledTexts.make("x", ["a", "b"], [0.0, float("inf")])


def test_one_number_per_text_may_be_flat() -> None:
    data = LabelledNumbers("n", ("a", "b"), np.array([1, 2]), ("year",))
    assert data.targets.dtype == np.float64
    assert data.targets.tolist() == [[1.0], [2.0]]


def test_hashes_see_everything_and_spans_only_where_there_are_some() -> None:
    for make in (pairs, numbers, labelled):
        shape = (N, 2, 2) if make is pairs else (N, 2)
        spans = np.broadcast_to([0, 3], shape)
        other = spans.copy()
        other[-1] = [0, 4]
        hashes = {
            make().content_hash(),
            make(spans=spans).content_hash(),
            make(spans=other).content_hash(),
        }
        assert len(hashes) == 3
        assert make(groups=np.arange(N) % 9).content_hash() not in hashes
    assert numbers(target_names=("a", "b")).content_hash() != numbers().content_hash()
    assert numbers(targets=numbers().targets + 1).content_hash() != numbers().content_hash()
    assert pairs(texts_a=B, texts_b=A).content_hash() != pairs().content_hash()


def test_the_hash_of_texts_without_spans_is_the_old_one() -> None:
    """Written out: stores and runs made before there were spans are still recognised."""
    data = labelled()
    codes = hashlib.sha256(b"<i8" + np.ascontiguousarray(data.labels).tobytes()).hexdigest()
    assert data.content_hash() == sha256_texts([sha256_texts(A), codes, "0", "1", "-"])


@pytest.mark.parametrize("data", [pairs(), numbers()], ids=["pairs", "numbers"])
def test_parts_and_folds_keep_groups_whole(data: Dataset) -> None:
    assert data.groups is not None
    parts = four_parts(data, np.random.default_rng(0))
    index = [parts.fit, parts.tune, parts.calibrate, parts.test]
    assert sorted(np.concatenate(index).tolist()) == list(range(N))
    assert np.allclose(np.array(parts.sizes()) / N, (0.4, 0.2, 0.2, 0.2), atol=0.02)
    for i in range(4):
        for j in range(i):
            assert not set(data.groups[index[i]]) & set(data.groups[index[j]])


def test_pairs_that_repeat_a_text_on_either_side_hang_together() -> None:
    texts_b = (
        "FIRST  0",
        *B[1:5],
        "twice",
        "twice",
        *B[7:],
    )  # as the first text of row 0, but for case and white space
    texts_a = ("other", A[1], A[1], *A[3:-1], "first 0")
    data = pairs(texts_b=texts_b, texts_a=texts_a, groups=None)
    component = components(data)
    assert component[0] == component[-1]
    assert component[1] == component[2]
    assert component[5] == component[6] != component[7]
    assert len(set(component.tolist())) == N - 3


def test_parts_of_numbers_are_alike_in_their_halves() -> None:
    data = numbers()
    parts = four_parts(data, np.random.default_rng(0))
    high = data.targets > np.median(data.targets, axis=0)
    for part in (parts.fit, parts.tune, parts.calibrate, parts.test):
        assert np.allclose(high[part].mean(axis=0), 0.5, atol=0.1)


def test_folds_take_whole_numbers_as_numbers() -> None:
    years = np.arange(1800.0, 1900.0)[:, None]
    folds = group_folds(years, None, 5, np.random.default_rng(0))
    assert [len(test) for _, test in folds] == [20] * 5
    means = [years[test].mean() for _, test in folds]
    assert np.ptp(means) < 15, "quartiles are not kept in proportion"


@pytest.mark.parametrize("make", [pairs, numbers, labelled])
def test_a_limit_takes_rows_with_all_they_hold(make) -> None:
    shape = (N, 2, 2) if make is pairs else (N, 2)
    spans = np.zeros(shape, dtype=int)
    spans[..., 1] = 1 + np.arange(N).reshape(-1, *[1] * (len(shape) - 2)) % 5
    data = make(spans=spans)
    small = limit_dataset(data, 50, np.random.default_rng(0))
    assert 45 <= len(small) <= 50
    rows = [data.all_texts().index(text) for text in small.all_texts()[: len(small)]]
    assert rows == sorted(rows)
    assert small.spans.tolist() == spans[rows].tolist()
    if data.groups is not None:
        assert small.groups.tolist() == data.groups[rows].tolist()
        assert set(small.groups) & set(np.delete(data.groups, rows)) == set(), "a group is torn"
    if make is numbers:
        assert small.targets.tolist() == data.targets[rows].tolist()
    else:
        assert small.labels.tolist() == data.labels[rows].tolist()
    if make is pairs:
        assert small.texts_b == tuple(B[i] for i in rows)


def test_descriptions_show_what_the_label_is_about() -> None:
    spans = np.tile([[0, 5], [0, 6]], (N, 1, 1))
    example = describe(pairs(spans=spans))["examples"][0]
    assert example == {
        "text_a": "first 0", "span_a": "first", "text_b": "second 0", "span_b": "second", "label": "yes",
    }  # fmt: skip
    told = describe(numbers(spans=SPANS))
    assert set(told["targets"]) == {"lat", "lon"}
    assert told["examples"][0]["span"] == "first"
    assert describe(labelled(spans=SPANS))["examples"][0]["span"] == "first"


@pytest.mark.parametrize("data", [pairs(), numbers()], ids=["pairs", "numbers"])
def test_an_exit_is_not_chosen_on_them(data: Dataset) -> None:
    from probes.exits.tasks import make_task

    with pytest.raises(InputError, match=f"holds {data.kind}: an exit is chosen on") as caught:
        make_task(data)
    assert "\n" not in str(caught.value)
