"""[MASK] deficiency: how much of the room of a layer real tokens lose when [MASK] stands among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from probes.capture.padded import padded_batches, starts
from probes.errors import DataError, DoesNotApply
from probes.layers import measure_layers
from probes.registry import LAYER_METRICS

if TYPE_CHECKING:
    from probes.capture.tokens import Tokens
    from probes.models import Model

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Told = Callable[[int, int], None]

SHARE = 0.15  # of a text's tokens, as in training
READ = 4  # real tokens that are read of each text
FEWEST_TOKENS = 100


@dataclass(frozen=True)
class MaskStates:
    """States of the same real tokens with [MASK] elsewhere in the text and without: layer -> (n, d).

    `owner` (n,) is the text that each token belongs to.
    """

    masked: Mapping[int, Array]
    plain: Mapping[int, Array]
    owner: IntArray


def mask_token(model: Model) -> int:
    """The id of [MASK]; `DoesNotApply` for models that read left to right and for vocabularies without it."""
    if model.is_causal:
        raise DoesNotApply(f"{model.name} reads left to right and was not trained with [MASK]")
    found = getattr(model.require_tokenizer(), "mask_token_id", None)
    if found is None:
        raise DoesNotApply(f"the vocabulary of {model.name} has no [MASK]")
    return int(found)


def mask_states(
    model: Model,
    texts: Sequence[str],
    layers: Sequence[int] | None = None,
    *,
    max_length: int | None = None,
    seed: int = 0,
    progress: Told | None = None,
) -> MaskStates:
    """States at `exit` of up to four real tokens per text, once with 15 % of the others replaced by [MASK], once not.

    Tokens are drawn by `seed`; those that are read are never masked and none of them is special. Texts of fewer than
    three own tokens are left out. `DoesNotApply` for models without [MASK], `DataError` for too few tokens.
    """
    from probes.capture.tokens import TextEncoder

    mask = mask_token(model)
    longest = min(max_length or model.max_length, model.max_length)
    encoded = TextEncoder(model.require_tokenizer(), longest)(texts)
    rng = np.random.default_rng(seed)
    plain: list[Tokens] = []
    masked: list[Tokens] = []
    read: list[IntArray] = []
    for tokens in encoded:
        own = rng.permutation(np.flatnonzero(~tokens.special))
        hidden = max(1, round(SHARE * len(own)))
        if len(own) < 3:
            continue
        ids = tokens.ids.copy()
        ids[own[:hidden]] = mask
        plain.append(tokens)
        masked.append(replace(tokens, ids=ids))
        read.append(np.sort(own[hidden : hidden + READ]))
    owner = np.repeat(np.arange(len(read)), [len(places) for places in read])
    if len(owner) < FEWEST_TOKENS:
        raise DataError(f"{len(owner)} tokens could be read, {FEWEST_TOKENS} are needed: more text")
    total = 2 * len(read)
    tell = progress or (lambda done, total: None)
    chosen = list(range(model.n_layers + 1) if layers is None else layers)
    with_mask = _read(model, masked, read, chosen, lambda done: tell(done, total))
    without = _read(model, plain, read, chosen, lambda done: tell(len(read) + done, total))
    return MaskStates(with_mask, without, owner)


def _read(
    model: Model,
    texts: Sequence[Tokens],
    places: Sequence[IntArray],
    layers: Sequence[int],
    tell: Callable[[int], None],
) -> dict[int, Array]:
    """Layer -> (all places in order of the texts, d)."""
    import torch

    from probes.capture.hooks import TorchRunner
    from probes.capture.sites import Place

    runner = TorchRunner(model, [Place("exit", layer) for layer in layers])
    found: dict[int, dict[int, Array]] = {layer: {} for layer in layers}
    done = 0
    for batch, inputs in padded_batches(model, texts):
        wanted = {
            row: torch.from_numpy(places[row] + start)
            for row, start in zip(batch.rows.tolist(), starts(batch), strict=True)
        }

        def receive(place: Place, states: torch.Tensor, wanted: Any = wanted) -> None:
            for i, (row, tokens) in enumerate(wanted.items()):
                picked = states[i, tokens.to(states.device)]
                found[place.number][row] = picked.float().cpu().numpy()

        runner(inputs, receive)
        done += len(batch.rows)
        tell(done)
    return {
        layer: np.concatenate([parts[row] for row in range(len(texts))])
        for layer, parts in found.items()
    }


def mask_table(states: MaskStates, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
    """Effective rank of real-token states with and without [MASK] in the input, per layer, and the ratio of the two.

    Columns: layer, with_mask, with_low, with_high, without, without_low, without_high, ratio, ratio_low, ratio_high, n,
    seed. A ratio below 1 means that real tokens leave directions to [MASK]. Intervals are jackknife ones over texts;
    that of the ratio is paired, on the logarithm. Where a rank is undefined the row is null, with the reason in
    `attrs["notes"]`. Paper: Meng et al. 2023, "Representation deficiency in masked language modeling"
    (arXiv 2302.02060).

    >>> X = np.random.default_rng(0).normal(size=(60, 6))
    >>> halved = X * [1, 1, 1, 0, 0, 0]
    >>> row = mask_table(MaskStates({0: halved}, {0: X}, np.arange(60))).iloc[0]
    >>> round(row["without"]), round(row["with_mask"]), bool(row["ratio_high"] < 1)
    (6, 3, True)
    """
    names = (("with_mask", "with", states.masked), ("without", "without", states.plain))
    columns: dict[str, Any] = {"layer": sorted(states.plain)}
    notes: list[str] = []
    for value, stem, side in names:
        found = measure_layers(
            side, ["effective_rank"], groups=states.owner, confidence=confidence, seed=seed
        )
        notes += [f"{value}: {note}" for note in found.attrs["notes"]]
        columns[value] = found["value"].tolist()
        columns[f"{stem}_low"] = found["low"].tolist()
        columns[f"{stem}_high"] = found["high"].tolist()
    ratios = [
        _ratio(states, layer, pair, confidence)
        for layer, *pair in zip(
            columns["layer"], columns["with_mask"], columns["without"], strict=True
        )
    ]
    for step, name in enumerate(("ratio", "ratio_low", "ratio_high")):
        columns[name] = [ratio[step] for ratio in ratios]
    frame = pd.DataFrame({**columns, "n": len(states.owner), "seed": seed})
    floats = [name for name in frame if name not in ("layer", "n", "seed")]
    frame = frame.astype(dict.fromkeys(floats, "Float64"))
    frame.attrs["notes"] = notes
    return frame


def _ratio(
    states: MaskStates, layer: int, pair: Sequence[Any], confidence: float
) -> tuple[float | None, float | None, float | None]:
    """with / without and its interval: exp(log ratio ± t · √Σ I²), I the difference of relative influences per text."""
    masked, plain = pair
    if pd.isna(masked) or pd.isna(plain):
        return None, None, None
    influence = LAYER_METRICS["effective_rank"].influence
    assert influence is not None
    shares = influence(states.masked[layer]) / masked - influence(states.plain[layer]) / plain
    owned = np.bincount(states.owner, weights=shares)
    size = len(owned)
    reach = float(stats.t.ppf(0.5 + confidence / 2, size - 1))
    half = reach * float(np.sqrt(size / (size - 1) * (owned @ owned)))
    ratio = masked / plain
    return ratio, float(ratio * np.exp(-half)), float(ratio * np.exp(half))
