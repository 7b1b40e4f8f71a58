"""The parts `types`, `shapes` and `composition`: what heads do on any text, and which fit together by their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

import probes.heads.study.measures  # noqa: F401  # pyright: ignore[reportUnusedImport]  registers measures
from probes.errors import DoesNotApply
from probes.heads.types import attention_shapes, induction_scores
from probes.heads.weights import (
    all_head_weights,
    composition_scores,
    copying_scores,
    head_spectra,
)
from probes.heads.weights.composition import KINDS
from probes.heads.weights.measures import COMPOSITION, COPYING

if TYPE_CHECKING:
    from probes.heads.study.study import Study

SHAPE_TEXTS = 50
SHAPE_TOKENS = 256  # long enough for far attention, short enough for many texts
COMPONENTS = 8  # singular directions of the earlier head
STRONGEST = 50  # pairs of a kind whose directions are kept
_PAIR = ["block_from", "head_from", "block_to", "head_to"]


def types(study: Study) -> None:
    """Induction, previous-token and duplicate-token score of every head, with a control."""
    table = induction_scores(
        study.model, seed=study.plan.seed, progress=study.report("random tokens")
    )
    study.add(table)
    study.tell(table.attrs.get("notes", ()))


def shapes(study: Study) -> None:
    """Entropy, sink share, distance, column mass and local share of every head, on the study's texts."""
    longest = min(SHAPE_TOKENS, study.model.max_length)
    tokenizer = study.model.require_tokenizer()
    ids = study.haystack.ids
    size = longest - tokenizer.num_special_tokens_to_add()
    n = min(SHAPE_TEXTS, len(ids) // size)
    if n < 3:
        raise DoesNotApply(f"the text has {len(ids):,} tokens, three times {size} are needed")
    texts = [tokenizer.decode(ids[i * size : (i + 1) * size].tolist()) for i in range(n)]
    table = attention_shapes(
        study.model,
        texts,
        seed=study.plan.seed,
        max_length=longest,
        progress=study.report("attention on texts"),
    )
    study.add(table)
    study.tell(table.attrs.get("notes", ()))


def composition(study: Study) -> None:
    """tables/composition and head_spectra, copying scores: which heads fit together beyond chance, and what they do."""
    model, seed = study.model, study.plan.seed
    weights = all_head_weights(model)  # once for all that follows
    notes: dict[str, None] = {}
    found: dict[str, pd.DataFrame] = {}
    for done, kind in enumerate(KINDS):
        study.progress(done, len(KINDS), "composition of heads")
        try:
            found[kind] = composition_scores(
                model, kind, components=COMPONENTS, seed=seed, weights=weights
            )
        except DoesNotApply as reason:
            notes[f"{kind}-composition: {reason}"] = None
    spectra: Any = None
    try:
        spectra = head_spectra(model, weights)
    except DoesNotApply as reason:
        notes[str(reason)] = None
    if not found and spectra is None:
        raise DoesNotApply("; ".join(notes))
    if found:
        for table in found.values():
            notes.update(dict.fromkeys(table.attrs.get("notes", ())))
        study.write(
            "composition",
            pd.concat(
                [part for table in found.values() for part in _kept(table)], ignore_index=True
            ),
        )
        study.add([_strongest(kind, table, seed) for kind, table in found.items()])
    if spectra is not None:
        notes.update(dict.fromkeys(spectra.attrs.get("notes", ())))
        study.write("head_spectra", spectra)
    try:
        copies = copying_scores(model, weights)
    except DoesNotApply as reason:
        notes[str(reason)] = None
    else:
        study.add(
            {"measure": COPYING.name, "site": "z", "seed": seed, **row}
            for row in copies.to_dict("records")
        )
    study.tell(notes)


def _strongest(kind: str, found: pd.DataFrame, seed: int) -> dict[str, Any]:
    """The composition of the pair that lies furthest above chance, as a number of the whole run."""
    whole: Any = found[found["component"].isna()]
    best = whole.loc[(whole["value"] - whole["floor_max_high"]).astype(float).idxmax()]
    return {
        "measure": COMPOSITION.name, "site": "z", "variant": kind, "value": float(best["value"]), "n": len(whole),
        "seed": seed,
    }  # fmt: skip


def _kept(found: pd.DataFrame) -> list[pd.DataFrame]:
    """All pairs as wholes, and the single directions of the pairs furthest above their floor."""
    whole: Any = found[found["component"].isna()]
    beyond = (whole["value"] - whole["floor"]).astype(float)
    strongest = whole.loc[beyond.nlargest(STRONGEST).index, _PAIR]
    directions: Any = found[found["component"].notna()]
    return [whole, directions.merge(strongest, on=_PAIR)]
