"""Passes that begin in the middle give, to the bit, what whole passes give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from probes.capture.hooks import run_backbone
from probes.capture.replay import keeping, starting_at
from probes.errors import InputError, ModelError
from probes.heads.ablation import ablate_heads
from probes.models.trace import first_tensor


def _inputs(model: Any, token: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(7, 90, (1, token), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _last(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        found = first_tensor(run_backbone(model, inputs))
    assert found is not None
    return found


@pytest.mark.parametrize("layer", [1, 2])
def test_an_ablation_of_later_heads_is_the_same(
    text_architecture: str, tiny: Any, layer: int
) -> None:
    model = tiny(text_architecture)
    if model.n_heads is None:
        pytest.skip("a state-space model has no heads to ablate")
    inputs = _inputs(model)
    with keeping(model, layer) as kept:
        plain = _last(model, inputs)
    runs: list[int] = []
    hook = model.structure.blocks[0].module.register_forward_pre_hook(lambda *_: runs.append(1))
    inner = next(model.structure.blocks[0].module.children()).register_forward_hook(
        lambda *_: runs.append(2)
    )
    with starting_at(model, kept[0]):
        again = _last(model, inputs)
        with ablate_heads(model, [(2, 1)]):
            fast = _last(model, inputs)
    hook.remove()
    inner.remove()
    assert 2 not in runs  # what the first block is made of did not run
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    with ablate_heads(model, [(2, 1)]):
        slow = _last(model, inputs)
    torch.testing.assert_close(fast, slow, rtol=0, atol=0)
    assert (slow - plain).abs().max() > 1e-4  # the control: the head does something
    torch.testing.assert_close(_last(model, inputs), plain, rtol=0, atol=0)


def test_another_input_is_refused(tiny: Any) -> None:
    model = tiny("llama")
    with keeping(model, 1) as kept:
        _last(model, _inputs(model))
    with pytest.raises(ModelError, match="another input"), starting_at(model, kept[0]):
        _last(model, _inputs(model, token=5))
    _last(model, _inputs(model, token=5))  # and all is as before


def test_layers_without_a_block_are_refused(tiny: Any) -> None:
    with pytest.raises(InputError, match="1 to 3"), keeping(tiny("llama"), 0):
        pass
