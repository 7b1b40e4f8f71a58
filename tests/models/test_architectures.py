"""Every architecture of the zoo: what was found must reproduce the model's own numbers.

Two judges that know nothing of the finder: the model's own `hidden_states`, and the model physically
cut after k blocks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from zoo import (
    MAX_PARAMETERS,
    NAMES,
    REQUIRED,
    TEXT_NAMES,
    VISION,
    WITHOUT_HEADS,
    D,
    build,
    hf_model,
)

from probes.errors import DoesNotApply, InputError
from probes.models import Model, cut_model
from probes.models.inputs import call_arguments, run_base, trial_inputs
from probes.models.selfcheck import collecting_layers, relative_difference
from probes.models.structure import BLOCK_SITES
from probes.models.trace import first_tensor

torch.set_num_threads(1)
WITH_HEADS = [name for name in NAMES if name not in WITHOUT_HEADS]
EXPERTS = ("mixtral",)  # their MLP ends in no single projection
# What the documentation of the architecture says: (key/value heads, width of a head)
KV_HEADS = {
    **dict.fromkeys(
        ["llama", "mistral", "qwen2", "phi3", "mixtral", "olmo2", "cohere", "stablelm", "granite"],
        (2, 8),
    ),
    **dict.fromkeys(["qwen3", "gemma2", "gemma3"], (2, 12)),
    "falcon": (1, 8),
    "t5-encoder": (4, 12),
}
# Blocks whose residual additions are scaled: no module's output is what is added.
SCALED = ("granite",)


@cache
def model(name: str) -> Model:
    return build(name)


def layers(m: Model, inputs: dict[str, Any]) -> list[torch.Tensor]:
    with collecting_layers(m.structure) as states:
        run_base(m.structure.base, inputs)
    return states


def test_the_zoo_holds_every_architecture_that_must_work() -> None:
    assert set(REQUIRED) <= set(NAMES)
    for name in NAMES:
        assert sum(p.numel() for p in hf_model(name).parameters()) <= MAX_PARAMETERS


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name: str) -> None:
    one, two, other = (build(name, seed).weights_hash for seed in (0, 0, 1))
    assert one == two != other


@pytest.mark.parametrize("name", NAMES)
def test_layers_equal_the_models_own_hidden_states(name: str) -> None:
    m = model(name)
    assert m.n_layers == 3
    assert m.d_model == D
    inputs = trial_inputs(m.hf_model)
    states = layers(m, inputs)
    with torch.no_grad():
        own = m.structure.base(
            **call_arguments(m.structure.base, inputs), output_hidden_states=True
        ).hidden_states
    expected = [*states[:3], m.structure.apply_tail(states[3])]
    if (
        name == "mamba"
    ):  # leaves the embeddings out, and ends with both the raw and the normed state
        expected = [*states[1:], expected[3]]
    if name == "vit":  # gives the last one before its final norm
        expected[3] = states[3]
    for ours, theirs in zip(expected, own, strict=True):
        assert relative_difference(ours, theirs) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_exit_equals_the_model_cut_after_k_blocks(name: str) -> None:
    m = model(name)
    inputs = trial_inputs(m.hf_model)
    states = layers(m, inputs)
    first = (
        1 if name == "deberta-v2" else 0
    )  # transformers' DeBERTa itself cannot run without blocks
    for k in range(first, m.n_layers + 1):
        cut = cut_model(m, k)
        assert relative_difference(m.structure.apply_tail(states[k]), run_base(cut, inputs)) <= 1e-6
        if k < m.n_layers:  # control: the cut model really is another one
            assert (
                relative_difference(run_base(cut, inputs), run_base(m.structure.base, inputs))
                > 1e-2
            )


def test_cutting_shares_weights_and_leaves_the_model_alone() -> None:
    m = model("gemma3")
    before = m.weights_hash
    cut = cut_model(m, 2)
    assert m.n_layers == len(m.structure.base.layers) == 3  # pyright: ignore
    assert len(cut.layers) == 2  # pyright: ignore
    assert cut.config.num_hidden_layers == 2  # pyright: ignore
    assert len(cut.config.layer_types) == 2  # pyright: ignore
    assert m.config.num_hidden_layers == len(m.config.layer_types) == 3
    ours = {p.data_ptr() for p in m.structure.base.parameters()}
    assert {p.data_ptr() for p in cut.parameters()} < ours
    assert m.weights_hash == before
    for k in (-1, 4):
        with pytest.raises(InputError, match="0 to 3 are allowed"):
            cut_model(m, k)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_heads_are_found(name: str) -> None:
    m = model(name)
    kv, width = KV_HEADS.get(name, (4, 8))
    assert (m.n_heads, m.n_kv_heads, m.d_head) == (4, kv, width)
    for block in m.structure.blocks:
        assert block.path.rpartition(".")[2] == str(block.index)


@pytest.mark.parametrize("name", [n for n in WITH_HEADS if n not in SCALED])
def test_sites_add_up_to_what_the_block_does(name: str) -> None:
    """With the *outputs* of both sites set to zero an additive block must be the identity."""
    m = model(name)
    for block in m.structure.blocks:
        assert set(block.missing) <= ({"mlp_act"} if name in EXPERTS else set())
        handles = [
            m.structure.module_for(site, block.index).register_forward_hook(_zero)
            for site in ("attn_out", "mlp_out")
        ]
        try:
            states = layers(m, trial_inputs(m.hf_model))
        finally:
            for handle in handles:
                handle.remove()
        into, out = states[block.index], states[block.index + 1]
        if name in POST_NORM:  # then only the block's own norms remain: token by token
            out, into = out[0, 1], _normed(m, block.index, into[0, 1])
        assert relative_difference(out, into) <= 1e-5


POST_NORM = {
    "bert": ("attention.output.LayerNorm", "output.LayerNorm"),
    "roberta": ("attention.output.LayerNorm", "output.LayerNorm"),
    "xlm-roberta": ("attention.output.LayerNorm", "output.LayerNorm"),
    "electra": ("attention.output.LayerNorm", "output.LayerNorm"),
    "deberta-v2": ("attention.output.LayerNorm", "output.LayerNorm"),
    "mpnet": ("attention.LayerNorm", "output.LayerNorm"),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
    "opt-post-norm": ("self_attn_layer_norm", "final_layer_norm"),
}


def _zero(_module: Any, _args: Any, output: Any) -> Any:
    from probes.models.trace import with_first_tensor

    value = first_tensor(output)
    assert value is not None
    return with_first_tensor(output, torch.zeros_like(value))


def _normed(m: Model, index: int, state: torch.Tensor) -> torch.Tensor:
    block = m.structure.blocks[index].module
    for path in POST_NORM[m.name.removeprefix("tiny-")]:
        state = block.get_submodule(path)(state)
    return state


@pytest.mark.parametrize("name", WITH_HEADS)
def test_z_is_head_major(name: str) -> None:
    """Zeroing one head of the value projection empties exactly the slices of z of the heads that use it."""
    m = model(name)
    block = m.structure.blocks[1]
    values = [
        (path, module)
        for path, module in block.module.named_modules()
        if path.rpartition(".")[2] in ("v_proj", "v_lin", "value", "v", "value_proj")
    ]
    if not values:
        pytest.skip("query, key and value are one projection")
    heads = block.heads
    assert heads is not None
    group = heads.n // heads.n_kv
    rows = slice(heads.width, 2 * heads.width)
    emptied = slice(group * heads.width, 2 * group * heads.width)
    seen: list[torch.Tensor] = []
    keep = {key: p.detach().clone() for key, p in values[0][1].named_parameters()}
    z = m.structure.module_for("z", 1)
    handle = z.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    try:
        with torch.no_grad():
            for p in values[0][1].parameters():
                p[rows] = 0
        run_base(m.structure.base, trial_inputs(m.hf_model))
    finally:
        handle.remove()
        with torch.no_grad():
            for key, p in values[0][1].named_parameters():
                p.copy_(keep[key])
    assert float(seen[0][..., emptied].abs().max()) == 0
    for others in (seen[0][..., : emptied.start], seen[0][..., emptied.stop :]):
        assert others.numel() == 0 or float(others.abs().amin(-1).max()) > 0


@pytest.mark.parametrize("name", WITHOUT_HEADS)
def test_a_state_space_model_has_layers_but_no_heads(name: str) -> None:
    m = model(name)
    assert m.n_heads is m.n_kv_heads is m.d_head is None
    for site in BLOCK_SITES:
        with pytest.raises(DoesNotApply, match="no attention heads"):
            m.structure.module_for(site, 0)


@pytest.mark.parametrize("name", SCALED)
def test_scaled_residual_additions_are_not_passed_off_as_sites(name: str) -> None:
    m = model(name)
    assert m.structure.module_for("z", 0) is m.structure.blocks[0].o_proj
    with pytest.raises(DoesNotApply, match="add up"):
        m.structure.module_for("attn_out", 0)


@pytest.mark.parametrize("name", [n for n in WITH_HEADS if n not in EXPERTS])
def test_neurons_are_what_the_mlp_ends_with(name: str) -> None:
    """By the names in the architecture's own code."""
    m = model(name)
    ends = (
        "c_proj",
        "dense_4h_to_h",
        "fc_out",
        "fc2",
        "lin2",
        "down_proj",
        "output.dense",
        "Wo",
        "wo",
    )
    for block in m.structure.blocks:
        down = m.structure.module_for("mlp_act", block.index)
        (path,) = (path for path, module in block.module.named_modules() if module is down)
        assert path.endswith(ends)
        assert "attn" not in path
        assert "attention" not in path.lower()


