"""The parts of a collapse study by name: from the model to the tables of the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.collapse import bottleneck, chunking, index_size, mask
from probes.collapse.helping import remedies, temperatures
from probes.collapse.length import Length, LengthResult, study_lengths, token_bins
from probes.collapse.texts import random_words
from probes.errors import DoesNotApply
from probes.exits.grid import default_dims
from probes.exits.material import without_overlap
from probes.exits.pipeline import prompts_for
from probes.exits.resample import Resamples
from probes.exits.retrieval import RetrievalTask
from probes.exits.tasks import make_task
from probes.exits.variants import LayerStates
from probes.types import Retrieval

if TYPE_CHECKING:
    from probes.collapse.study import Study

IntArray = NDArray[np.integer[Any]]


def lengths(study: Study) -> None:
    """tables/length; slope and onset of collapse: for texts as they are, cut documents, and cut random words."""
    found: list[dict[str, Any]] = []
    reasons: list[str] = []
    for mode, measure in _MODES.items():
        try:
            result = measure(study)
        except DoesNotApply as reason:
            reasons.append(f"{mode}: {reason}")
            continue
        about = {"dataset": study.texts.name, "mode": mode}
        found += [{**about, **row} for row in result.table.to_dict("records")]
        study.write("length", found)
        place = {"site": "exit", "pooling": study.pooling, "dataset": study.texts.name}
        place["variant"] = mode
        study.add({"measure": "collapse_slope", **place, **row} for row in result.slopes)
        if mode == "cut":
            study.add({"measure": "collapse_onset_tokens", **place, **row} for row in result.onsets)
        study.tell(f"length ({mode}), {note}" for note in result.notes)
    if not found:
        raise DoesNotApply("; ".join(reasons))
    study.tell(reasons)


def _natural(study: Study) -> LengthResult:
    plan, texts = study.plan, study.texts.natural
    bins = token_bins(study.tokens(texts), plan.seed, plan.documents)
    wanted = np.concatenate([one.rows for one in bins])
    store = study.states([texts[row] for row in wanted], "length: encode texts as they are")
    source = store["exit"]
    ends = np.cumsum([0, *(len(one.rows) for one in bins)])
    made: list[Length] = []
    for one, low, high in zip(bins, ends[:-1], ends[1:], strict=True):
        rows = np.arange(low, high)
        states = LayerStates(source, lambda _, X, rows=rows: X[rows], sorted(source))
        made.append(Length(one.tokens, one.low, one.high, states))
    study.tell([f"length (natural): {len(bins[0].rows)} texts in every bin, as the smallest holds"])
    return study_lengths(made, paired=False, draws=plan.draws, seed=plan.seed)


def _cut(study: Study, random: bool = False) -> LengthResult:
    documents, cuts = study.cut_documents
    what = "cut documents"
    if random:
        documents = random_words(documents, cuts[-1], study.plan.seed)
        what = "random words"
    made: list[Length] = []
    for cut in cuts:
        store = study.states(documents, f"length: encode {what} at {cut} tokens", max_length=cut)
        made.append(Length(float(cut), cut, cut, store["exit"]))
    return study_lengths(made, paired=True, draws=study.plan.draws, seed=study.plan.seed)


_MODES: Mapping[str, Callable[[Study], LengthResult]] = {
    "natural": _natural,
    "cut": _cut,
    "random-words": lambda study: _cut(study, random=True),
}


def chunks(study: Study) -> None:
    """tables/chunking: nDCG@10 with chunks of long documents encoded late, first, or not at all."""
    task, texts = _retrieval(study)
    assert isinstance(study.data, Retrieval)
    documents = study.data.documents
    prompt = prompts_for(study.model, study.data, None).get("document", "")
    made = chunking.chunk_texts(study.model, documents, study.plan.places.max_length, prompt)
    rows = chunking.long_queries(made.sizes, task.relevance)
    part = task.part(rows)
    asked = study.states([texts[row] for row in part.queries], "chunking: encode queries")
    whole = study.states(made.texts, "chunking: encode whole documents", prompt=prompt)
    told = "chunking: encode chunks within documents"
    late = study.states(made.texts, told, prompt=prompt, spans=made.spans)
    first = study.states(made.pieces, "chunking: encode chunks alone", prompt=prompt)
    drawn = Resamples.make(len(rows), study.plan.draws, study.plan.seed, part.clusters)
    one = np.ones(len(documents), dtype=np.int64)
    found: list[dict[str, Any]] = []
    for done, layer in enumerate(study.layers):
        study.progress(done, len(study.layers), "chunking: search at every layer")
        methods = {
            "late": (study.embedded(late, layer), made.sizes),
            "first": (study.embedded(first, layer), made.sizes),
            "whole": (study.embedded(whole, layer), one),
        }
        for row in chunking.chunking_rows(
            study.embedded(asked, layer), methods, part.relevance, drawn
        ):
            found.append({"layer": layer, **row, "seed": study.plan.seed})
    study.write("chunking", found)


def head(study: Study) -> None:
    """tables/head_spectrum and bottleneck; how far the head's spectrum is from uniform."""
    study.progress(0, None, "bottleneck: spectrum of the head")
    found = bottleneck.find_head(study.model)
    d = len(found.values)
    study.write(
        "head_spectrum",
        [{"rank": rank + 1, "singular_value": float(v)} for rank, v in enumerate(found.values)],
    )
    kl = bottleneck.spectrum_kl(found.values)
    study.add([{"measure": "head_spectrum_kl", "value": kl, "n": d}])
    ranks = bottleneck.ranks_of(d)
    losses, owner = bottleneck.rank_losses(
        study.model,
        study.texts.long,
        found,
        ranks,
        max_length=study.plan.places.max_length,
        progress=lambda done, total: study.progress(done, total, "bottleneck: loss at every rank"),
    )
    study.write(
        "bottleneck",
        bottleneck.bottleneck_table(losses, owner, ranks, study.plan.draws, study.plan.seed),
    )


