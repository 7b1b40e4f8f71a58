"""The parts `types`, `shapes` and `composition`: what heads do on any text, and which fit together by their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.errors import DoesNotApply
from probes.heads.types import attention_shapes, induction_scores
from probes.heads.weights import composition_scores, head_spectra
from probes.heads.weights.composition import KINDS

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
    """tables/composition and head_spectra: which pairs of heads fit together beyond chance, and their directions."""
    parts: list[pd.DataFrame] = []
    notes: dict[str, None] = {}
    for done, kind in enumerate(KINDS):
        study.progress(done, len(KINDS), "composition of heads")
        try:
            found = composition_scores(
                study.model, kind, components=COMPONENTS, seed=study.plan.seed
            )
        except DoesNotApply as reason:
            notes[f"{kind}-composition: {reason}"] = None
            continue
        notes.update(dict.fromkeys(found.attrs.get("notes", ())))
        parts += _kept(found)
    spectra: Any = None
    try:
        spectra = head_spectra(study.model)
    except DoesNotApply as reason:
        notes[str(reason)] = None
    if not parts and spectra is None:
        raise DoesNotApply("; ".join(notes))
    if parts:
        study.write("composition", pd.concat(parts, ignore_index=True))
    if spectra is not None:
        notes.update(dict.fromkeys(spectra.attrs.get("notes", ())))
        study.write("head_spectra", spectra)
    study.tell(notes)


def _kept(found: pd.DataFrame) -> list[pd.DataFrame]:
    """All pairs as wholes, and the single directions of the pairs furthest above their floor."""
    whole: Any = found[found["component"].isna()]
    beyond = (whole["value"] - whole["floor"]).astype(float)
    strongest = whole.loc[beyond.nlargest(STRONGEST).index, _PAIR]
    directions: Any = found[found["component"].notna()]
    return [whole, directions.merge(strongest, on=_PAIR)]
