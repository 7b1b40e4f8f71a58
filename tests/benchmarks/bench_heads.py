"""What a retrieval score costs beside one bare forward pass: time, memory, and whether the scores are the same.

    python tests/benchmarks/bench_heads.py [--model smollm2] [--tokens 991] [--answer 40] [--quick]

One needle; the model's own words are the answer, so that all ways score the same rows. "original" is the published
way on plain Hugging Face: a prefill (eager or fused), then one token at a time with whole attention rows returned.
One thread, CPU time of the process; variants take turns in an order that rotates; the figure is the median over rounds,
the ratio that of the same round. Memory is the peak above what the process held before, each in a fresh process.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from probes import load_model
from probes.heads.retrieval import build_trial, builtin_needles, haystack_ids, measure_trial
from probes.heads.retrieval.hits import copy_scores
from probes.heads.retrieval.passes import empty_context, read_on, row_logits

BARE = "bare forward"


class Bench:
    """One trial that the model answers with words of its own, and each way to score it."""

    def __init__(self, name: str, tokens: int, answer: int) -> None:
        self.model = load_model(name)
        trial = build_trial(self.model, builtin_needles()[0], haystack_ids(self.model), tokens, 0.5)
        spans = {**trial.spans, "answer": trial.spans["context"]}
        said = self._own_words(trial.ids, answer)
        self.trial = dataclasses.replace(trial, answer_ids=said, spans=spans)
        self.ids = torch.from_numpy(self.trial.forced_ids)[None]
        self.variants: dict[str, Callable[[], Any]] = {
            BARE: self.bare,
            "forced (ours)": self.ours,
            "forced with mass and contribution": self.extras,
            "decode (ours)": self.decode,
            "original, eager prefill": lambda: self.original("eager"),
            "original, SDPA prefill": lambda: self.original("sdpa"),
            "output_attentions": self.output_attentions,
        }

    def _own_words(self, ids: Any, n: int) -> Any:
        context, found = empty_context(self.model), []
        now = ids
        for _ in range(n):
            output = read_on(self.model, now, context)
            found.append(int(row_logits(self.model, output, [len(now) - 1]).argmax()))
            now = np.asarray(found[-1:])
        return np.asarray(found, np.int64)

    def bare(self) -> None:
        read_on(self.model, self.trial.forced_ids)

    def ours(self) -> Any:
        return measure_trial(self.model, self.trial, "forced", extras=False).score

    def extras(self) -> Any:
        return measure_trial(self.model, self.trial).score

    def decode(self) -> Any:
        return measure_trial(self.model, self.trial, "decode", extras=False).score

    def _score(self, tops: list[Any]) -> Any:
        return copy_scores(np.stack(tops), self.trial.answer_ids, self.trial.ids, self.trial.answer)

    def original(self, prefill: str) -> Any:
        model, tops = self.model.hf_model, []
        try:
            with torch.no_grad():
                model.set_attn_implementation(prefill)
                ids = torch.from_numpy(self.trial.ids)[None]
                past = model(ids[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
                model.set_attn_implementation("eager")
                token = ids[:, -1:]
                for _ in self.trial.answer_ids:
                    out = model(token, past_key_values=past, use_cache=True, output_attentions=True)
                    past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
                    tops.append(
                        torch.stack([a[0, :, 0].argmax(-1) for a in out.attentions]).numpy()
                    )
        finally:
            model.set_attn_implementation("sdpa")
        return self._score(tops)

    def output_attentions(self) -> Any:
        model, rows = self.model.hf_model, list(self.trial.rows)
        try:
            model.set_attn_implementation("eager")
            with torch.no_grad():
                out = model(
                    self.ids, output_attentions=True, use_cache=False, logits_to_keep=len(rows)
                )
        finally:
            model.set_attn_implementation("sdpa")
        tops = torch.stack([a[0][:, rows].argmax(-1).T for a in out.attentions], 1)
        return self._score(list(tops.numpy()))


def compare(bench: Bench, rounds: int) -> dict[str, tuple[float, float]]:
    """Name -> (seconds, ratio to the bare forward of the same round), medians."""
    names = list(bench.variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    bench.bare()
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            start = time.process_time()
            bench.variants[name]()
            seconds[name].append(time.process_time() - start)
    ratios = {
        name: statistics.median(np.divide(seconds[name], seconds[BARE]).tolist()) for name in names
    }
    return {name: (statistics.median(seconds[name]), ratios[name]) for name in names}


def status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def extra_memory(run: Callable[[], Any]) -> float:
    """Peak MiB above what the process holds now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def memory_in_fresh_process(given: argparse.Namespace, variant: str) -> float:
    words = ["--model", given.model, "--tokens", str(given.tokens), "--answer", str(given.answer)]
    command = [sys.executable, __file__, *words, "--memory-of", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=991)
    parser.add_argument("--answer", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(given.model, given.tokens, given.answer)
    if given.memory_of:
        bench.model.hf_model(bench.ids[:, :8])  # what the first pass of all sets up
        print(json.dumps(extra_memory(bench.variants[given.memory_of])))
        return
    want = bench.output_attentions()
    found = compare(bench, 2 if given.quick else given.rounds)
    print(f"{given.model}, prompt of {bench.trial.tokens} tokens, answer of {given.answer}")
    print(f"{'variant':36}{'s':>8}{'ratio':>8}{'MiB':>8}{'largest difference of scores':>32}")
    for name, (seconds, ratio) in found.items():
        memory = memory_in_fresh_process(given, name)
        score = bench.variants[name]()
        gap = "" if score is None else f"{np.abs(score - want).max():.1e}"
        print(f"{name:36}{seconds:8.2f}{ratio:8.2f}{memory:8.0f}{gap:>32}", flush=True)


if __name__ == "__main__":
    main()
