"""What helps against collapse, on the user's task: attention temperatures, and remedies after the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.collapse.judge import Judge
from probes.collapse.left import Cuts, Left, Meter, few_cuts, read_cuts
from probes.collapse.remedies import REMEDIES
from probes.errors import DoesNotApply

if TYPE_CHECKING:
    from probes.collapse.study import Study

Array = NDArray[np.floating[Any]]

HEAD_TEXTS = 200  # that the choice of a head for ditto pooling looks at
Row = dict[str, Any]


def temperatures(study: Study) -> None:
    """tables/temperature: quality and collapse at every attention temperature, each against τ = 1; the best is chosen
    on `calibrate`."""
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
    """One layer under one condition: per-example scores (1, n), and how much collapse it leaves."""

    scores: Array
    left: Left


def _judged(study: Study, judge: Judge, told: str, **more: Any) -> Iterator[tuple[int, _Judged]]:
    own = judge.material.texts[: judge.material.own]
    store = study.states(own, told, **more)
    cuts, meter = read_cuts(study, told, **more), _meter(study)
    for layer in study.layers:
        states = study.embedded(store, layer)
        yield layer, _Judged(judge.scores(states), meter.read(states, cuts, layer))


def _meter(study: Study) -> Meter:
    return Meter(study.plan.draws, study.plan.seed)


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
                        **read[tau][layer].left.row(plain.left),
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
    cuts, meter = read_cuts(study, "remedies: encode cut documents"), _meter(study)
    notes: list[str] = []
    others = _other_ways(study, judge, notes)
    rows: list[Row] = []
    for done, layer in enumerate(study.layers):
        study.progress(done, len(study.layers), "remedies: fit and judge at every layer")
        states = study.embedded(store, layer)
        plain = judge.scores(states)
        none = meter.read(states[: material.own], cuts, layer)
        found = {"none": _Judged(plain, none)}
        for name, fit in REMEDIES.items():
            try:
                change = fit(states[material.fit_rows])
            except DoesNotApply as reason:
                notes.append(f"{name}: {reason}")
                continue
            changed = change(states)
            left = meter.read(changed[: material.own], cuts, layer, change)
            found[name] = _Judged(judge.scores(changed), left)
        found.update({name: layers[layer] for name, layers in others.items() if layer in layers})
        for name, one in found.items():
            about = {"dataset": study.data.name, "remedy": name, "layer": layer, "split": "test"}
            rows.append(
                {
                    **about,
                    "measure": judge.measure,
                    **judge.numbers(one.scores, plain, "test"),
                    **one.left.row(none),
                    "seed": study.plan.seed,
                }
            )
    study.tell(notes)
    study.write("remedies", rows)


def _other_ways(study: Study, judge: Judge, notes: list[str]) -> dict[str, dict[int, _Judged]]:
    """Remedies that need the model anew: the temperature chosen at the last layer, and Ditto pooling."""
    found: dict[str, dict[int, _Judged]] = {}
    tau = chosen_tau(study)
    if tau in study.by_tau:
        found[f"tau={tau:g}"] = study.by_tau[tau]
    elif tau is not None:  # of a run that is continued
        from probes.layers import temperature

        with temperature(study.model, tau):
            told = f"remedies: encode at τ = {tau:g}"
            found[f"tau={tau:g}"] = dict(_judged(study, judge, told, cache=False))
    try:
        found["ditto"] = _ditto(study, judge)
    except DoesNotApply as reason:
        notes.append(f"ditto: {reason}")
    return found


def _ditto(study: Study, judge: Judge) -> dict[int, _Judged]:
    """Ditto pooling by the head whose self-attention follows TF-IDF best on texts that nothing is judged on."""
    from probes.capture import ditto_pool
    from probes.capture.ditto_head import choose_head

    material, limit = judge.material, study.plan.places.max_length
    seen = [material.texts[row] for row in material.fit_rows[-HEAD_TEXTS:]]
    block, head, agreement = choose_head(study.model, seen, limit)
    study.tell([f"ditto: head {block}.{head} follows TF-IDF best (correlation {agreement:.2f})"])

    def pool(texts: Sequence[str], longest: int | None) -> dict[int, Array]:
        found = ditto_pool(
            study.model, texts, block, head, study.layers, max_length=longest,
            progress=lambda done, total: study.progress(done, total, "remedies: encode for ditto"),
        )  # fmt: skip
        return {layer: study.model.embed(X) for layer, X in found.items()}

    cuts = None
    if (chosen := few_cuts(study)) is not None:
        documents, lengths = chosen
        cuts = Cuts({cut: pool(documents, cut) for cut in lengths})
    states = pool(material.texts[: material.own], limit)
    meter = _meter(study)
    return {
        layer: _Judged(judge.scores(X), meter.read(X, cuts, layer)) for layer, X in states.items()
    }


def chosen_tau(study: Study) -> float | None:
    """The τ chosen at the last layer by the part before; None where that was not done, or it is 1."""
    table = study.tables.get("temperature")
    if table is None:
        return None
    mine: Any = table[table["chosen"] & (table["layer"] == study.layers[-1])]
    tau = float(mine["tau"].iloc[0])
    return None if tau == 1 else tau
