"""Dynamic exits against static ones: blocks run, quality kept, and real time, on shared sets.

    python tests/benchmarks/bench_dynamic.py [--quick] [--model minilm] [--sets trec,sst2] [--share 0.95] [--limit 2000]

Needs the shared development data beside the checkout. For every set: the best static exit and the dynamic one that
keep the asked share of the full model's quality at 95 % confidence; every rule at the threshold that the tune part
would choose for it, judged on the test part, with its gain over static exits at equal cost; time per text of the two
choices over the full model's, for one text at a time and for batches of 32, in turns.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from probes.datasets import limit_dataset, load_dataset
from probes.exits.dynamic import DynamicPlan, DynamicStudy, measure_policies, study_dynamic
from probes.exits.latency import LatencyPlan
from probes.exits.walk import Budget
from probes.models import Model, load_model

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {
    "trec": "classification/trec_train.csv",
    "sst2": "classification/sst2_train.csv",
    "ag_news": "classification/ag_news.csv",
    "subj": "classification/subj.csv",
    "stsb": "sts/stsb_dev.csv",
    "sick": "sts/sick_train_trial.csv",
    "nq": "retrieval/nq_oracle",
    "scifact": "retrieval/scifact",
}
STATIC, DYNAMIC = "static", "chosen"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--sets", default="trec,sst2,ag_news,stsb,nq,scifact")
    parser.add_argument("--share", type=float, default=0.95)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="trec alone, few texts, little time")
    given = parser.parse_args()
    sets = ["trec"] if given.quick else given.sets.split(",")
    limit, seconds = (600, 3.0) if given.quick else (given.limit, 15.0)
    model = load_model(given.model)
    for name in sets:
        data = limit_dataset(load_dataset(SHARED / SETS[name]), limit, np.random.default_rng(0))
        plan = DynamicPlan(max_length=given.max_length)
        study = study_dynamic(model, data, Budget(given.share), plan=plan)
        print(f"\n== {name}, {model.name}, {len(data)} examples, share {given.share:g}", flush=True)
        print_choice(study)
        print_rules(study)
        for size in (1, 32):
            print_time(model, study, LatencyPlan(seconds, batch_size=size), given.max_length)


def print_choice(study: DynamicStudy) -> None:
    """Both choices on the test part."""
    told = study.to_dict()
    print(f"chains: {', '.join(told['chains'])}; {told['status']} {told['reason']}")
    for what in (STATIC, DYNAMIC):
        kept: Any = told[what]
        if kept is not None:
            where = (
                f"layer {kept['layer']}"
                if kept["threshold"] is None
                else f"{kept['rule']} ≥ {kept['threshold']:.4g}"
            )
            print(
                f"  {what:8} {where:24} depth {kept['depth']:.2f}  quality {kept['quality']:.3f} "
                f"[{kept['low']:.3f}, {kept['high']:.3f}]  share {kept['share']:.3f}, full {kept['quality_full']:.3f}"
            )


def print_rules(study: DynamicStudy) -> None:
    """Every rule with the threshold that the tune part would choose for it, on the test part."""
    test = study.curve[study.curve["split"] == "test"]
    wanted = {c.name for c in study.choice.rehearsal.values() if c is not None}
    names = [c.name for c in study.found.candidates]
    kept = test[[name in wanted for name in names]].sort_values("depth")
    print(
        f"  {'rule on the test part':24}{'depth':>7}{'cost':>7}{'quality':>9}{'gain over static at equal cost':>34}"
    )
    for row in kept.to_dict("records"):
        gain = f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]"
        print(
            f"  {row['rule']:24}{row['depth']:7.2f}{row['cost']:7.2f}{row['quality']:9.3f}{gain:>34}"
        )


def print_time(model: Model, study: DynamicStudy, plan: LatencyPlan, max_length: int) -> None:
    """Real time of the two choices beside the full model's."""
    found = {STATIC: study.choice.static, DYNAMIC: study.choice.chosen}
    policies = {name: study.policy(c) for name, c in found.items() if c is not None}
    if not policies:
        return
    table = measure_policies(model, policies, study.texts("test"), plan, max_length)
    for row in table.to_dict("records"):
        print(
            f"  batch {plan.batch_size:2} {row['policy']:8} depth {row['depth']:.2f}  {row['latency_p50_ms']:7.2f} ms "
            f"p50 {row['latency_p95_ms']:7.2f} p95  share of time {row['relative_cost']:.3f} "
            f"[{row['low']:.3f}, {row['high']:.3f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
