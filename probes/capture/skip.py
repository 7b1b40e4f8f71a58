"""Leaving blocks out of a live model: what would it compute without them?"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from probes.capture.hooks import marked_edited

if TYPE_CHECKING:
    from torch import Tensor, nn

    from probes.models import Model
    from probes.models.structure import Block, Structure


@contextlib.contextmanager
def skip_blocks(model: Model, blocks: Iterable[int]) -> Generator[None]:
    """While the context lasts, the given blocks pass the residual stream on unchanged in every forward pass.

    The blocks still run, since some give later ones more than the stream (T5's position bias, caches), and only
    their contribution is dropped; so this shows what a model without them computes, not how fast. Sites inside a
    skipped block (`attn_out`, `mlp_out`, `mlp_act`, `z`) are what the block computed before it was dropped. For
    time, cut the model (`cut_model`).

    Raises `InputError` for a block that does not exist. Papers: Men et al. 2024, "ShortGPT" (arXiv 2403.03853).

    >>> def without_middle(model, texts):  # with a loaded model of 6 blocks
    ...     with skip_blocks(model, [2, 3]):
    ...         return capture(model, texts)["exit", 6]
    """
    structure = model.structure
    chosen = [structure.block(index) for index in sorted(set(blocks))]
    if not chosen:
        yield
        return
    handles: list[Any] = []
    try:
        for block in chosen:
            handles += _bypass(structure, block)
        with marked_edited(model):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _bypass(structure: Structure, block: Block) -> list[Any]:
    from probes.models.trace import with_first_tensor

    given: list[Tensor] = []  # of the pass that runs

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A copy: some blocks add to the stream in place.
        given[:] = [structure.read_hidden(args, kwargs).clone()]

    def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
        return with_first_tensor(output, given.pop())

    return [
        block.module.register_forward_pre_hook(enter, with_kwargs=True),
        block.module.register_forward_hook(leave),
    ]
