"""Graded pairs from docstrings: how closely two texts belong together by where they come from."""

from __future__ import annotations

import numpy as np

from probes.datasets.catalogue import PYTHON, register_dataset
from probes.datasets.docstrings import QUERY_WORDS
from probes.datasets.stdlib_docs import Docstring, python_version, stdlib_docstrings
from probes.types import Source, TextPairs

PER_BUNDLE = 12  # first sentences taken from a bundle of modules
SMALLEST = 3  # docstrings a module must have to take part


@register_dataset(
    "docstring-pairs",
    "pairs",
    PYTHON,
    "First sentence and a body: 2 from the same docstring, 1 same module, 0 another module.",
)
def docstring_pairs(seed: int) -> TextPairs:
    """Three pairs per first sentence: its own body (2), one of the same module (1), one of another module (0).

    The grade is provenance, not a human's judgement: bodies of other modules may by chance be close. Modules are tied
    in twos, a sentence's foreign body comes from its partner, and the two are one group, so that splits share no text.
    """
    rng = np.random.default_rng(seed)
    modules = _modules()
    names = rng.permutation(sorted(modules)).tolist()
    bundles = [names[i : i + 2] for i in range(0, len(names) - 1, 2)]
    rows: list[tuple[str, str, float, str]] = []
    for bundle in bundles:
        group = "+".join(sorted(bundle))
        for module, other in (bundle, bundle[::-1]):
            own, foreign = modules[module], modules[other]
            for i in rng.permutation(len(own))[: PER_BUNDLE // 2].tolist():
                same = int(rng.choice([j for j in range(len(own)) if j != i]))
                far = foreign[int(rng.integers(len(foreign)))]
                for body, grade in ((own[i], 2.0), (own[same], 1.0), (far, 0.0)):
                    rows.append((own[i].first, body.rest, grade, group))
    order = rng.permutation(len(rows))
    return TextPairs(
        "docstring-pairs",
        tuple(rows[i][0] for i in order),
        tuple(rows[i][1] for i in order),
        np.asarray([rows[i][2] for i in order]),
        np.asarray([rows[i][3] for i in order]),
        Source(
            PYTHON, python_version(), ("grades say where a text comes from, nobody judged them",)
        ),
    )


def _modules() -> dict[str, list[Docstring]]:
    """Public docstrings with a body by module; first sentences and bodies that occur twice are left out."""
    items = [item for item in stdlib_docstrings() if item.public and item.has_body]
    firsts: dict[str, int] = {}
    bodies: dict[str, int] = {}
    for item in items:
        firsts[item.first] = firsts.get(item.first, 0) + 1
        bodies[item.rest] = bodies.get(item.rest, 0) + 1
    modules: dict[str, list[Docstring]] = {}
    for item in items:
        fits = QUERY_WORDS[0] <= len(item.first.split()) <= QUERY_WORDS[1]
        if fits and firsts[item.first] == bodies[item.rest] == 1:
            modules.setdefault(item.module, []).append(item)
    return {name: found for name, found in modules.items() if len(found) >= SMALLEST}
