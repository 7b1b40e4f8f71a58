"""Out of memory: told apart from other errors, and answered by halving the batch."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable

from probes.capture.batching import Batch
from probes.errors import ModelError

_CPU_ALLOCATOR = (
    "can't allocate memory",
    "not enough memory",
    "failed to allocate",
    "out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the machine had too little memory.

    >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."))
    True
    >>> is_out_of_memory(RuntimeError("shape mismatch"))
    False
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _CPU_ALLOCATOR
    )


class Halving:
    """Runs batches; one that does not fit is halved until it does, and later ones are cut to what fitted.

    A single row that does not fit raises `ModelError` with its row number and its number of tokens.
    """

    def __init__(self, run: Callable[[Batch], None]) -> None:
        self._run = run
        self.most: int | None = None  # the largest size that may still be tried

    def __call__(self, batch: Batch, first_row: int = 0) -> None:
        todo = [batch]
        while todo:
            current = todo.pop()
            if self.most is not None and current.size > self.most and len(current.rows) > 1:
                todo += reversed(current.halves())
                continue
            if self._fits(current):
                continue
            if len(current.rows) == 1:
                raise ModelError(_too_long(current, first_row))
            self.most = current.size // 2
            todo += reversed(current.halves())

    def _fits(self, batch: Batch) -> bool:
        try:
            self._run(batch)
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, where the error and the frames it holds are gone, can their memory be given back.
        _release()
        return False


def _too_long(batch: Batch, first_row: int) -> str:
    row = first_row + int(batch.rows[0])
    ids = batch.inputs.get("input_ids")
    what = f"image {row}" if ids is None else f"text {row} of {ids.shape[1]:,} tokens"
    mend = "use a smaller image" if ids is None else "lower max_length"
    return f"out of memory with {what} alone in a batch: {mend}, capture fewer sites, or use a larger device"


def _release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trim_heap() -> None:
    """Give freed memory back to the system where the C library keeps it (glibc); elsewhere there is nothing to do.

    Passes over batches of ever other shapes leave holes in the heap: without this, resident memory grows from shard to
    shard although nothing is held.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
