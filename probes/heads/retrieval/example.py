"""One trial to look at: its tokens with their parts, and where every head looks while the answer is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.errors import DoesNotApply, InputError
from probes.heads.retrieval.passes import read_on, row_logits
from probes.heads.retrieval.scores import check_retrieval
from probes.heads.retrieval.trials import Trial

if TYPE_CHECKING:
    from probes.capture.attention_call import AttentionCall
    from probes.models import Model

KEEP = 0.005


def attention_example(
    model: Model, trial: Trial, keep: float = KEEP
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trial's tokens, and the attention of all heads in the rows that say the answer.

    tokens: position, token (text) and role: "needle", "needle sentence", "distractor", "question", "context",
    "template" or "answer" (the reply's own words, as far as they are read). rows: block, head, row (number of the
    answer's token), query_position, emitted (the model's first choice there), position, weight; only weights of at
    least `keep`, and all needle positions. The answer is teacher-forced.

    Raises `InputError` for `keep` outside [0, 1], `DoesNotApply` for encoders and models without heads.
    """
    if not 0 <= keep <= 1:
        raise InputError(f"keep {keep}: a weight from 0 to 1 is needed")
    check_retrieval(model)
    if not trial.reply:
        raise DoesNotApply(f"{model.name} says no answer: there are no rows to show")
    rows = list(trial.rows)
    found: list[pd.DataFrame] = []

    def look(call: AttentionCall, key: int) -> None:
        weights = call.pattern(rows)[0].cpu().numpy()  # (head, row, key)
        shown = weights >= keep
        needle = np.arange(trial.answer.start, trial.answer.stop) - key
        shown[..., needle[needle >= 0]] = True
        head, row, place = np.nonzero(shown)
        found.append(
            pd.DataFrame(
                {
                    "block": call.block,
                    "head": head,
                    "row": row,
                    "position": place + key,
                    "weight": weights[head, row, place].astype(np.float64),
                }
            )
        )

    output = read_on(model, trial.forced_ids, None, look)
    emitted = row_logits(model, output, rows).argmax(1).cpu().tolist()
    frame = pd.concat(found, ignore_index=True)
    frame.insert(3, "query_position", np.asarray(rows)[frame["row"]])
    frame.insert(4, "emitted", _texts(model, emitted)[frame["row"].to_numpy()])
    return token_frame(model, trial), frame


def token_frame(model: Model, trial: Trial) -> pd.DataFrame:
    """position, token (text as the tokenizer writes it) and role of every token that the model reads."""
    ids = trial.forced_ids
    role = np.full(len(ids), "template", object)
    spans = [
        ("context", trial.spans["context"]),
        *(("distractor", span) for span in trial.distractors),
        ("needle sentence", trial.sentence),
        ("needle", trial.answer),
        ("question", trial.question),
        ("answer", range(len(trial.ids), len(ids))),
    ]
    for name, span in spans:
        role[span.start : span.stop] = name
    tokens = _texts(model, ids.tolist())
    return pd.DataFrame({"position": np.arange(len(ids)), "token": tokens, "role": role})


def _texts(model: Model, ids: list[int]) -> Any:
    """Each token decoded alone, with the space that it begins with where the tokenizer keeps one."""
    tokenizer = model.tokenizer
    return np.asarray([tokenizer.decode([token]) for token in ids], dtype=object)
