"""Sparse codes of embeddings (CSR): quality on real data, and time per query as the corpus grows.

    python tests/benchmarks/bench_csr.py [--data docstrings PATH …] [--ks 16 32] [--model minilm] [--quick]

First table: every dataset, the model's full embeddings against sparse codes, Matryoshka truncation and PCA at equal
active numbers and at equal bytes, judged outside the fit part, with 95 % intervals. Second table: milliseconds per
query (scoring all documents, best ten) on corpora made by adding noise to real embeddings, all ways taking
turns, medians, one thread.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
SHARED = ROOT.parent / "shared" / "data"
NAMES = ("retrieval/scifact", "retrieval/nq_oracle", "sts/stsb_dev.csv")


def datasets() -> list[str]:
    return ["docstrings", *(str(SHARED / name) for name in NAMES if (SHARED / name).exists())]


def quality(name: str, model: object, ks: list[int]) -> tuple[object, object]:
    """Print the rows of one dataset; the material and embeddings of its texts."""
    import numpy as np

    from probes import capture, load_dataset
    from probes.exits.compare_csr import compare_csr
    from probes.exits.material import builtin_texts, prepare

    data = load_dataset(name)
    material = prepare(data, builtin_texts(data.all_texts()))
    acts = capture(model, material.texts, sites=["exit"], cache=True)
    X = model.embed(np.asarray(acts["exit", model.n_layers]))
    rows = compare_csr(material, X, ks, rounds=200)
    kind = f"{rows[0]['measure']}, {rows[0]['n']} examples, coders fitted on {len(material.fit_rows)} texts"
    print(f"\n{data.name}: {kind}")
    print(f"{'':28}{'active':>8}{'bytes':>8}{'value':>8}{'low':>8}{'high':>8}{'share':>8}{'ms':>8}")
    for row in rows:
        beside = f" = {row['comparison']} of {row['csr_k']}" if row["comparison"] else ""
        ms = f"{row['query_ms']:8.3f}" if row["query_ms"] is not None else f"{'':8}"
        numbers = "".join(f"{row[key]:8.3f}" for key in ("value", "low", "high", "share"))
        print(f"{row['coder'] + beside:28}{row['active']:8}{row['bytes']:8.0f}{numbers}{ms}")
    return material, X


def growth(X: object, fit: object, ks: list[int], sizes: list[int]) -> None:
    """Print the time per query by corpus size."""
    import numpy as np

    from probes.exits.compare_csr import (
        dense_search,
        first_coordinates,
        sparse_search,
        time_searches,
    )
    from probes.exits.sparse_codes import fit_coders
    from probes.linalg import normalise_rows
    from probes.sae.inverted import InvertedIndex

    rng = np.random.default_rng(0)
    full = normalise_rows(np.asarray(X, dtype=np.float32))
    d = full.shape[1]
    coders = fit_coders(full, fit, ks)
    heads = "".join(f"{f'csr {k}':>10}{f'first {k}':>10}{f'first {2 * k}':>10}" for k in ks)
    print(f"\nms per query, exact search, one thread\n{'documents':>12}{'full':>10}{heads}")
    for n in sizes:
        noise = rng.normal(size=(n, d)).astype(np.float32) / d**0.5
        pool = normalise_rows(full[rng.integers(0, len(full), n)] + 0.5 * noise)
        sides = pool, full[:200]
        ways = [dense_search(sides, lambda x: x)]
        for k, coder in coders.items():
            index = InvertedIndex(coder.transform(pool))
            ways.append(sparse_search(index, coder.transform(sides[1])))
            ways += [dense_search(sides, first_coordinates(m)) for m in (k, min(d, 2 * k))]
        times = time_searches(ways, 200, 50)
        print(f"{n:12,}" + "".join(f"{ms:10.3f}" for ms in times if ms is not None), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=datasets())
    parser.add_argument("--ks", nargs="+", type=int, default=[16, 32])
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    from probes import load_model

    torch.set_num_threads(1)
    ks = given.ks[:1] if given.quick else given.ks
    model = load_model(given.model)
    names = given.data[:1] if given.quick else given.data
    held = [quality(name, model, ks) for name in names]
    material, X = held[0]
    growth(X, material.fit_rows, ks, [2000] if given.quick else [2000, 20_000, 200_000])


if __name__ == "__main__":
    main()
