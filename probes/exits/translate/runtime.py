"""Texts to what translators read, in one pass; and a cut model with its translator, ready to embed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.translate.spec import Inputs, LayerTranslator
from probes.exits.translate.vocabulary import (
    StaticTable,
    count_inside,
    token_counts,
    vocabulary_size,
)

if TYPE_CHECKING:
    from probes.models import Model

Array = NDArray[np.floating[Any]]


def read_inputs(
    model: Model,
    texts: Sequence[str],
    poolings: Sequence[str] = ("mean",),
    layers: Sequence[int] | None = None,
    table: StaticTable | None = None,
    *,
    max_length: int | None = None,
    progress: Any = False,
) -> Inputs:
    """What translators may read of `texts`: every pooling of every layer in one pass, and the bags of `table`.

    `sif` takes the weights of `table`, which has to come then.
    """
    from probes.capture.several import pool_several

    weights = None if table is None else np.asarray(table.weights, np.float32)
    states: Any = {}
    if poolings:
        chosen: Any = None if layers is None else list(layers)
        states = pool_several(
            model, texts, poolings, chosen, weights, max_length=max_length, progress=progress
        )
    bag = None if table is None else table.bags(token_counts(model, texts, max_length))
    return Inputs(states, bag)


class TranslatedModel:
    """A model cut after the translator's layer: texts to embeddings (n, d_out) at unit length, reading every text once.

    A translator that reads the table alone runs no block at all.
    """

    def __init__(
        self,
        model: Model,
        translator: LayerTranslator,
        table: StaticTable | None = None,
        max_length: int | None = None,
    ) -> None:
        from probes.capture.capture import default_batch_tokens, padding_side_for
        from probes.capture.several import SeveralPoolings
        from probes.capture.source import BatchPlan
        from probes.capture.tokens import TextEncoder

        spec = translator.spec
        if table is None and (spec.table or "sif" in spec.poolings):
            raise InputError(
                f"the translator {spec.name!r} reads a static table: give the one it was fitted with"
            )
        self.model, self.translator, self.table = model, translator, table
        self._plan = BatchPlan(default_batch_tokens(model), padding_side_for(model, None))
        self._encoder = TextEncoder(model.require_tokenizer(), max_length or model.max_length)
        self._size = vocabulary_size(model)
        self._pool = None
        if spec.poolings:
            weights = None if table is None else np.asarray(table.weights, np.float32)
            self._pool = SeveralPoolings(
                model, spec.poolings, list(spec.layers(translator.layer)), weights
            )

    def __call__(self, texts: Sequence[str]) -> Array:
        from probes.capture.source import TextSource

        source = TextSource(texts, self._encoder, self.model.pad_id)
        states: Any = {}
        if self._pool is not None:
            for batch in source.load(0, len(texts), self._plan):
                self._pool.put(batch, states, len(texts))
        bag = None
        if self.translator.spec.table and self.table is not None:
            bag = self.table.bags(count_inside(source.tokens(0, len(texts)), self._size))
        return self.translator(Inputs(states, bag))
