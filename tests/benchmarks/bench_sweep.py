"""Layerwise probing: CPU seconds per layer and ratios against scikit-learn loops, choice of λ included.

    python tests/benchmarks/bench_sweep.py [--rounds 5] [--states FILE.npz] [--skip-exact]

One thread, CPU time, variants interleaved with rotated order, medians of per-round ratios; each
layer is 5 folds × 8 strengths. The loops choose the strength as the probes do: 8 fits on four
fifths of a fold's training part, the best on the rest, one more fit. States are synthetic with the
spectrum that pooled transformer states have (a power law, a few dominant and a few nearly constant
dimensions) and a planted concept; `--states` takes a file with arrays `y` (n,) and `l<layer>` (n,
d) instead.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from probes.probing import LinearProbe, RidgeProbe
from probes.probing.base import Concept
from probes.probing.folds import FoldPlan, stratified_folds
from probes.probing.linear import DEFAULT_CS
from probes.probing.ridge import DEFAULT_ALPHAS
from probes.probing.sweep import out_of_fold, sweep

SHAPES = ((2000, 576), (10000, 384))
N_CONCEPTS = 10


def states(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Power-law spectrum, dominant and dying dimensions, one planted concept at about 80 % accuracy."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** -0.5
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    X = (rng.normal(size=(n, d)) * spectrum) @ basis
    z = X @ (rng.normal(size=d) * (rng.random(d) < 0.2))
    y = (z / z.std() + 0.6 * rng.logistic(size=n) > 0).astype(np.int64)
    X += 2 * rng.normal(size=d)
    X[:, :3] *= 40
    X[:, 3:6] *= 1e-4
    return X.astype(np.float32), y


def more_concepts(X: np.ndarray, y: np.ndarray) -> list[Concept]:
    """y and nine directions of the same states, each with noise."""
    rng = np.random.default_rng(1)
    found = [Concept("0", y, 2)]
    for number in range(1, N_CONCEPTS):
        z = (X - X.mean(0)) / X.std(0) @ rng.normal(size=X.shape[1])
        z = z / z.std() + rng.normal(size=len(X))
        found.append(Concept(str(number), (z > np.median(z)).astype(np.int64), 2))
    return found


def loop(
    make: Callable[[float], object], grid: tuple[float, ...], X: np.ndarray, y: np.ndarray
) -> None:
    """What one writes with scikit-learn: scale, choose on an inner hold-out, fit again, predict."""
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        scaler = StandardScaler().fit(X[train])
        Z, t = scaler.transform(X[train]), y[train]
        fit, held = train_test_split(np.arange(len(t)), test_size=0.2, stratify=t, random_state=0)
        losses = []
        for strength in grid:
            model = make(strength).fit(Z[fit], t[fit])  # type: ignore[attr-defined]
            if hasattr(model, "predict_proba"):
                losses.append(log_loss(t[held], model.predict_proba(Z[held])))
            else:
                losses.append(1 - model.score(Z[held], t[held]))
        best = grid[int(np.argmin(losses))]
        make(best).fit(Z, t).predict(scaler.transform(X[test]))  # type: ignore[attr-defined]


def variants(X: np.ndarray, y: np.ndarray, exact: bool) -> dict[str, Callable[[], object]]:
    concepts = more_concepts(X, y)
    folds = stratified_folds(y, None, 5, 0)
    plan = FoldPlan.make([train for train, _ in folds], len(y))

    def ours(probe: object, many: list[Concept]) -> Callable[[], object]:
        return lambda: out_of_fold(probe, X, many, folds, plan)  # type: ignore[arg-type]

    found: dict[str, Callable[[], object]] = {
        "LogisticRegression loop": lambda: loop(
            lambda C: LogisticRegression(C=C), DEFAULT_CS, X, y
        ),
        "RidgeClassifier loop": lambda: loop(
            lambda a: RidgeClassifier(alpha=a), DEFAULT_ALPHAS, X, y
        ),
        "LinearProbe": ours(LinearProbe(), concepts[:1]),
        "RidgeProbe": ours(RidgeProbe(), concepts[:1]),
        "RidgeProbe, 10 concepts": ours(RidgeProbe(), concepts),
        "sweep(RidgeProbe), intervals included": lambda: sweep(RidgeProbe(), {0: X}, y),
    }
    if exact:
        found["LogisticRegression loop, tol 1e-6"] = lambda: loop(
            lambda C: LogisticRegression(C=C, tol=1e-6, max_iter=5000), DEFAULT_CS, X, y
        )
    return found


def measure(X: np.ndarray, y: np.ndarray, rounds: int, exact: bool) -> dict[str, list[float]]:
    todo = variants(X, y, exact)
    names = list(todo)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if number < 0 and "loop" in name:
                continue  # the warm-up is for what compiles and allocates
            start = time.process_time()
            todo[name]()
            if number >= 0:
                seconds[name].append(time.process_time() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]]) -> None:
    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))

    print(f"\n{title}\n{'':40s} {'CPU s':>8s} {'× logistic loop':>16s} {'× ridge loop':>13s}")
    for name, taken in seconds.items():
        faster = ratio("LogisticRegression loop", name), ratio("RidgeClassifier loop", name)
        print(f"{name:40s} {statistics.median(taken):8.3f} {faster[0]:16.2f} {faster[1]:13.2f}")
    print(f"10 concepts cost {ratio('RidgeProbe, 10 concepts', 'RidgeProbe'):.2f} × one")


def problems(path: str | None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    if path is None:
        for n, d in SHAPES:
            yield f"synthetic n={n} d={d}", *states(n, d, 0)
        return
    held = np.load(path)
    for key in sorted(set(held) - {"y"}):
        X = held[key]
        yield f"{path} {key} n={len(X)} d={X.shape[1]}", X, held["y"].astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--states", help="npz with y and l<layer> arrays")
    parser.add_argument("--skip-exact", action="store_true", help="leave out the slow loop at 1e-6")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for title, X, y in problems(options.states):
            report(title, measure(X, y, options.rounds, not options.skip_exact))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the process {peak:.0f} MiB")


if __name__ == "__main__":
    main()
