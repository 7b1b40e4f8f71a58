"""Rows that leave a pass on the way: what is computed for the others stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.errors import InputError
from probes.exits.dynamic.passes import LeavingPass

torch.set_num_threads(1)
LENGTHS = (7, 3, 5, 7, 1, 4)


def padded(model, seed=0):
    side = next(iter(model.padding_sides), None)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, 90, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS if side else [7] * len(LENGTHS)):
        mask[row, -length:] = 1 if side == "left" else 0
        if side != "left":
            mask[row, :length] = 1
    return ids, mask


def states_of(model, ids, mask, leave):
    """{(row, layer): states of its tokens that count}; row i leaves at leave[i]."""
    layers = range(model.n_layers + 1)
    found, met = {}, []

    def visit(layer, states, rows):
        met.append((layer, rows.tolist()))
        for place, row in enumerate(rows):
            found[int(row), layer] = states[place][mask[row].bool()].clone()
        return np.asarray([leave[row] == layer for row in rows])

    LeavingPass(model, layers)(ids, mask, visit)
    return found, met


def test_rows_that_stay_are_not_changed_by_those_that_leave(zoo):
    for name in zoo.TEXT_NAMES:
        model = zoo.build(name)
        ids, mask = padded(model)
        deep = model.n_layers
        whole, _ = states_of(model, ids, mask, [deep] * len(ids))
        leave = [deep, 0, 1, 2, deep, 1]
        some, met = states_of(model, ids, mask, leave)
        assert met[0] == (0, [0, 1, 2, 3, 4, 5])
        assert met[1] == (1, [0, 2, 3, 4, 5])
        assert met[2] == (2, [0, 3, 4])
        for (row, layer), states in some.items():
            assert layer <= leave[row]
            torch.testing.assert_close(states, whole[row, layer], atol=1e-5, rtol=1e-4, msg=name)


def test_no_block_computes_a_row_that_has_left(zoo):
    model = zoo.build("bert")
    ids, mask = padded(model)
    passes = LeavingPass(model, range(model.n_layers + 1))
    computed = []
    hooks = [
        block.attn_out.register_forward_hook(lambda m, a, out: computed.append(len(out)))
        for block in model.structure.blocks
    ]

    def visit(layer, states, rows):
        return rows < 2 if layer == 1 else rows < 6 if layer == 2 else rows < 0

    passes(ids, mask, visit)
    for hook in hooks:
        hook.remove()
    assert computed == [6, 4]  # the third block never runs
    assert all("forward" not in vars(block.module) for block in model.structure.blocks)


def test_an_error_in_the_visit_leaves_the_model_as_it_was(zoo):
    model = zoo.build("llama")
    ids, mask = padded(model)
    passes = LeavingPass(model, [1, 2])
    with pytest.raises(RuntimeError, match="stop"):
        passes(ids, mask, lambda layer, states, rows: (_ for _ in ()).throw(RuntimeError("stop")))
    assert all("forward" not in vars(block.module) for block in model.structure.blocks)


def test_layers_that_make_no_sense_are_refused(zoo):
    model = zoo.build("bert")
    with pytest.raises(InputError, match="layer 9 does not exist: 0 to 3"):
        LeavingPass(model, [1, 9])
    with pytest.raises(InputError, match="rising order"):
        LeavingPass(model, [2, 1])
    with pytest.raises(InputError, match="rising order"):
        LeavingPass(model, [])
