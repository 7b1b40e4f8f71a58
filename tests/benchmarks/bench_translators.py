"""Translators against raw cut models, model2vec and the full model: share of its quality, with intervals, and speed.

    python tests/benchmarks/bench_translators.py [--quick] [--sets stsb,nq] [--pool 2500] [--max-length 128]

Needs the shared development data beside the checkout. Fits on the fit part of each set and on unlabelled texts of other
sets, judges on the rest. Quality is Spearman or nDCG@10, as a share of the full model's; `sym`: everything is cut;
`asym`: cut texts (queries) against the full model's embeddings (documents). The interval is that of the difference to
the raw model cut at the same layer (model2vec: to raw layer 0), a paired bootstrap over clusters of examples.
model2vec is compared at equal width where it is installed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import copy
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from probes.datasets import limit_dataset, load_dataset, load_texts
from probes.exits.latency import LatencyPlan, _embedder, run_rounds
from probes.exits.material import Material, prepare
from probes.exits.resample import Resamples
from probes.exits.translate import (
    Inputs,
    StaticTable,
    TranslatedModel,
    TranslatorSpec,
    fit_layer,
    learning_curve,
    read_inputs,
    static_table,
    text_mismatch,
    token_counts,
)
from probes.exits.translate.vocabulary import state_weights
from probes.linalg import normalise_rows
from probes.models import Model, load_model

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {
    "stsb": "sts/stsb_dev.csv",
    "sick": "sts/sick_train_trial.csv",
    "scifact": "retrieval/scifact",
    "nq": "retrieval/nq_oracle",
}
POOL = (
    ("classification/ag_news.csv", "text"),
    ("pairs/nli_snli.csv", "text_b"),
    ("pairs/paws.csv", "text_a"),
    ("classification/trec_train.csv", "text"),
)
RICH = TranslatorSpec(("mean", "sif"), table=True)
DRAWS = 1000


@dataclass(frozen=True)
class Judge:
    """Quality of states of the set's own texts, as a share of the full model's, beside a baseline."""

    material: Material
    full: np.ndarray  # (texts, d)
    rows: np.ndarray
    resamples: Resamples

    @classmethod
    def of(cls, material: Material, full: np.ndarray) -> Judge:
        rows = np.concatenate([material.parts[name] for name in ("tune", "calibrate", "test")])
        drawn = Resamples.make(len(rows), DRAWS, 0, material.task.clusters[rows])
        return cls(material, full, rows, drawn)

    def draws(self, states: np.ndarray, asym: bool = False) -> np.ndarray:
        """Quality (1 + draws,): of all rows, then under every resample."""
        task: Any = self.material.task
        if asym:
            n = len(states)
            states = np.concatenate([states, self.full])
            name = "documents" if task.kind == "retrieval" else "b"
            task = replace(task, **{name: getattr(task, name) + n})
        cells = task.score(states, [states.shape[1]], self.rows)[task.primary]
        value = task.estimate(task.primary, cells, self.rows)
        return np.concatenate(
            [value, task.draws(task.primary, cells, self.rows, self.resamples)[0]]
        )


def texts_of(file: str, column: str) -> list[str]:
    with (SHARED / file).open(encoding="utf-8", newline="") as handle:
        return list(
            dict.fromkeys(row[column] for row in csv.DictReader(handle) if row[column].strip())
        )


def unlabelled(n: int) -> list[str]:
    """`n` texts of other sets and the built-in text, in equal shares."""
    rng = np.random.default_rng(0)
    sources = [texts_of(*source) for source in POOL] + [
        [t for t in load_texts("docstrings") if len(t) < 500]
    ]
    return [
        t for s in sources for t in (s[i] for i in rng.permutation(len(s))[: n // len(sources)])
    ]


def peer(model: Model) -> Callable[[Sequence[str]], np.ndarray] | None:
    """model2vec distilled from the same model at the same width, where its library is installed."""
    try:
        from model2vec.distill import distill_from_model
    except ImportError as error:
        print(f"model2vec is left out: {error}")
        return None
    static = distill_from_model(
        copy.deepcopy(model.hf_model),
        model.tokenizer,
        device="cpu",
        pca_dims=model.d_model,
        quantize_to="float32",
    )
    return lambda texts: np.asarray(static.encode(list(texts)), np.float64)


@dataclass(frozen=True)
class Line:
    """What one table line is about, its states, and the raw states that it is compared with."""

    layer: int
    name: str
    states: np.ndarray
    raw: np.ndarray


def lines_of(
    inputs: Inputs, own: int, full: np.ndarray, fit: np.ndarray, layers: list[int], quick: bool
) -> list[Line]:
    found: list[Line] = []
    for k in layers:
        raw = np.asarray(inputs.states["mean"][k][:own], np.float64)
        found.append(Line(k, "raw", raw, raw))
        specs = [TranslatorSpec(), TranslatorSpec(("mean", "sif")), RICH]
        if k == 0:
            specs.append(TranslatorSpec((), table=True))
        if k == 2 and not quick:
            specs += [
                TranslatorSpec(map="orthogonal"),
                replace(RICH, map="reduced-rank"),
                replace(RICH, map="mlp"),
                TranslatorSpec(("mean",), "all", table=True),
            ]
        for spec in specs:
            made = fit_layer(inputs, full, k, spec, fit)
            found.append(Line(k, spec.name, made(inputs, slice(0, own)), raw))
            if spec == RICH:
                turned = found[-1].states @ made.map.rotation()
                found.append(Line(k, "  its first 64 coordinates", found[-1].states[:, :64], raw))
                found.append(Line(k, "  first 64, rotated", turned[:, :64], raw))
    return found


def show(judge: Judge, lines: list[Line]) -> None:
    own = judge.full
    whole = judge.draws(own)
    print(f"{'layer':>5}  {'reads (map)':<34}{'sym':>7}{'vs raw':>19}{'asym':>9}{'vs raw':>19}")
    for line in lines:
        cells = [f"{line.layer:>5}  {line.name:<34}"]
        for asym in (False, True):
            if line.states.shape[1] != own.shape[1] and asym:
                continue
            if asym and line.name.startswith("model2vec"):
                continue  # its axes are its own
            mine, raw = judge.draws(line.states, asym), judge.draws(line.raw, asym)
            low, high = np.quantile((mine - raw)[1:] / whole[0], [0.025, 0.975])
            cells.append(f"{mine[0] / whole[0]:>{9 if asym else 7}.3f}   [{low:+.3f}, {high:+.3f}]")
        print("".join(cells), flush=True)


def speeds(
    model: Model, inputs: Inputs, table: StaticTable, full: np.ndarray, setting: Any
) -> None:
    """Time from text to embedding, one text at a time, against the full model's in the same round."""
    texts, fit, layers, static, length = setting
    calls: dict[int, Any] = {}
    names: dict[int, str] = {}
    if static is not None:
        calls[-2], names[-2] = static, "model2vec"
    table_only = fit_layer(inputs, full, 0, TranslatorSpec((), table=True), fit)
    calls[-1], names[-1] = TranslatedModel(model, table_only, table, length), "0: table"
    for k in layers:
        translator = fit_layer(inputs, full, k, RICH, fit)
        calls[10 * k], names[10 * k] = (
            TranslatedModel(model, translator, table, length),
            f"{k}: {RICH.name}",
        )
        calls[10 * k + 1], names[10 * k + 1] = _embedder(model, k, None, None, length), f"{k}: raw"
    calls[1000], names[1000] = _embedder(model, model.n_layers, None, None, length), "full model"
    order = np.random.default_rng(0).permutation(len(texts))
    plan = LatencyPlan(seconds=30, max_rounds=60)
    taken = run_rounds(calls, lambda r: [texts[order[r % len(texts)]]], plan)
    cost = taken.relative_cost()
    print(
        f"speed, one text at a time, {len(taken.times)} rounds: share of the full model's time (times as fast)"
    )
    for key in sorted(calls):
        print(f"  {names[key]:<28}{cost[key]:>8.3f}{1 / cost[key]:>10.1f} x")