def masked(study: Study) -> None:
    """tables/mask: effective rank of real tokens with [MASK] in the input and without."""
    states = mask.mask_states(
        study.model,
        study.texts.natural[: 5 * study.plan.documents // 2],
        study.layers,
        max_length=study.plan.places.max_length,
        seed=study.plan.seed,
        progress=lambda done, total: study.progress(done, total, "mask: encode with and without"),
    )
    table = mask.mask_table(states, study.plan.seed)
    study.tell(f"mask: {note}" for note in table.attrs["notes"])
    study.write("mask", table)


def index(study: Study) -> None:
    """tables/index_size: expected recall against the number of distractors, per layer and width; tables/index_breaks:
    from which number on a width loses to the full one."""
    task, texts = _retrieval(study)
    more = _more_texts(study, study.plan.distractors - len(np.unique(task.documents)))
    search, every = build_search(task, texts, more, study.plan.distractors)
    if len(search.pool) < study.plan.distractors:
        study.tell([
            f"index: {len(search.pool):,} documents, fewer than the {study.plan.distractors:,} asked for: the data, "
            "the texts and the built-in text hold no more that do not overlap (--texts names others)"
        ])  # fmt: skip
    sizes = index_size.subset_sizes(int(search.distractors.min()))
    store = study.states(every, "index: encode queries and pool")
    drawn = Resamples.make(len(search.queries), study.plan.draws, study.plan.seed, search.clusters)
    found: list[dict[str, Any]] = []
    breaks: list[dict[str, Any]] = []
    for done, layer in enumerate(study.layers):
        study.progress(done, len(study.layers), "index: search at every layer and width")
        states = study.embedded(store, layer)
        dims = default_dims(states.shape[1])
        rows, broken = index_size.index_rows(states, search, dims, sizes, drawn)
        place = {"dataset": study.data.name, "layer": layer}
        found += [{**place, **row, "seed": study.plan.seed} for row in rows]
        breaks += [{**place, **row, "seed": study.plan.seed} for row in broken]
        study.write("index_size", found)
        if breaks:  # a model so narrow that it has one width has none
            study.write("index_breaks", breaks)


def build_search(
    task: RetrievalTask, texts: Sequence[str], more: Sequence[str], most: int
) -> tuple[index_size.Search, tuple[str, ...]]:
    """Queries against the different documents of the corpus and `more` texts, up to `most` in all, and all texts.

    Corpus documents come first; relevant ones are always in.
    """
    pool, place = np.unique(task.documents, return_inverse=True)
    cells = task.relevance.tocoo()
    shape = (len(task), len(pool))
    merged = sparse.csr_array((cells.data, (cells.row, place[cells.col])), shape=shape)
    relevant = np.unique(merged.indices)
    others = np.setdiff1d(np.arange(len(pool)), relevant)[: max(0, most - len(relevant))]
    kept = np.sort(np.concatenate([relevant, others]))
    extra = list(more)[: max(0, most - len(kept))]
    columns = merged[:, kept].tocoo()
    wide = (len(task), len(kept) + len(extra))
    relevance = sparse.csr_array((columns.data, (columns.row, columns.col)), shape=wide)
    relevance.sort_indices()
    rows = np.concatenate([pool[kept], len(texts) + np.arange(len(extra))])
    return index_size.Search(task.queries, rows, relevance, task.clusters), (*texts, *extra)


def _more_texts(study: Study, missing: int) -> list[str]:
    """So many texts that overlap with nothing in the data, or as many as there are, with the documents' prompt.

    The study's own texts come first; built-in ones, which take seconds to gather, only where these do not suffice.
    """
    from probes.datasets import load_dataset, load_texts

    if missing <= 0:
        return []
    known = study.data.all_texts()
    kept = without_overlap(_some(study.texts.natural, missing, study.plan.seed), known)
    if len(kept) < missing:
        builtin: Any = load_dataset(
            "docstrings"
        )  # its documents only: its queries look like queries
        texts = dict.fromkeys([*builtin.documents, *load_texts("reference")])
        taken = set(kept)
        more = [text for text in texts if text not in taken]
        kept += without_overlap(_some(more, missing - len(kept), study.plan.seed), known)
    prompt = prompts_for(study.model, study.data, None).get("document", "")
    return [prompt + text for text in dict.fromkeys(kept)][:missing]


def _some(texts: Sequence[str], missing: int, seed: int) -> list[str]:
    """Twice as many texts as are missing, drawn by `seed`: some will overlap with the data."""
    drawn: list[int] = np.random.default_rng(seed).permutation(len(texts)).tolist()
    return [texts[i] for i in drawn[: 2 * missing]]


def _retrieval(study: Study) -> tuple[RetrievalTask, tuple[str, ...]]:
    if study.data.kind != "retrieval":
        raise DoesNotApply(
            f"{study.data.name} holds {study.data.kind}: queries and documents are needed (--data docstrings)"
        )
    task, texts = make_task(study.data, prompts_for(study.model, study.data, None))
    assert isinstance(task, RetrievalTask)
    return task, texts


PART_FUNCTIONS: Mapping[str, Callable[[Study], None]] = {
    "length": lengths,
    "temperature": temperatures,
    "remedies": remedies,
    "chunking": chunks,
    "bottleneck": head,
    "mask": masked,
    "index": index,
}
