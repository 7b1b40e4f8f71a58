"""Runs in a process of its own that cannot import Fathometer: python -P fresh.py JOB.json

Reads texts and folders from the job, encodes the texts with the exported model, takes the time of it and of the whole
model in turns, and writes `embeddings.npy` and `told.json` beside the job. It uses the standard library, numpy, torch
and the library that the folder is made for.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[list[str]], Any]
Calls = tuple[
    Call, Call
]  # as a user encodes; and the modules alone: tokenising, transformer, pooling, maps


class _Blocked(importlib.abc.MetaPathFinder):
    """Refuses `import probes`, wherever it is installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] == "probes":
            raise ImportError("probes is blocked in this process")


def main(job_file: str) -> None:
    sys.meta_path.insert(0, _Blocked())
    import numpy as np
    import torch

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    load = _load_sentence if job["format"] == "sentence-transformers" else _load_transformers
    calls = load(job["exported"], job)
    here = Path(job_file).parent
    np.save(here / "embeddings.npy", calls[0](job["texts"]), allow_pickle=False)
    told = {"blocked": _is_blocked(), "library": _version(job["format"]), "times": []}
    if job["seconds"] > 0:
        told["times"] = _times(calls, load(job["full"], job), job)
    (here / "told.json").write_text(json.dumps(told), encoding="utf-8")


def _load_sentence(folder: str, job: dict[str, Any]) -> Calls:
    import torch
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(folder, device="cpu").eval()
    tokenise = getattr(model, "preprocess", None) or model.tokenize

    def encode(texts: list[str]) -> Any:  # prompts stand in the texts already
        return model.encode(texts, prompt="", batch_size=job["batch_size"], show_progress_bar=False)

    def alone(texts: list[str]) -> Any:
        with torch.inference_mode():
            return model(tokenise(texts))["sentence_embedding"].float().numpy()

    return encode, alone


def _load_transformers(folder: str, job: dict[str, Any]) -> Calls:
    import numpy as np
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    kind: Any = AutoModelForSequenceClassification if job["classes"] else AutoModel
    model = kind.from_pretrained(folder, trust_remote_code=job["code"]).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def encode(texts: list[str]) -> Any:
        found: list[Any] = []
        for low in range(0, len(texts), job["batch_size"]):
            batch = tokenizer(
                texts[low : low + job["batch_size"]],
                padding=True,
                truncation=True,
                return_tensors="pt",
            )
            with torch.no_grad():
                out = model(**batch)
            found.append((out.logits if job["classes"] else out.pooler_output).float().numpy())
        return np.concatenate(found)

    return encode, encode


def _times(exit_: Calls, full: Calls, job: dict[str, Any]) -> list[list[float]]:
    """Milliseconds per text in every round, in turns and on other texts in every round.

    Columns: exit and full model without, then with what the library does around them.
    """
    texts, size = job["timed"], job["timed_batch"]
    calls = (exit_[1], full[1], exit_[0], full[0])
    for call in calls:
        call(texts[:size])
    rounds: list[list[float]] = []
    start = time.perf_counter()
    while len(rounds) < job["max_rounds"]:
        if len(rounds) >= job["min_rounds"] and time.perf_counter() - start > job["seconds"]:
            break
        batch = [texts[(len(rounds) * size + i) % len(texts)] for i in range(size)]
        taken = [0.0] * len(calls)
        for turn in range(len(calls)):
            which = (turn + len(rounds)) % len(calls)
            before = time.perf_counter()
            calls[which](batch)
            taken[which] = (time.perf_counter() - before) * 1000 / size
        rounds.append(taken)
    return rounds


def _is_blocked() -> bool:
    try:
        __import__("probes")
    except ImportError:
        return True
    return False


def _version(kind: str) -> str:
    from importlib.metadata import version

    name = "sentence-transformers" if kind == "sentence-transformers" else "transformers"
    return f"{name} {version(name)}"


if __name__ == "__main__":
    main(sys.argv[1])
