"""The part `csr`: embeddings made sparse, searched by an inverted index, beside truncated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.datasets import load_dataset
from probes.errors import DoesNotApply
from probes.exits.compare_csr import compare_csr
from probes.exits.material import builtin_texts, prepare
from probes.exits.sparse_codes import ACTIVES, possible_actives

if TYPE_CHECKING:
    from probes.features.study import Study


def csr(study: Study) -> None:
    """Table csr: quality and time of sparse codes of the model's embeddings at equal active numbers and equal bytes."""
    from probes.capture import capture
    from probes.exits.pipeline import prompts_for

    model, plan = study.model, study.plan
    if model.is_causal and not model.embedding.head:
        raise DoesNotApply(
            f"{model.name} is a language model, whose embeddings nobody made for retrieval: use an embedding model"
        )
    data = load_dataset(plan.look.sparse_data)
    texts = builtin_texts(data.all_texts(), seed=plan.seed)
    material = prepare(data, texts, plan.seed, prompts_for(model, data, None))
    states = capture(
        model,
        list(material.texts),
        sites=["exit"],
        layers={"exit": [model.n_layers]},
        max_length=plan.max_length,
        cache=True,
        progress=study.report(f"embedding the texts of {data.name} for sparse codes"),
    )
    embeddings = model.embed(np.asarray(states["exit", model.n_layers]))
    width = embeddings.shape[1]
    if left := [k for k in ACTIVES if k not in possible_actives(width, len(material.fit_rows))]:
        study.tell(
            [
                f"csr: codes of {', '.join(map(str, left))} active numbers need embeddings wider than {width}, left out"
            ]
        )
    study.write(
        "csr",
        compare_csr(
            material, embeddings, draws=plan.draws, seed=plan.seed, progress=study.progress
        ),
    )
    study.tell(material.caveats)
