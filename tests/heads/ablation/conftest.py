"""The planted model, and a judge of needles that it finds and of words that it repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import planted_heads
import pytest
import torch
from planted_heads import FILLER, PLACES, SECRETS, WORDS, planted_model, word_ids

from probes.heads.ablation import Judge

N = 30


@pytest.fixture(scope="session")
def planted() -> tuple[Any, dict[str, tuple[int, int]]]:
    return planted_model()


def needle_rows(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Contexts (n, t) in which "is" stands before many words but before one secret, and the secrets (n,)."""
    rng = np.random.default_rng(0)
    rows, answers = [], []
    for _ in range(n):
        place, answer = str(rng.choice(PLACES)), str(rng.choice(SECRETS))
        noise = [f"the {a} is {b} ." for a, b in rng.choice(FILLER[1:8], size=(9, 2))]
        noise.insert(int(rng.integers(0, 10)), f"the secret word of {place} is {answer} .")
        rows.append(word_ids(" ".join(noise), f"the secret word of {place} is"))
        answers.append(WORDS.index(answer))
    return torch.tensor(rows), torch.tensor(answers)


def repeated_rows(n: int = N, length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Words repeated, none a secret; the next one (n,) is what came after the first occurrence."""
    generator = torch.Generator().manual_seed(0)
    words = torch.tensor(word_ids(*FILLER))
    drawn = torch.stack([words[torch.randperm(len(words), generator=generator)] for _ in range(n)])
    return torch.cat([drawn[:, :length], drawn[:, : length // 2]], 1), drawn[:, length // 2]


def _right(model: Any, ids: torch.Tensor, answers: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        logits = model.hf_model(ids).logits[:, -1]
    logprob = logits.log_softmax(-1).gather(1, answers[:, None])[:, 0]
    return {"accuracy": (logits.argmax(-1) == answers).double(), "logprob": logprob.double()}


@pytest.fixture(scope="session")
def judge() -> Judge:
    needles, repeats = needle_rows(), repeated_rows()

    def read(model: Any, items: np.ndarray) -> dict[str, Any]:
        found = _right(model, needles[0][items], needles[1][items])
        control = _right(model, repeats[0][items], repeats[1][items])
        return {
            "needle_accuracy": found["accuracy"],
            "answer_logprob": found["logprob"],
            "control_accuracy": control["accuracy"],
        }

    return Judge(N, read)


@pytest.fixture(scope="session")
def means(planted: Any) -> dict[int, np.ndarray]:
    from probes.heads.ablation import mean_outputs

    rng = np.random.default_rng(1)
    rows = rng.integers(4, planted_heads.V, size=(8, 40)).tolist()
    return mean_outputs(planted[0], rows)
