"""What the features of an autoencoder stand for: where they are active, what they promote, what they are like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture.progress import Report
from probes.capture.sites import Place
from probes.errors import DoesNotApply
from probes.sae.examples import COLUMNS as EXAMPLE_COLUMNS
from probes.sae.examples import Collector, ExamplePlan, example_rows
from probes.sae.logit_weights import LogitWeights, logit_weights
from probes.sae.readable import CHECKED, check_signs, choose, find_signs
from probes.sae.similarity import nearest_features
from probes.sae.token_states import TokenReader
from probes.sae.token_text import SpelledTexts, Types

if TYPE_CHECKING:
    from probes.models import Model

COLUMNS = (
    "feature", "density", "mean_active", "max_active", "dead", "up_tokens", "down_tokens", "logit_kurtosis",
    "nearest", "nearest_cosine", "dataset", "concept", "auroc", "auroc_low", "auroc_high", "shown", "why",
)  # fmt: skip
HELD_OUT = 5  # one text in so many checks the features to read
_CONCEPT = ("feature", "dataset", "concept", "auroc", "auroc_low", "auroc_high", "fit_auroc")


@dataclass(frozen=True)
class FeatureTables:
    """`features`: one row per feature; `examples`: several per living feature; see `describe_features`.

    `tokens` and `texts` were read for them; `notes` say what is missing and why.
    """

    features: pd.DataFrame
    examples: pd.DataFrame
    tokens: int
    texts: int
    notes: tuple[str, ...] = ()


def describe_features(
    model: Model,
    sae: Any,
    texts: Sequence[str],
    site: str,
    layer: int,
    *,
    held_out: Sequence[str] | None = None,
    concepts: Sequence[pd.DataFrame] = (),
    shown: int = 10,
    plan: ExamplePlan = ExamplePlan(),  # noqa: B008  frozen
    skip_first: int | None = None,
    progress: bool | Report = False,
    **reading: Any,
) -> FeatureTables:
    """Read `texts` once and say of every feature where it is active, and what it writes.

    sae: a fitted `SparseAutoencoder`, or any coder with a `decoder_` (m, d) and codes for the states at `site` of
    `layer` (a block for block sites). held_out: texts on which the features to read are checked; by default a fifth
    of `texts`, drawn by `plan.seed`, which then give no examples. concepts: tables of `concepts_of_features`; the
    best concept is the one with the largest fit_auroc. shown: how many features to pick for reading, by the rule in
    `probes.sae.readable`. skip_first: tokens left out at the start of each text; None: 1 in causal models, whose first
    token has a state of its own kind (in SmolLM2 140 times as long as others), else 0. reading: max_length,
    special_tokens, prompt, batch_tokens, as for `capture`.

    `features`: feature; density (share of tokens where its code is not zero); mean_active, max_active (null where
    dead); dead; up_tokens, down_tokens (JSON lists of the ten most promoted and suppressed tokens, see
    `logit_weights`; null without an unembedding) and logit_kurtosis; nearest and nearest_cosine by decoder row; the
    concept with its dataset, auroc, auroc_low, auroc_high; shown (1, 2, …, else null) and why.
    `examples`: feature, quantile ("top", or a quarter of its non-zero activations), rank, text (number in `texts`),
    peak, activation, tokens, values, see `example_rows`.

    Raises what `capture` raises for texts and sites.

    >>> def read_on(model, sae, texts):  # the features to read, the first first
    ...     table = describe_features(model, sae, texts, "resid_post", 12).features
    ...     return table.dropna(subset="shown").sort_values("shown")[["feature", "why"]]
    """
    numbers, own, others = _parts(texts, held_out, plan.seed)
    fit = TokenReader.of(model, own, site, layer, skip_first, **reading)
    collector = Collector(sae, len(sae.decoder_), plan)
    fit.run(collector.add, progress)
    spelled = SpelledTexts(fit.reading)
    notes: list[str] = []
    weights = _weights(model, sae.decoder_, fit.place, notes)
    features = _features(collector, sae.decoder_, weights, best_concepts(concepts))
    if others:
        held = TokenReader.of(model, others, site, layer, skip_first, **reading)
        _mark_shown(features, collector, spelled, held, weights, sae.decoder_, shown)
    else:
        notes.append("too few texts to hold some out: no features were picked for reading")
    examples = pd.DataFrame(
        list(example_rows(collector, spelled, numbers)), columns=list(EXAMPLE_COLUMNS)
    )
    return FeatureTables(
        features.loc[:, list(COLUMNS)], examples, collector.tokens, len(own), tuple(notes)
    )


def _parts(
    texts: Sequence[str], held_out: Sequence[str] | None, seed: int
) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Numbers of the texts that are read, these texts, and those held out."""
    every = np.arange(len(texts), dtype=np.int64)
    if held_out is not None:
        return every, list(texts), list(held_out)
    order = np.random.default_rng((seed, 7)).permutation(len(texts))
    out = np.sort(order[: len(texts) // HELD_OUT])
    own = np.setdiff1d(every, out)
    return own, [str(texts[i]) for i in own.tolist()], [str(texts[i]) for i in out.tolist()]


def _weights(model: Model, decoder: Any, place: Place, notes: list[str]) -> LogitWeights | None:
    try:
        return logit_weights(model, decoder, place.site, place.number)
    except DoesNotApply as reason:
        notes.append(f"promoted tokens: {reason}")
        return None


def best_concepts(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Of several tables of `concepts_of_features`, for each feature the row with the largest fit_auroc."""
    kept = [table.loc[:, list(_CONCEPT)] for table in tables if len(table)]
    if not kept:
        return pd.DataFrame(columns=list(_CONCEPT))
    every: Any = pd.concat(kept, ignore_index=True)
    best = every.sort_values("fit_auroc", ascending=False, kind="stable")
    return best.drop_duplicates("feature").sort_values("feature").reset_index(drop=True)


def _features(
    collector: Collector, decoder: Any, weights: LogitWeights | None, concepts: pd.DataFrame
) -> pd.DataFrame:
    table = collector.statistics()
    m = len(table)
    if weights is None:
        table["up_tokens"] = table["down_tokens"] = pd.Series([None] * m, dtype=object)
        table["logit_kurtosis"] = None
    else:
        for name, tokens in (("up", weights.up_tokens), ("down", weights.down_tokens)):
            table[f"{name}_tokens"] = [json.dumps(own, ensure_ascii=False) for own in tokens]
        table["logit_kurtosis"] = weights.kurtosis
    table["nearest"], table["nearest_cosine"] = (
        nearest_features(decoder) if m > 1 else ([None], [None])
    )
    table = table.merge(concepts, how="left", on="feature")
    table["shown"] = pd.array([None] * m, dtype="Int64")
    table["why"] = pd.Series([None] * m, dtype=object)
    numbers = ["mean_active", "max_active", "logit_kurtosis", "auroc", "auroc_low", "auroc_high"]
    words = ["up_tokens", "down_tokens", "dataset", "concept", "why"]
    kinds = dict.fromkeys(numbers, "Float64") | dict.fromkeys(words, "string")
    return table.astype(kinds | {"nearest": "Int64"})


def _mark_shown(
    features: pd.DataFrame,
    collector: Collector,
    spelled: SpelledTexts,
    held_out: TokenReader,
    weights: LogitWeights | None,
    decoder: Any,
    n: int,
) -> None:
    """Fill the columns shown and why."""
    types = Types.make(held_out.reading.model.require_tokenizer())
    promoted = None if weights is None else weights.up
    told = features.loc[features["auroc"].notna(), list(_CONCEPT)]
    signs = find_signs(collector, spelled, types, promoted, told)[:CHECKED]
    if not signs:
        return
    held = check_signs(signs, collector, held_out, types, promoted)
    if not held:
        return
    for rank, sign in enumerate(choose(held, types, decoder, n)):
        row: Any = features.loc[sign.feature]
        features.loc[sign.feature, "shown"] = rank + 1
        features.loc[sign.feature, "why"] = sign.says(types, row.to_dict())