@pytest.mark.parametrize("name", EXPERTS)
def test_mixtures_of_experts_have_no_neurons_in_one_place(name: str) -> None:
    with pytest.raises(DoesNotApply, match="mixture of experts"):
        model(name).structure.module_for("mlp_act", 0)


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_padding_does_not_matter(name: str) -> None:
    m = model(name)
    assert m.padding_sides == ("right", "left")
    words = ["the cat sees a bird", "dog runs", "king"]
    alone, encoded = [], [m.tokenizer(text)["input_ids"] for text in words]
    for ids in encoded:
        tokens = torch.tensor([ids])
        given = m.forward_inputs(tokens, torch.ones_like(tokens))
        with torch.no_grad():
            alone.append(first_tensor(m.structure.base(**given)))
    longest = max(map(len, encoded)) + 2
    for side in m.padding_sides:
        tokens = torch.full((len(words), longest), m.pad_id)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(encoded):
            place = slice(0, len(ids)) if side == "right" else slice(longest - len(ids), longest)
            tokens[row, place], mask[row, place] = torch.tensor(ids), 1
        with torch.no_grad():
            together = first_tensor(m.structure.base(**m.forward_inputs(tokens, mask)))
        assert together is not None
        for row, single in enumerate(alone):
            assert single is not None
            assert relative_difference(together[row, mask[row] == 1], single[0]) <= 1e-5


