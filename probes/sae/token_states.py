"""States of tokens with the text and the place that they come from, batch by batch, and codes pooled over a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from probes.capture.batching import Batch
from probes.capture.capture import check_places
from probes.capture.hooks import TorchRunner
from probes.capture.observe import Reading
from probes.capture.progress import Report
from probes.capture.shard import reduce_batch
from probes.capture.sites import Place, parse_sites
from probes.errors import DataError, unknown_name
from probes.sae.metrics import Coder
from probes.sae.ordinary import is_ordinary

if TYPE_CHECKING:
    from probes.models import Model

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
POOLINGS = ("mean", "max", "last")


@dataclass(frozen=True)
class TokenStates:
    """Some whole texts: `states` (tokens, d) float32 of the tokens that count, by text and, inside it, by position.

    `text` (tokens,) is the number of the text, `position` (tokens,) the place in it, special tokens counted.
    """

    text: IntArray
    position: IntArray
    states: FloatArray


def token_place(model: Model, site: str, layer: int) -> Place:
    """One site at one layer (a block for block sites); what `capture` raises where the model has no such place."""
    (place,) = parse_sites(site, model.n_layers, {site: [layer]})
    check_places(model, [place])
    return place


@dataclass(frozen=True)
class TokenReader:
    """Texts as one model reads them, at one place, without the first `skip_first` tokens of each.

    Left out are tokens, too, whose states are longer than `longest`: attention sinks.
    """

    reading: Reading
    place: Place
    skip_first: int
    longest: float | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        texts: Sequence[str],
        site: str,
        layer: int,
        skip_first: int | None = None,
        longest: float | None = None,
        **reading: Any,
    ) -> TokenReader:
        """`skip_first` None: 1 in causal models, whose first token has a state of its own kind, else 0.

        `reading`: max_length, special_tokens, prompt, batch_tokens, as for `capture`.
        """
        skip = int(model.is_causal) if skip_first is None else skip_first
        place = token_place(model, site, layer)
        return cls(Reading.of(model, texts, **reading), place, skip, longest)

    def run(self, each: Callable[[TokenStates], None], progress: bool | Report = False) -> None:
        """`each(states)` for batch after batch; heads of `z` lie side by side."""
        model = self.reading.model
        runner = TorchRunner(model, [self.place])

        def step(batch: Batch) -> None:
            assert batch.keep is not None
            position = batch.inputs["attention_mask"].cumsum(1) - 1
            kept = batch.keep & (position >= self.skip_first)
            keep = kept.to(model.device)
            made: list[torch.Tensor] = []
            reduce_batch(
                model,
                runner,
                batch,
                lambda _, states: states[keep],
                lambda _, one: made.append(one),
            )
            states = made[-1].flatten(1).float().cpu().numpy()
            ordinary = is_ordinary(states, self.longest)
            if ordinary.any():
                text, place = batch.rows[kept.nonzero()[:, 0].numpy()], position[kept].numpy()
                each(TokenStates(text[ordinary], place[ordinary], states[ordinary]))

        self.reading.run(step, progress)


def text_codes(
    model: Model,
    coders: Mapping[str, Coder | None],
    texts: Sequence[str],
    site: str,
    layer: int,
    *,
    pooling: str = "mean",
    skip_first: int | None = None,
    longest: float | None = None,
    progress: bool | Report = False,
    **reading: Any,
) -> dict[str, Any]:
    """Codes of whole texts: those of the tokens at `site` of `layer`, pooled over each text; one pass for all coders.

    Returns name → (n, features) CSR; for a coder None the pooled states themselves, (n, d). `pooling` is "mean"
    (a code that is not active counts as 0), "max" or "last" (token). The first token of each text is left out in causal
    models (`skip_first` None; or that many), and tokens whose states are longer than `longest` (attention sinks); a
    text of no other tokens has codes of 0. `reading`: max_length, special_tokens, prompt, batch_tokens, as for
    `capture`.

    >>> def best_of_texts(model, sae, texts):
    ...     return text_codes(model, {"sae": sae, "dense": None}, texts, "resid_post", 12)
    """
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    reader = TokenReader.of(model, texts, site, layer, skip_first, longest, **reading)
    parts: dict[str, list[Any]] = {name: [] for name in coders}
    numbers: list[IntArray] = []

    def each(batch: TokenStates) -> None:
        texts_here, owner = np.unique(batch.text, return_inverse=True)
        numbers.append(texts_here)
        for name, coder in coders.items():
            codes = batch.states if coder is None else coder.transform(batch.states)
            parts[name].append(_pooled(sparse.csr_array(codes), owner, len(texts_here), pooling))

    reader.run(each, progress)
    if not numbers:
        raise DataError(
            f"no text has more than {reader.skip_first} tokens: nothing is left to code"
        )
    rows = np.concatenate(numbers)
    place = sparse.csr_array(
        (np.ones(len(rows)), (rows, np.arange(len(rows)))), (len(texts), len(rows))
    )
    found: dict[str, Any] = {}
    for name, coder in coders.items():
        whole: Any = sparse.vstack(parts[name], format="csr")
        whole = sparse.csr_array(place.astype(whole.dtype) @ whole)
        found[name] = whole.toarray() if coder is None else whole
    return found


def _pooled(codes: Any, owner: IntArray, n: int, pooling: str) -> Any:
    """Codes (tokens, m) pooled by owner: (n, m)."""
    tokens = np.arange(len(owner))
    sizes = np.bincount(owner, minlength=n)
    if pooling == "last":
        last = np.zeros(n, np.int64)
        last[owner] = tokens  # the last one written stays
        return codes[last]
    if pooling == "mean":
        share = (1 / sizes[owner]).astype(codes.dtype)
        return sparse.csr_array((share, (owner, tokens)), shape=(n, len(owner))) @ codes
    flat = codes.tocoo()
    m = codes.shape[1]
    key = owner[flat.row] * m + flat.col
    order = np.argsort(key, kind="stable")
    keys, begin, counts = np.unique(key[order], return_index=True, return_counts=True)
    if not len(keys):
        return sparse.csr_array((n, m), dtype=codes.dtype)
    most = np.maximum.reduceat(flat.data[order], begin)
    row, col = keys // m, keys % m
    most = np.where(counts < sizes[row], np.maximum(most, 0), most)  # some token has the code 0
    return sparse.csr_array((most, (row, col)), shape=(n, m))