def study(
    model: Model, name: str, options: argparse.Namespace, rows: np.ndarray, static: Any
) -> None:
    start = time.perf_counter()
    data = limit_dataset(load_dataset(SHARED / SETS[name]), options.limit, np.random.default_rng(0))
    material = prepare(data, unlabelled(options.pool), 0)
    fit, own = material.fit_rows, material.own
    counts = token_counts(model, material.texts, options.max_length)
    table = StaticTable(rows, state_weights(model, counts[fit]))
    inputs = read_inputs(
        model, material.texts, ("mean", "sif"), None, table, max_length=options.max_length
    )
    full = normalise_rows(model.embed(inputs.states["mean"][model.n_layers]).astype(np.float64))
    judge = Judge.of(material, full[:own])
    unlike = text_mismatch(counts[fit], counts[np.arange(own)])
    print(
        f"\n== {name}: {len(judge.rows)} examples judged, {len(fit)} fit texts ({material.extra} unlabelled)"
    )
    print(
        f"full model {judge.draws(full[:own])[0]:.4f}; coverage of the fit texts {unlike.coverage:.3f}, "
        f"distance of their lengths {unlike.length_distance:.2f}"
    )
    layers = [0, 2] if options.quick else [0, 1, 2, 4]
    lines = lines_of(inputs, own, full, fit, layers, options.quick)
    if static is not None:
        lines.insert(
            0,
            Line(
                0, f"model2vec, width {full.shape[1]}", static(material.texts[:own]), lines[0].raw
            ),
        )
    show(judge, lines)
    if name == options.sets.split(",")[0]:
        print(
            learning_curve(inputs, full, 2, RICH, fit)[["n_texts", "value", "low", "high"]]
            .round(3)
            .to_string(index=False)
        )
        speeds(
            model,
            inputs,
            table,
            full,
            (material.texts[:own], fit, layers, static, options.max_length),
        )
    print(f"({time.perf_counter() - start:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--quick", action="store_true", help="two layers, few maps")
    parser.add_argument(
        "--pool", type=int, default=2500, help="unlabelled texts beside each set's own"
    )
    parser.add_argument("--limit", type=int, default=1000, help="most examples of a set")
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()
    if not SHARED.is_dir():
        raise SystemExit("the shared development data are not beside the checkout")
    model = load_model("minilm")
    rows, static = static_table(model), peer(model)
    for name in options.sets.split(","):
        study(model, name, options, rows, static)


if __name__ == "__main__":
    main()
