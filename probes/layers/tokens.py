"""Token metrics of every layer: taken inside the hooks, averaged over texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError, NonFiniteError
from probes.layers.measure import interval
from probes.registry import TOKEN_METRICS, Measure
from probes.stats import Estimate, check_confidence
from probes.tables import tidy

if TYPE_CHECKING:
    import torch

    from probes.capture.observe import Look, Observed
    from probes.capture.progress import Report
    from probes.capture.sites import Layers, Place
    from probes.models import Model

FloatArray = NDArray[np.floating[Any]]
SITES = ("exit", "resid_post")


def token_metrics(
    model: Model,
    texts: Sequence[str],
    metrics: Sequence[str] | None = None,
    layers: int | Layers = None,
    site: str = "exit",
    *,
    groups: Any = None,
    confidence: float | None = 0.95,
    dataset: str | None = None,
    seed: int | None = None,
    progress: bool | Report = False,
    **reading: Any,
) -> pd.DataFrame:
    """Registered token metrics at every layer: their mean over texts, as a tidy table.

    Parameters
    ----------
    metrics : registered names (`TOKEN_METRICS`), all when None. layers : all when None. site : "exit"
    or "resid_post". groups : (n,) texts that belong together count as one draw. confidence : of the
    intervals, None leaves them out. seed : only noted, nothing is drawn. reading : max_length,
    special_tokens, prompt, batch_tokens and padding_side as in `capture`; with special_tokens=False
    the tokens that the tokenizer adds are left out.

    Each metric is computed on the token states of one text inside the hook, so that nothing of the size
    of the tokens is kept. `n` counts the texts where it is defined; the others (mostly too short) are
    left out and counted in `attrs["notes"]`, and where none is left the value is null. The interval is
    mean ± t · standard error over texts or groups, cut to the measure's range. The table's
    `attrs["tokens"]` is the median number of tokens.

    Raises `InputError` for unknown metrics, layers and sites, `NonFiniteError` for NaN in the states.

    >>> def curvature_by_layer(model, texts):  # with a loaded model
    ...     return token_metrics(model, texts, ["curvature"])[["layer", "value", "low", "high"]]
    """
    from probes.capture.observe import Reading, observe
    from probes.capture.sites import parse_sites

    if site not in SITES:
        raise InputError(f"token metrics are read at 'exit' or 'resid_post': {site!r} came")
    names = list(TOKEN_METRICS if metrics is None else metrics)
    if not names:
        raise InputError(f"no metric was asked for. Allowed: {', '.join(TOKEN_METRICS)}")
    if confidence is not None:
        check_confidence(confidence)
    places = parse_sites([site], model.n_layers, layers)
    owners = owner_of(groups, len(texts))
    seen = observe(Reading.of(model, texts, **reading), places, _look(names), progress)
    rows, notes = _means(seen, names, owners, confidence)
    frame = tidy([{**row, "dataset": dataset, "seed": seed} for row in rows])
    frame.attrs.update(
        notes=[*cut_note(seen.rows), *notes],
        interval="t over texts",
        tokens=float(np.median(seen.rows["tokens"].to_numpy())),
    )
    return frame


def _look(names: Sequence[str]) -> Look:
    """All metrics of a batch, (batch, metrics + 1): NaN where undefined; the last says whether states are finite."""
    chosen = [TOKEN_METRICS[name] for name in names]

    def look(place: Place, states: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        import torch

        from probes.layers.token_batch import in_front, real

        packed, counts = in_front(states, keep)
        kept = real(packed, counts)
        finite = torch.isfinite(packed).flatten(1).all(1)
        packed = torch.nan_to_num(packed)  # what is not finite is reported, and must not stop here
        found = [metric.batch(packed, kept) for metric in chosen]
        return torch.stack([*found, finite.double()], dim=1)

    return look


def cut_note(rows: pd.DataFrame) -> list[str]:
    """How many texts were cut, as one note or none; `rows` is what reading the texts returns."""
    cut = int(rows["truncated"].to_numpy().sum())
    if not cut:
        return []
    return [f"{cut:,} of {len(rows):,} texts are longer than the model reads and were cut"]


def owner_of(groups: Any, n: int) -> NDArray[np.int64]:
    """(n,) group number of each text; each its own when `groups` is None."""
    if groups is None:
        return np.arange(n)
    values = np.asarray(groups)
    if values.shape != (n,):
        raise InputError(f"groups have shape {values.shape}, ({n},) is needed: one per text")
    return np.unique(values, return_inverse=True)[1]


def _means(
    seen: Observed, names: Sequence[str], owners: NDArray[np.int64], confidence: float | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and notes: the mean over texts of every metric at every place."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for place, values in sorted(seen.values.items()):
        _check_finite(place, values[:, -1])
        for name, found in zip(names, values.T, strict=False):
            missing = int(np.isnan(found).sum())
            if missing:
                notes.append(
                    f"{place}: {name} is undefined for {missing:,} of {len(found):,} texts "
                    "(too few tokens, or states without a direction)"
                )
            mean = mean_row(found, TOKEN_METRICS[name].measure, owners, confidence)
            rows.append({"measure": name, "site": place.site, "layer": place.number, **mean})
    return rows, notes


def _check_finite(place: Place, finite: FloatArray) -> None:
    bad = np.flatnonzero(finite == 0)
    if len(bad):
        raise NonFiniteError(
            f"{place}: the states of text {bad[0]} hold NaN or infinity ({len(bad):,} of {len(finite):,} texts)"
        )


def mean_row(
    values: FloatArray, measure: Measure, owners: NDArray[np.int64], confidence: float | None
) -> dict[str, Any]:
    """Mean over the texts where `values` (n,) is no NaN, with its interval, as columns; null where there are none."""
    defined = ~np.isnan(values)
    n = int(defined.sum())
    if n == 0:
        return {"value": None, "n": 0}
    some = values[defined]
    mean = float(some.mean())
    low = high = None
    if confidence is not None:
        low, high = interval(mean, (some - mean) / n, owners[defined], measure, confidence)
    return Estimate(mean, low, high, n).row()
