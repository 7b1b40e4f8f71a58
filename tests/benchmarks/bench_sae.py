"""Training speed of a TopK autoencoder beside SAELens and sparsify: rows per second, memory, loss after equal steps.

    python tests/benchmarks/bench_sae.py [--peers PYTHON] [--rounds 5] [--steps 2] [--quick]

`--peers` is the interpreter of an environment with `sae-lens` and `eai-sparsify`, which are not installed beside
Fathometer: they pin other versions. Without it only our own ways run. Every way trains in a process of its own on the
same batches with the same constant learning rate, one thread; processes take turns in an order that rotates, the
figure is CPU time, the ratio that of the same round, the median over rounds. Memory is the peak above what the process
held with its data and before its autoencoder. FVU is on held-out rows after the same number of steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
ROOT = Path(__file__).resolve().parents[2]
D, M, K, BATCH, RATE, POOL = 576, 4608, 32, 4096, 1e-3, 6
OURS = ("ours", "ours, preselect", "encoder matmul")
PEERS = ("saelens", "saelens, sparse", "sparsify")


def make_data(batch: int) -> tuple[Any, Any]:
    """(batches, batch, D) training batches and a held-out one: 2,000 planted features, 20 in a row, some noise."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2000, D)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pool = POOL * BATCH // batch if batch < BATCH else POOL
    n = (pool + 1) * batch
    X = 0.05 * rng.standard_normal((n, D), dtype=np.float32)
    for _ in range(20):
        chosen = (2000 * rng.random(n) ** 2).astype(int)
        X += directions[chosen] * rng.uniform(0.5, 1.5, (n, 1)).astype(np.float32)
    X -= X.mean(0)
    X /= np.sqrt(np.square(X).mean())
    parts = torch.from_numpy(X).view(pool + 1, batch, D)
    return parts[:-1], parts[-1]


Step = Callable[[Any], Any]
Error = Callable[[Any], float]  # of rows: their FVU


def share(x: Any, copy: Any) -> float:
    return float((copy - x).square().sum() / (x - x.mean(0)).square().sum())


def our_trainer(name: str) -> tuple[Step, Error]:
    sys.path.insert(0, str(ROOT))
    import torch

    from probes.sae.settings import Recipe, Sizes
    from probes.sae.sparse import decode, flat_codes, top_k
    from probes.sae.trainer import Trainer

    class Constant(Recipe):
        def rate(self, step: int) -> float:
            return self.learning_rate

    precision: Any = "preselect" if "preselect" in name else "float32"
    sizes = Sizes(D, M, float(K), (M,))
    recipe = Constant(sizes, 10**6, BATCH, RATE, D // 2, 1 / 32, 10**9, precision)
    trainer = Trainer("topk", recipe, 0, torch.device("cpu"))

    @torch.no_grad()
    def error(x: Any) -> float:
        w = trainer.net.weights
        values, cols = top_k(x @ w["encoder"].T + w["encoder_bias"], K)
        return share(x, decode(flat_codes(values, cols), w["decoder"]) + w["decoder_bias"])

    return trainer.step, error


def matmul(name: str) -> tuple[Step, Error]:
    import torch

    weights = torch.randn(M, D)
    return lambda x: x @ weights.T, lambda x: 1.0


def saelens(name: str) -> tuple[Step, Error]:
    import torch
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sparse = "sparse" in name
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=D, d_sae=M, k=K, use_sparse_activations=sparse)
    )
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=BATCH,
        lr=RATE,
        lr_end=RATE,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))

    def step(x: Any) -> None:
        trainer._train_step(sae=sae, sae_in=x)
        trainer.n_training_steps += 1

    @torch.no_grad()
    def error(x: Any) -> float:
        return share(x, sae(x))

    return step, error


def sparsify(name: str) -> tuple[Step, Error]:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    import torch
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    sae = SparseCoder(D, SparseCoderConfig(num_latents=M, k=K), device="cpu")
    optimiser = torch.optim.Adam(sae.parameters(), lr=RATE, fused=True)

    def step(x: Any) -> None:  # what its trainer does with a batch
        optimiser.zero_grad()
        out = sae(x)
        (out.fvu + out.auxk_loss / 32).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        sae.set_decoder_norm_to_unit_norm()

    @torch.no_grad()
    def error(x: Any) -> float:
        return float(sae(x).fvu)

    return step, error


MAKERS = {"ours": our_trainer, "encoder matmul": matmul, "saelens": saelens, "sparsify": sparsify}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(name: str, batch: int) -> None:
    """Answer each "n" on standard input with the CPU seconds of n steps, and the end of it with loss and memory."""
    out, sys.stdout = sys.stdout, sys.stderr  # libraries chat
    import torch

    torch.set_num_threads(1)
    batches, held_out = make_data(batch)
    maker = MAKERS[name.split(",")[0]]
    before = (
        peak_mib()
    )  # making the data took more than holding it does; imports come on top for all alike
    step, error = maker(name)
    count = 0
    for line in sys.stdin:
        start = time.process_time()
        for _ in range(int(line)):
            step(batches[count % len(batches)])
            count += 1
        print(json.dumps(time.process_time() - start), file=out, flush=True)
    print(json.dumps({"fvu": error(held_out), "mib": peak_mib() - before}), file=out, flush=True)


class Worker:
    def __init__(self, python: str, name: str, batch: int) -> None:
        self.name = name
        words = [python, str(Path(__file__).resolve()), "--worker", name, "--batch", str(batch)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, steps: int) -> float | None:
        """CPU seconds; None, with the reason printed, where this way does not run."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: its last words are read below
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            said = [x for x in self.process.stderr.read().splitlines() if "Error" in x]
            print(f"left out: {self.name}: {said[0][:160] if said else 'it ended'}")
            return None
        return float(json.loads(line))

    def end(self) -> dict[str, float]:
        return json.loads(self.process.communicate()[0].splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="python with sae-lens and eai-sparsify")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="per round")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.batch)
        return
    rounds, steps, batch = (1, 1, 512) if given.quick else (given.rounds, given.steps, given.batch)
    names = (*OURS, *(PEERS if given.peers else ()))
    workers = {
        name: Worker(given.peers if name in PEERS else sys.executable, name, batch)
        for name in names
    }
    names = tuple(name for name in names if workers[name].ask(1) is not None)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = workers[name].ask(steps)
            assert seconds is not None
            times[name].append(seconds / steps)
    base = "saelens" if given.peers else "ours"
    print(f"{M} features on {D} dimensions, k = {K}, batch {batch}, float32, one thread, CPU time")
    print(f"{'':18}{'rows/s':>9}{'x ' + base:>12}{'x sparsify':>12}{'FVU':>8}{'peak MiB':>10}")
    for name in names:
        end = workers[name].end()
        line = f"{name:18}{batch / statistics.median(times[name]):9.0f}"
        for other in (base, "sparsify"):
            ratios = [b / a for a, b in zip(times[name], times.get(other, []), strict=False)]
            line += f"{statistics.median(ratios):12.2f}" if ratios else f"{'':12}"
        print(f"{line}{end['fvu']:8.4f}{end['mib']:10.0f}")


if __name__ == "__main__":
    main()
