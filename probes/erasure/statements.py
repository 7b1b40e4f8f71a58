"""True and false ways to go on from the same beginning, out of groups of true and false statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.types import LabelledTexts, check_texts

TRUE_NAMES = ("1", "true", "yes", "correct")


@dataclass(frozen=True)
class CompletionPairs:
    """For each prompt a true and a false completion, (n,) strings each; `groups` (n,) belong together, or None."""

    prompts: tuple[str, ...]
    true: tuple[str, ...]
    false: tuple[str, ...]
    groups: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "true", "false"):
            object.__setattr__(self, name, check_texts(getattr(self, name), name))
        lengths = [len(self.prompts), len(self.true), len(self.false)]
        if self.groups is not None:
            lengths.append(len(self.groups))
        if len(set(lengths)) > 1:
            raise DataError(f"prompts, completions and groups of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> CompletionPairs:
        """The pairs with these numbers."""
        pick = [int(row) for row in rows]
        return CompletionPairs(
            tuple(self.prompts[i] for i in pick),
            tuple(self.true[i] for i in pick),
            tuple(self.false[i] for i in pick),
            None if self.groups is None else self.groups[pick],
        )


def statement_pairs(
    data: LabelledTexts, true_label: str | None = None, limit: int | None = None, seed: int = 0
) -> CompletionPairs:
    """Pairs of a true and a false statement of one group that begin alike, split where they part.

    The prompt is what both share, up to a word's end; the completions are the rests, each with the space before it.
    Within a group the texts are paired in order, each used once, if they share at least one word and both go on.

    Parameters
    ----------
    data : texts of two classes with `groups`. true_label : the name of the class of true texts; found by itself
    if one is called 1, true, yes or correct. limit : a random subset of at most so many pairs, drawn by `seed`.

    Raises `DataError` where there are no groups, no such class, or no pair.

    >>> data = LabelledTexts.make("capitals", ["Rome is in Italy.", "Rome is in Iran."], [1, 0], ["Rome", "Rome"])
    >>> pairs = statement_pairs(data)
    >>> pairs.prompts, pairs.true, pairs.false
    (('Rome is in',), (' Italy.',), (' Iran.',))
    """
    if data.groups is None:
        raise DataError(
            f"{data.name} has no groups: true and false statements of one thing must share one"
        )
    code = _true_code(data, true_label)
    members: dict[Any, tuple[list[int], list[int]]] = {}
    for row, group in enumerate(data.groups.tolist()):
        members.setdefault(group, ([], []))[int(data.labels[row] != code)].append(row)
    found: list[tuple[str, str, str, Any]] = []
    for group, (right, wrong) in members.items():
        left = list(wrong)
        for row in right:
            for other in left:
                parts = _split(data.texts[row], data.texts[other])
                if parts is not None:
                    found.append((*parts, group))
                    left.remove(other)
                    break
    if not found:
        raise DataError(f"{data.name} holds no true and false text of one group that begin alike")
    if limit is not None and limit < len(found):
        picks = np.sort(np.random.default_rng(seed).permutation(len(found))[:limit])
        found = [found[i] for i in picks]
    prompts, true, false, groups = zip(*found, strict=True)
    return CompletionPairs(prompts, true, false, np.asarray(groups))


def _true_code(data: LabelledTexts, true_label: str | None) -> int:
    names = data.label_names
    wanted = TRUE_NAMES if true_label is None else (true_label.lower(),)
    found = [code for code, name in enumerate(names) if name.lower() in wanted]
    if len(found) != 1 or len(names) != 2:
        raise DataError(
            f"{data.name} has the classes {', '.join(names)}: two are needed, and true_label must name the true one"
        )
    return found[0]


def _split(true: str, false: str) -> tuple[str, str, str] | None:
    """Shared beginning up to a word's end, and both rests; None where nothing is shared or one ends there."""
    differ = (i for i, (a, b) in enumerate(zip(true, false, strict=False)) if a != b)
    cut = next(differ, min(len(true), len(false)))
    while cut > 0 and not (true[cut : cut + 1].isspace() and false[cut : cut + 1].isspace()):
        cut -= 1
    prompt = true[:cut].rstrip()
    rests = true[len(prompt) :], false[len(prompt) :]
    if not prompt.strip() or not rests[0].strip() or not rests[1].strip() or true == false:
        return None
    return prompt, *rests
