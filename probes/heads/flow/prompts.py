"""Few-shot prompts of a labelled dataset in which the token of every label word is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, DoesNotApply, InputError
from probes.models import Model, require_language_model
from probes.types import LabelledTexts

IntArray = NDArray[np.integer[Any]]
TEMPLATE = "Text: {text}\nLabel:"


@dataclass(frozen=True)
class LabelPrompt:
    """Demonstrations with their labels, then a text whose label comes next.

    `ids` (T,) end with the token that the label follows; `labels` are the positions of the demonstrations' label words
    (their first tokens), `answers` the token that each class begins with at the end, and `gold` the class of the text.
    """

    text: str
    ids: IntArray
    labels: IntArray
    answers: IntArray
    gold: int

    @property
    def last(self) -> int:
        """Position whose next token is the answer."""
        return len(self.ids) - 1


def label_prompts(
    model: Model,
    dataset: LabelledTexts,
    n: int = 20,
    *,
    per_class: int = 1,
    words: Sequence[str] | None = None,
    template: str = TEMPLATE,
    random_labels: bool = False,
    seed: int = 0,
) -> list[LabelPrompt]:
    """`n` prompts of `per_class` demonstrations of each class in random order, and one more text to be labelled.

    Demonstrations and texts never share a group. Label words are `words`, one per class, or the names of the classes.
    With `random_labels` each demonstration shows a class drawn at random instead of its own; everything else is the
    same for the same seed. Positions come from the tokenizer's offsets in the whole prompt.

    Raises `DoesNotApply` for models without a language-model head or a tokenizer without offsets, `DataError` where
    texts do not suffice or are too long, `InputError` for label words that begin with the same token.

    >>> def shown(prompt, tokenizer):  # the label words that a prompt shows
    ...     return [tokenizer.decode(prompt.ids[place]) for place in prompt.labels]
    """
    require_language_model(model)
    if not getattr(model.require_tokenizer(), "is_fast", False):
        raise DoesNotApply(
            f"the tokenizer of {model.name} does not say where its tokens lie: a fast tokenizer is needed"
        )
    if "{text}" not in template:
        raise InputError(f"template {template!r}: it must hold {{text}}")
    if n < 1 or per_class < 1:
        raise InputError(
            f"{n} prompts of {per_class} demonstrations per class: 1 or more are needed"
        )
    names = tuple(dataset.label_names if words is None else words)
    if len(names) != len(dataset.label_names):
        raise InputError(f"{len(names)} label words for {len(dataset.label_names)} classes")
    rng = np.random.default_rng(seed)
    found: list[LabelPrompt] = []
    for _ in range(n):
        rows, asked = _pick(dataset, per_class, rng)
        drawn = rng.integers(0, len(names), len(rows))
        shown = drawn if random_labels else dataset.labels[rows]
        demonstrations = [(dataset.texts[r], names[c]) for r, c in zip(rows, shown, strict=True)]
        found.append(
            _tokenised(
                model, template, demonstrations, dataset.texts[asked], names,
                int(dataset.labels[asked]),
            )
        )  # fmt: skip
    return found


def _pick(dataset: LabelledTexts, per_class: int, rng: np.random.Generator) -> tuple[IntArray, int]:
    """Rows of the demonstrations in random order, and the row that is asked, from other groups."""
    groups = np.arange(len(dataset)) if dataset.groups is None else np.asarray(dataset.groups)
    asked = int(rng.integers(len(dataset)))
    free = groups != groups[asked]
    rows: list[int] = []
    for label in range(len(dataset.label_names)):
        own = np.flatnonzero((dataset.labels == label) & free)
        if len(own) < per_class:
            raise DataError(
                f"{dataset.name}: class {dataset.label_names[label]!r} has {len(own)} texts outside the group of the "
                f"text that is asked, {per_class} are needed as demonstrations"
            )
        rows.extend(int(row) for row in rng.choice(own, per_class, replace=False))
    return rng.permutation(np.asarray(rows)), asked


def _tokenised(
    model: Model,
    template: str,
    demonstrations: list[tuple[str, str]],
    text: str,
    names: tuple[str, ...],
    gold: int,
) -> LabelPrompt:
    whole, places = "", list[int]()
    for shown, name in demonstrations:
        whole += template.format(text=shown) + " "
        places.append(len(whole))
        whole += f"{name}\n\n"
    whole += template.format(text=text)
    ids, offsets = _coded(model, whole)
    if len(ids) >= model.max_length:
        raise DataError(
            f"a prompt of {len(demonstrations)} demonstrations has {len(ids):,} tokens, {model.name} takes "
            f"{model.max_length:,}: take fewer or shorter ones"
        )
    answers: list[int] = []
    for name in names:
        with_answer, their = _coded(model, f"{whole} {name}")
        at = _covering(their, len(whole) + 1)
        if at != len(ids) or not np.array_equal(with_answer[:at], ids):
            raise InputError(
                f"label word {name!r} changes how {model.name} reads the text before it: end the template otherwise"
            )
        answers.append(int(with_answer[at]))
    if len(set(answers)) < len(answers):
        raise InputError(
            f"label words {', '.join(names)} begin with the same token of {model.name}: give other words="
        )
    labels = np.asarray([_covering(offsets, place) for place in places])
    return LabelPrompt(whole, ids, labels, np.asarray(answers), gold)


def _coded(model: Model, text: str) -> tuple[IntArray, IntArray]:
    """ids (T,) and offsets (T, 2), without special tokens behind the text."""
    coded = model.require_tokenizer()(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, truncation=False
    )
    special = np.asarray(coded["special_tokens_mask"], bool)
    end = int(np.flatnonzero(~special)[-1]) + 1
    offsets = np.asarray(coded["offset_mapping"], np.int64).reshape(-1, 2)
    return np.asarray(coded["input_ids"], np.int64)[:end], offsets[:end]


def _covering(offsets: IntArray, character: int) -> int:
    """The token that holds this character."""
    inside = np.flatnonzero((offsets[:, 0] <= character) & (offsets[:, 1] > character))
    if len(inside) == 0:
        raise DataError(f"no token covers character {character} of a prompt")
    return int(inside[0])
