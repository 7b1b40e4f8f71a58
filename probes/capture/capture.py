"""`capture`: the states of a model at chosen places, for many texts, in a store that resumes and is reused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.capture.backends import BACKENDS, Backend
from probes.capture.batching import Side
from probes.capture.hooks import is_edited
from probes.capture.plan import make_identity, plan_job
from probes.capture.pooling import POOLINGS
from probes.capture.progress import Report, progress_bar
from probes.capture.shard import Job, capture_shard
from probes.capture.sites import SITES, Layers, Place, parse_sites
from probes.capture.source import BatchPlan, ImageSource, Source, TextSource
from probes.capture.spans import Spans
from probes.capture.temporary import TemporaryFolder
from probes.capture.tokens import TextEncoder
from probes.errors import DoesNotApply, InputError, unknown_name
from probes.files import cache_dir
from probes.store import fingerprint

if TYPE_CHECKING:
    import torch

    from probes.models import Model
    from probes.store import Store

_CALLER = 5  # frames from a warning here to the line that called `capture`


def capture(
    model: Model,
    texts: Sequence[str] | None = None,
    sites: str | Sequence[str] = ("exit",),
    pooling: str | None = None,
    layers: int | Layers = None,
    out: str | Path | None = None,
    *,
    cache: bool = False,
    backend: str = "torch",
    max_length: int | None = None,
    special_tokens: bool = True,
    prompt: str = "",
    spans: Spans | None = None,
    batch_tokens: int | None = None,
    padding_side: Side | None = None,
    dtype: str | None = None,
    shard_rows: int | None = None,
    pixel_values: torch.Tensor | None = None,
    progress: bool | Report = False,
) -> Store:
    """Run `model` over `texts` and keep its states, pooled inside the hooks.

    The pass stops after the deepest place asked for, and the language-model head is never computed. Texts are taken as
    plain characters: "[SEP]" in a text is no control token and no chat template is applied.

    Args:
        model: from `load_model` or `wrap_model`.
        texts: strings with more than white space. Those over `max_length` tokens are cut, with a warning that counts
            them; `store.rows()` says which (`tokens`, `truncated`).
        sites: `resid_post`, `exit` (by layer 0…L), `attn_out`, `mlp_out`, `mlp_act`, `z` (by block 0…L-1), or
            TransformerLens names.
        pooling: mean, last, first, max, weighted or none (every token, ragged); default: the model's own.
        layers: which layers (blocks) of each site, all by default; or `{site: numbers}`.
        out: folder of a store to keep. The same request finds it again and computes nothing; a broken-off one goes
            on where it stopped; another request is refused. None: a temporary store, removed with the last reference
            to it.
        cache: keep the store in the user's cache, in a folder named by its fingerprint; takes the place of `out`.
        backend: `torch` (reference), `transformer_lens` or `nnsight`.
        max_length: tokens, special ones included; default: the model's own.
        special_tokens: whether the tokens that the tokenizer adds ([CLS], …) are pooled; the model sees them anyway.
        prompt: text put before each text, e.g. `model.embedding.prompts["query"]`.
        spans: for each text a list of (start, end) in characters of the text without the prompt, or an (n, 2) array
            with one span each. Every span is pooled over its own tokens (see `probes.capture.spans`), so the store is
            ragged: one row per span in text order, those of text i from `store.offsets[i]` to `store.offsets[i + 1]`.
            Which tokens are special does not matter then.
        batch_tokens: rows × tokens of one batch; halved where memory does not suffice.
        padding_side: "right", "left", or "none" (only texts of equal length share a batch). Default: right, where the
            model can be padded. It does not matter for the result, only for the last bits.
        dtype: of the model's computation; default: as loaded. Pooled states are always summed and kept in float32.
        shard_rows: most texts in one shard, the unit that a resumed capture repeats.
        pixel_values: (n, channel, height, width) for vision models, in place of `texts`.
        progress: True for a bar with rate and time left, or a function of (rows done, rows).

    Returns:
        A `Store`: `store["exit", k]` is (n, d) float32, `store["z", b]` (n, heads, d_head), row i is text i.

    Raises:
        InputError: unknown site, layer, pooling or option. DataError: an empty text, with its row; a span that holds
        no token, lies outside its text or was cut. DoesNotApply: a site that this model does not have; spans where
        the tokenizer does not say which characters its tokens stand for. StoreError: `out` holds something else.
        ModelError: one text alone exceeds the memory.

    Examples:
        >>> acts = capture(load_model("minilm"), ["A cat sleeps.", "Gold is a metal."])  # doctest: +SKIP
        >>> acts["exit", 3].shape  # doctest: +SKIP
        (2, 384)
        >>> words = capture(model, ["Gold is heavy."], spans=[[(0, 4), (8, 13)]], pooling="last")  # doctest: +SKIP
        >>> words["exit", 3].shape, words.offsets.tolist()  # doctest: +SKIP
        ((2, 384), [0, 2])
    """
    entry = BACKENDS[backend]
    places = parse_sites(sites, model.n_layers, layers)
    pooling = POOLINGS[pooling or model.embedding.pooling].name
    check_places(model, places)
    side = padding_side_for(model, padding_side, pixel_values)
    batches = BatchPlan(batch_tokens or default_batch_tokens(model), side, special_tokens)
    source = make_source(model, texts, pixel_values, max_length, prompt, spans)
    if is_edited(model):
        _check_edited(model, cache or out is not None, backend, dtype)
    if spans is not None and pooling == "none":
        raise InputError("pooling 'none' keeps every token: choose how a span's tokens are pooled")
    job = Job(model, source, places, pooling, batches)
    shards = plan_job(job, shard_rows)
    precision = _precision(model, dtype)
    identity = make_identity(job, entry, precision, shards)
    if cache:
        if out is not None:
            raise InputError("give either out or cache=True: both say where the store lies")
        name = fingerprint({**identity, "plan": [list(shard) for shard in shards]})
        out = cache_dir() / "stores" / name[:32]
    return _run(job, entry, precision, identity, shards, out, progress)


def _check_edited(model: Model, kept: bool, backend: str, dtype: str | None) -> None:
    """Under an edit a store would be taken for the model's own states later, and a copy of the model has no edit."""
    if kept:
        raise InputError(
            f"an edit of {model.name} is in force: its states can be captured, but not kept as the model's own. "
            "Leave out= and cache away"
        )
    if backend != "torch" or _precision(model, dtype) != _precision(model, None):
        raise InputError(
            f"an edit of {model.name} is in force: only backend='torch' in the model's own dtype sees it"
        )