def test_kinds() -> None:
    kinds = {name: model(name).kind for name in NAMES}
    encoders = (
        "bert roberta xlm-roberta distilbert mpnet electra deberta-v2 modernbert t5-encoder t5"
    )
    for name in NAMES:
        expected = (
            "vision" if name in VISION else "encoder" if name in encoders.split() else "decoder"
        )
        assert kinds[name] == expected, name
        assert model(name).is_causal == (expected == "decoder")
        pooling = model(name).embedding.pooling
        assert pooling == ("last" if expected == "decoder" else "mean")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "gemma2", "bert", "t5-encoder", "opt", "mixtral"]
)
def test_half_precision_finds_the_same_places(name: str, dtype: torch.dtype) -> None:
    from probes.models import wrap_model

    full = model(name)
    halved = hf_model(name).to(dtype)
    before = {key: value.clone() for key, value in halved.state_dict().items()}
    half = wrap_model(halved, name=name)
    assert half.dtype == dtype
    places = {id(module): path for path, module in halved.named_modules()}
    wanted = {id(module): path for path, module in full.hf_model.named_modules()}
    for one, two in zip(half.structure.blocks, full.structure.blocks, strict=True):
        assert one.modules.keys() == two.modules.keys()
        for site, module in one.modules.items():
            assert places[id(module)] == wanted[id(two.modules[site])]
    for key, value in halved.state_dict().items():  # looking did not touch the weights
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


def test_the_head_is_kept_but_not_run() -> None:
    m = model("gpt2")
    assert m.structure.lm_head is not None
    ran: list[str] = []
    handle = m.structure.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    run_base(m.structure.base, trial_inputs(m.hf_model))
    handle.remove()
    assert ran == []
    assert model("bert").structure.lm_head is None
    assert model("t5").structure.lm_head is None  # it reads the decoder, which is not run
