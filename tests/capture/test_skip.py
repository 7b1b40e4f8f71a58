"""Skipped blocks add nothing, and the rest of the model does not notice how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.capture import capture
from probes.capture.hooks import is_edited
from probes.capture.skip import skip_blocks
from probes.errors import InputError


def _states(model: Any, texts: list[str]) -> np.ndarray:
    """(layer, n, d) of all exits."""
    store = capture(model, texts)
    return np.stack([store["exit", layer] for layer in range(model.n_layers + 1)])


@pytest.mark.parametrize("first", [0, 1, 2])
def test_skipping_all_blocks_from_k_on_is_the_exit_at_k(
    text_architecture: str, tiny: Any, zoo: Any, first: int
) -> None:
    model, texts = tiny(text_architecture), zoo.texts(4)
    plain = _states(model, texts)
    with skip_blocks(model, range(first, model.n_layers)):
        skipped = _states(model, texts)
    np.testing.assert_array_equal(skipped[-1], plain[first])
    assert np.abs(plain[-1] - plain[first]).max() > 1e-3  # the control: the blocks do something
    np.testing.assert_array_equal(_states(model, texts), plain)


def test_skipping_the_first_block_runs_the_second_on_the_embeddings(tiny: Any, zoo: Any) -> None:
    from probes.capture.hooks import run_backbone

    model = tiny("bert")
    ids = torch.randint(7, 90, (2, 5), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    seen: list[torch.Tensor] = []
    hook = model.structure.blocks[1].module.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    embeddings = model.hf_model.embeddings(input_ids=ids)
    with torch.inference_mode(), skip_blocks(model, [0]):
        run_backbone(model, inputs)
    hook.remove()
    torch.testing.assert_close(seen[0], embeddings, rtol=0, atol=0)


def test_a_block_that_changes_its_input_in_place_is_skipped_all_the_same(
    tiny: Any, zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = tiny("gpt2"), zoo.texts(3)
    plain = _states(model, texts)
    block = model.structure.blocks[1].module
    forward = block.forward

    def in_place(states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found = forward(states.clone(), *args, **kwargs)
        states.mul_(2)
        return found

    monkeypatch.setattr(block, "forward", in_place)
    with skip_blocks(model, [1, 2]):
        found = np.array(capture(model, texts)["exit", 3])
    np.testing.assert_array_equal(found, plain[1])


def test_vision_models_too(tiny: Any) -> None:
    model = tiny("vit")
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    plain = capture(model, pixel_values=pixels)
    with skip_blocks(model, [1, 2]):
        np.testing.assert_array_equal(
            capture(model, pixel_values=pixels)["exit", 3], plain["exit", 1]
        )


def test_no_block_is_no_edit_and_some_are_one(tiny: Any, zoo: Any, tmp_path: Path) -> None:
    model, texts = tiny("llama"), zoo.texts(3)
    plain = _states(model, texts)
    with skip_blocks(model, []):
        assert not is_edited(model)
        np.testing.assert_array_equal(_states(model, texts), plain)
    with skip_blocks(model, [1]):
        assert is_edited(model)
        with pytest.raises(InputError, match="an edit of tiny-llama is in force"):
            capture(model, texts, out=tmp_path / "store")
    assert not is_edited(model)


def test_hooks_are_gone_after_an_error_and_unknown_blocks_are_named(tiny: Any) -> None:
    model = tiny("gpt2")
    blocks = [block.module for block in model.structure.blocks]
    before = [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in blocks]
    with pytest.raises(RuntimeError, match="stop"), skip_blocks(model, [0]):
        raise RuntimeError("stop")
    assert before == [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in blocks]
    with pytest.raises(InputError, match="block 3 does not exist"), skip_blocks(model, [3]):
        pass
    assert not is_edited(model)