def _run(
    job: Job, entry: Backend, precision: str, identity: dict[str, Any], shards: list[tuple[int, int]],
    out: str | Path | None, progress: bool | Report,
) -> Store:  # fmt: skip
    from probes.store import Store

    folder = TemporaryFolder() if out is None else None
    try:
        path = Path(out) if folder is None else folder.path / "store"  # type: ignore[arg-type]
        store = Store.create(path, identity, shards, texts_n=job.source.n)
        if not store.complete:
            with store.writing():
                _fill(job, entry, precision, store, progress)
    except BaseException:
        if folder is not None:
            folder.remove()
        raise
    if folder is not None:
        folder.keep_with(store)
    _warn(store)
    return store


def _fill(job: Job, entry: Backend, precision: str, store: Store, progress: bool | Report) -> None:
    """Do the shards that are pending, then finish the store."""
    tables: dict[int, pd.DataFrame] = {}
    pending = store.pending()
    left = sum(store.shards[i][1] - store.shards[i][0] for i in pending)
    unit = "images" if isinstance(job.source, ImageSource) else "texts"
    with progress_bar(progress, job.source.n, job.source.n - left, unit) as advance:
        if pending:
            if job.source.spans is not None:  # a span that was cut shows now, and not after hours
                for index in pending:
                    job.source.table(*store.shards[index])
            import torch

            from probes.capture.twins import in_dtype

            job = replace(job, model=in_dtype(job.model, getattr(torch, precision)))
            with entry.open(job.model, job.places) as runner:
                for index in pending:
                    capture_shard(job, store, index, runner, advance)
                    tables[index] = job.source.table(*store.shards[index])
    # Shards of an earlier, broken-off call are tokenised again for the table: it costs little and needs no extra file.
    rows = [
        tables[i] if i in tables else job.source.table(lo, hi)
        for i, (lo, hi) in enumerate(store.shards)
    ]
    store.finish(pd.concat(rows, ignore_index=True))


