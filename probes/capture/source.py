"""What is captured: texts or images; each plans its shards, names itself by a hash and loads one shard's batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture.batching import Batch, Side, batches, plan_batches
from probes.capture.spans import Spans, check_spans, hash_spans, span_tokens
from probes.capture.tokens import TextEncoder, Tokens
from probes.errors import DataError, InputError
from probes.files import sha256_texts
from probes.types import check_texts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BatchPlan:
    """How rows become batches. `special`: whether the tokens that the tokenizer adds are pooled."""

    batch_tokens: int
    side: Side = "right"
    special: bool = True


class Source(Protocol):
    """Rows to capture; everything but the batches is known without tokenising.

    `spans` are the character spans of each text, (spans, 2), where each is pooled on its own.
    """

    spans: tuple[NDArray[np.int64], ...] | None

    @property
    def n(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """What decides the model's inputs, as plain values."""
        ...

    def weights(self) -> list[int]:
        """(n,) upper bounds, up to a few special tokens, of the number of tokens of each row."""
        ...

    def load(self, lo: int, hi: int, plan: BatchPlan) -> list[Batch]:
        """The batches of rows lo … hi-1."""
        ...

    def table(self, lo: int, hi: int) -> pd.DataFrame:
        """One row per text: `tokens` and `truncated`."""
        ...


class TextSource:
    """Texts with the encoder of one model. Empty texts and lone surrogates raise `DataError` with their row."""

    def __init__(self, texts: Sequence[str], encoder: TextEncoder, pad_id: int) -> None:
        if hasattr(texts, "all_texts"):
            raise InputError(
                "a dataset came where texts are needed: give its texts, e.g. data.all_texts()"
            )
        self.texts = check_texts(texts)
        self.encoder = encoder
        self.pad_id = pad_id
        self.spans: tuple[NDArray[np.int64], ...] | None = None
        self._last: tuple[tuple[int, int], list[Tokens]] | None = None

    @property
    def n(self) -> int:
        return len(self.texts)

    def identity(self) -> dict[str, Any]:
        identity = {
            "texts": sha256_texts(self.texts),
            "texts_n": self.n,
            "prompt": self.encoder.prompt,
            "max_length": self.encoder.max_length,
        }
        return identity if self.spans is None else {**identity, "spans": hash_spans(self.spans)}

    def weights(self) -> list[int]:
        # UTF-8 bytes bound the tokens of a byte-level vocabulary, and nearly always those of others; 8 bytes per
        # token is a long average, so a text that will be cut weighs no more than what is left of it.
        most = 8 * self.encoder.max_length
        return [min(len(text.encode()), most) for text in self.texts]

    def tokens(self, lo: int, hi: int) -> list[Tokens]:
        if self._last is None or self._last[0] != (lo, hi):
            found = self.encoder(self.texts[lo:hi], first_row=lo)
            if self.spans is not None:
                found = [self._with_spans(one, lo + i) for i, one in enumerate(found)]
            self._last = (lo, hi), found
        return self._last[1]

    def with_spans(self, spans: Spans) -> TextSource:
        """The same texts, of which each span is pooled on its own; `DataError` for what is no span of its text."""
        made = TextSource(self.texts, self.encoder, self.pad_id)
        made.spans = check_spans(spans, self.texts)
        return made

    def _with_spans(self, tokens: Tokens, row: int) -> Tokens:
        assert self.spans is not None
        spans = span_tokens(tokens, self.spans[row], len(self.encoder.prompt), row)
        return replace(tokens, offsets=None, spans=spans)

    def load(self, lo: int, hi: int, plan: BatchPlan) -> list[Batch]:
        tokens = self.tokens(lo, hi)
        if not plan.special and self.spans is None:
            for row, one in enumerate(tokens):
                if one.special.all():
                    raise DataError(
                        f"text {lo + row} has special tokens only: include them (special_tokens=True) or remove it"
                    )
        made = batches(
            tokens, plan.batch_tokens, pad_id=self.pad_id, side=plan.side, special=plan.special
        )
        return list(made)

    def table(self, lo: int, hi: int) -> pd.DataFrame:
        tokens = self.tokens(lo, hi)
        counts = np.asarray([len(t) for t in tokens], np.int32)
        return pd.DataFrame({"tokens": counts, "truncated": [t.truncated for t in tokens]})


class ImageSource:
    """Images as the model's processor prepared them: `pixel_values` (n, channel, height, width)."""

    def __init__(self, pixel_values: torch.Tensor, tokens_each: int) -> None:
        import torch

        if (
            not isinstance(pixel_values, torch.Tensor)
            or pixel_values.ndim != 4
            or not len(pixel_values)
        ):
            shape = tuple(getattr(pixel_values, "shape", ()))
            raise DataError(
                f"pixel_values has shape {shape}: a tensor (image, channel, height, width) is needed"
            )
        self.spans: tuple[NDArray[np.int64], ...] | None = None  # no text, no spans
        self.pixels = pixel_values
        self.tokens_each = tokens_each

    @property
    def n(self) -> int:
        return len(self.pixels)

    def identity(self) -> dict[str, Any]:
        import torch

        digest = hashlib.sha256(f"{self.pixels.dtype} {tuple(self.pixels.shape)}".encode())
        for image in self.pixels:
            digest.update(image.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return {"pixel_values": digest.hexdigest(), "images_n": self.n}

    def weights(self) -> list[int]:
        return [self.tokens_each] * self.n

    def load(self, lo: int, hi: int, plan: BatchPlan) -> list[Batch]:
        if not plan.special:
            raise InputError("images have no special tokens to leave out: use special_tokens=True")
        found: list[Batch] = []
        for rows in plan_batches([self.tokens_each] * (hi - lo), plan.batch_tokens):
            found.append(Batch(rows, {"pixel_values": self.pixels[lo + rows]}, None))
        return found

    def table(self, lo: int, hi: int) -> pd.DataFrame:
        return pd.DataFrame(
            {"tokens": np.full(hi - lo, self.tokens_each, np.int32), "truncated": False}
        )
