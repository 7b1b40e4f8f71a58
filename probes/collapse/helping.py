"""What helps against collapse, on the user's task: attention temperatures, and remedies after the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.collapse.cosines import fit_slope, mean_cosine, unit_rows
from probes.collapse.judge import Judge
from probes.collapse.remedies import REMEDIES, Change
from probes.errors import DoesNotApply

if TYPE_CHECKING:
    from probes.collapse.study import Study

Array = NDArray[np.floating[Any]]

SLOPE_DOCUMENTS = 64  # enough for a slope that only compares
Row = dict[str, Any]


@dataclass(frozen=True)
class Cuts:
    """The same documents at a few lengths: tokens -> layer -> (n, d), through the maker's head."""

    states: Mapping[int, Mapping[int, Array]]

    def slope(self, layer: int, change: Change | None = None) -> float | None:
        """Collapse slope of changed states; None where cosines are undefined."""
        made = change or (lambda X: X)
        try:
            values = [mean(made(states[layer])) for states in self.states.values()]
        except DoesNotApply:
            return None
        return float(fit_slope(list(self.states), np.asarray(values)))


def mean(X: Array) -> float:
    """Mean cosine between different rows of X (n, d)."""
    units = unit_rows(X)
    return float(mean_cosine(units, np.ones((len(units), 1)))[0])


def mean_or_none(X: Array) -> float | None:
    """The same; None where a row has no direction."""
    try:
        return mean(X)
    except DoesNotApply:
        return None


def read_cuts(study: Study, told: str, **more: Any) -> Cuts | None:
    """A few documents at the shortest, the middle and the longest cut; None where there are no long documents."""
    try:
        documents, cuts = study.cut_documents
    except DoesNotApply:
        return None
    few = sorted({cuts[0], cuts[len(cuts) // 2], cuts[-1]})
    read: dict[int, dict[int, Array]] = {}
    for cut in few:
        store = study.states(documents[:SLOPE_DOCUMENTS], told, max_length=cut, **more)
        read[cut] = {layer: study.embedded(store, layer) for layer in study.layers}
    return Cuts(read)


def temperatures(study: Study) -> None:
    """tables/temperature: quality and collapse at every attention temperature; the best is chosen on `calibrate`."""
    from probes.layers import temperature

    judge = Judge.make(study.material, study.plan.draws, study.plan.seed)
    taus = sorted(
        {1.0, *study.plan.taus}, key=lambda tau: (tau != 1, tau)
    )  # the model itself first
    read: dict[float, dict[int, _Judged]] = {}
    for tau in taus:
        with temperature(study.model, tau):
            told = f"temperature: encode at τ = {tau:g}"
            read[tau] = dict(_judged(study, judge, told, cache=tau == 1))
    study.by_tau.update(read)
    study.write("temperature", temperature_rows(study, judge, read))


@dataclass(frozen=True)
class _Judged:
    """One layer under one condition: per-example scores (1, n), mean cosine and collapse slope."""

    scores: Array
    anisotropy: float | None
    slope: float | None


def _judged(study: Study, judge: Judge, told: str, **more: Any) -> Iterator[tuple[int, _Judged]]:
    own = judge.material.texts[: judge.material.own]
    store = study.states(own, told, **more)
    cuts = read_cuts(study, told, **more)
    for layer in study.layers:
        states = study.embedded(store, layer)
        slope = None if cuts is None else cuts.slope(layer)
        yield layer, _Judged(judge.scores(states), mean_or_none(states), slope)


def temperature_rows(
    study: Study, judge: Judge, read: Mapping[float, Mapping[int, _Judged]]
) -> list[Row]:
    """Rows per layer, split and τ; of equal qualities on `calibrate` the τ nearest to 1 is chosen."""
    rows: list[Row] = []
    for layer in study.layers:
        plain = read[1.0][layer]
        numbers = {
            (tau, split): judge.numbers(found[layer].scores, plain.scores, split)
            for tau, found in read.items()
            for split in ("calibrate", "test")
        }
        best = max(read, key=lambda tau: (numbers[tau, "calibrate"]["quality"], -abs(tau - 1)))
        for tau in sorted(read):
            for split in ("calibrate", "test"):
                about = {"dataset": study.data.name, "tau": tau, "layer": layer, "split": split}
                rows.append(
                    {
                        **about,
                        "measure": judge.measure,
                        **numbers[tau, split],
                        "anisotropy": read[tau][layer].anisotropy,
                        "collapse_slope": read[tau][layer].slope,
                        "chosen": tau == best,
                        "seed": study.plan.seed,
                    }
                )
    return rows


def remedies(study: Study) -> None:
    """tables/remedies: quality on `test` and collapse after every remedy, against none at the same layer."""
    judge = Judge.make(study.material, study.plan.draws, study.plan.seed, ("test",))
    material = judge.material
    store = study.states(material.texts, "remedies: encode texts")
    cuts = read_cuts(study, "remedies: encode cut documents")
    others = _other_ways(study, judge)
    rows: list[Row] = []
    notes: list[str] = []
    for done, layer in enumerate(study.layers):
        study.progress(done, len(study.layers), "remedies: fit and judge at every layer")
        states = study.embedded(store, layer)
        plain = judge.scores(states)
        own = states[: material.own]
        slope = None if cuts is None else cuts.slope(layer)
        found = {"none": _Judged(plain, mean_or_none(own), slope)}
        for name, fit in REMEDIES.items():
            try:
                change = fit(states[material.fit_rows])
            except DoesNotApply as reason:
                notes.append(f"{name}: {reason}")
                continue
            changed = change(states)
            slope = None if cuts is None else cuts.slope(layer, change)
            found[name] = _Judged(
                judge.scores(changed), mean_or_none(changed[: material.own]), slope
            )
        found.update({name: layers[layer] for name, layers in others.items() if layer in layers})
        for name, one in found.items():
            about = {"dataset": study.data.name, "remedy": name, "layer": layer, "split": "test"}
            rows.append(
                {
                    **about,
                    "measure": judge.measure,
                    **judge.numbers(one.scores, plain, "test"),
                    "anisotropy": one.anisotropy,
                    "collapse_slope": one.slope,
                    "seed": study.plan.seed,
                }
            )
    study.tell(notes)
    study.write("remedies", rows)


def _other_ways(study: Study, judge: Judge) -> dict[str, dict[int, _Judged]]:
    """Remedies that need the model anew: the temperature chosen at the last layer."""
    found: dict[str, dict[int, _Judged]] = {}
    tau = chosen_tau(study)
    if tau in study.by_tau:
        found[f"tau={tau:g}"] = study.by_tau[tau]
    elif tau is not None:  # of a run that is continued
        from probes.layers import temperature

        with temperature(study.model, tau):
            told = f"remedies: encode at τ = {tau:g}"
            found[f"tau={tau:g}"] = dict(_judged(study, judge, told, cache=False))
    return found


def chosen_tau(study: Study) -> float | None:
    """The τ chosen at the last layer by the part before; None where that was not done, or it is 1."""
    table = study.tables.get("temperature")
    if table is None:
        return None
    mine: Any = table[table["chosen"] & (table["layer"] == study.layers[-1])]
    tau = float(mine["tau"].iloc[0])
    return None if tau == 1 else tau