def _warn(store: Store) -> None:
    cut = int(store.rows()["truncated"].to_numpy().sum())
    if cut:
        limit = store.identity.get("max_length")
        warnings.warn(
            f"{cut:,} of {store.texts_n:,} texts are longer than {limit:,} tokens and were cut",
            stacklevel=_CALLER,
        )
    bad = store.nonfinite()
    if len(bad):
        first: Any = bad.to_dict("records")[0]
        place = Place(str(first["site"]), int(first["layer"]))
        rows = ", ".join(str(row) for row in first["rows"][:5])
        warnings.warn(
            f"{len(bad)} of the captured arrays hold NaN or infinity, first {place} in texts {rows}: measures refuse "
            "these; capture in float32 if half precision overflowed",
            stacklevel=_CALLER,
        )


def check_places(model: Model, places: Sequence[Place]) -> None:
    """`DoesNotApply` with the reason for the first place that the model does not have."""
    for place in places:
        if SITES[place.site].axis == "block":
            model.structure.module_for(place.site, place.number)


def default_batch_tokens(model: Model) -> int:
    """Tokens per batch that keep the device busy: more brings nothing, and costs memory."""
    return 4096 if model.device.type == "cpu" else 32768


def make_source(
    model: Model,
    texts: Sequence[str] | None,
    pixel_values: torch.Tensor | None,
    max_length: int | None,
    prompt: str,
    spans: Spans | None = None,
) -> Source:
    """The rows to capture; `InputError` unless exactly one kind came and fits the model."""
    if (texts is None) == (pixel_values is None):
        raise InputError("give either texts or pixel_values")
    if pixel_values is not None:
        if model.kind != "vision":
            raise InputError(f"{model.name} reads texts: pixel_values do not apply")
        if prompt or max_length is not None or spans is not None:
            raise InputError("prompt, max_length and spans do not apply to images")
        return ImageSource(pixel_values, _patches(model))
    assert texts is not None
    length = _max_length(model, max_length)
    encoder = TextEncoder(model.require_tokenizer(), length, prompt, offsets=spans is not None)
    source = TextSource(texts, encoder, model.pad_id)
    return source if spans is None else source.with_spans(spans)


def _patches(model: Model) -> int:
    size, patch = getattr(model.config, "image_size", 224), getattr(model.config, "patch_size", 16)
    if not isinstance(size, int) or not isinstance(patch, int):
        return 256
    return (size // patch) ** 2 + 1


def _max_length(model: Model, given: int | None) -> int:
    from probes.models.inputs import text_config
    from probes.models.model import usable_positions

    if given is None:
        return model.max_length
    most = usable_positions(text_config(model.hf_model))
    least = model.tokenizer.num_special_tokens_to_add() + 1
    if given < least or (most is not None and given > most):
        top = f" to {most:,}" if most is not None else " or more"
        raise InputError(f"max_length is {given:,}: {model.name} takes {least}{top} tokens")
    return given


def padding_side_for(model: Model, given: str | None, pixel_values: Any = None) -> Side:
    sides = (*model.padding_sides, "none")
    if given not in (None, "left", "right", "none"):
        raise unknown_name("padding_side", str(given), ("left", "right", "none"))
    if pixel_values is not None:
        return "none"
    side: Any = given or next(side for side in ("right", "left", "none") if side in sides)
    if side not in sides:
        works = " or ".join(map(repr, sides))
        raise DoesNotApply(
            f"padding on the {side} changes what {model.name} computes: use padding_side={works}"
        )
    return side


def _precision(model: Model, given: str | None) -> str:
    if given is None:
        return str(model.dtype).removeprefix("torch.")
    from probes.models.load import DTYPES

    if given not in DTYPES:
        raise unknown_name("dtype", given, DTYPES)
    return given
