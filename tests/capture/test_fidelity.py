"""What is captured is what the model itself computes: every architecture, padding side and batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes import capture
from probes.capture.hooks import TorchRunner, edit_site
from probes.capture.sites import Place, parse_sites
from probes.errors import DoesNotApply, InputError
from probes.models import cut_model
from probes.models.inputs import call_arguments, run_base, trial_inputs

TOLERANCE = 1e-5  # relative to the largest value, float32


def relative(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


def own_states(
    model: Any, inputs: dict[str, torch.Tensor]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The model's own hidden states and last hidden state for one unpadded text."""
    with torch.no_grad():
        out = model.structure.base(
            **call_arguments(model.structure.base, inputs), output_hidden_states=True
        )
    states = [h[0] for h in out.hidden_states]
    if (
        model.config.model_type == "mamba"
    ):  # its list leaves the embedding out: entry k is layer k + 1
        assert torch.equal(states[-1], out.last_hidden_state[0])
        states = [
            model.structure.base.get_input_embeddings()(inputs["input_ids"])[0].detach(),
            *states[:-1],
        ]
    return states, out.last_hidden_state[0]


def encode(model: Any, text: str) -> dict[str, torch.Tensor]:
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def catch(
    model: Any, places: list[Place], inputs: dict[str, torch.Tensor]
) -> dict[Place, torch.Tensor]:
    found: dict[Place, torch.Tensor] = {}
    TorchRunner(model, places)(inputs, lambda place, states: found.update({place: states.clone()}))
    return found


def sites_of(model: Any) -> list[str]:
    found = ["resid_post", "exit"]
    for site in ("attn_out", "mlp_out", "mlp_act", "z"):
        try:
            model.structure.module_for(site, 0)
        except DoesNotApply:
            continue
        found.append(site)
    return found


@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_equals_own_hidden_states(text_architecture: str, side: str, tiny: Any, zoo: Any) -> None:
    """Token states of padded, sorted, batched texts equal those of each text alone."""
    model = tiny(text_architecture)
    texts = zoo.texts(9)
    own = [own_states(model, encode(model, text)) for text in texts]
    for batch_tokens in (1, 25, 1000):
        acts = capture(
            model,
            texts,
            ["resid_post", "exit"],
            "none",
            batch_tokens=batch_tokens,
            padding_side=side,
            shard_rows=5,
        )
        for layer in range(
            model.n_layers
        ):  # hidden_states[-1] is final-normed where there is a norm: below
            assert (
                relative(acts["resid_post", layer], torch.cat([h[layer] for h, _ in own]))
                < TOLERANCE
            )
        assert (
            relative(acts["exit", model.n_layers], torch.cat([last for _, last in own])) < TOLERANCE
        )


def test_images_equal_own_hidden_states(tiny: Any) -> None:
    model = tiny("vit")
    pixels = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    acts = capture(
        model, pixel_values=pixels, sites=["resid_post", "exit"], pooling="none", batch_tokens=20
    )
    own = [own_states(model, {"pixel_values": image[None]}) for image in pixels]
    for layer in range(model.n_layers):
        assert (
            relative(acts["resid_post", layer], torch.cat([h[layer] for h, _ in own])) < TOLERANCE
        )
    assert relative(acts["exit", model.n_layers], torch.cat([last for _, last in own])) < TOLERANCE
    pooled = capture(model, pixel_values=pixels, pooling="mean")["exit", 1]
    tokens = acts["exit", 1].reshape(5, -1, model.d_model)
    assert relative(pooled, tokens.mean(1)) < TOLERANCE


def test_exit_equals_the_model_cut_there(architecture: str, tiny: Any) -> None:
    model = tiny(architecture)
    inputs = trial_inputs(model.hf_model)
    places = list(parse_sites("exit", model.n_layers))
    found = catch(model, places, inputs)
    for place in places:
        if architecture == "deberta-v2" and place.number == 0:
            continue  # transformers' own forward pass does not run without a block
        expected = run_base(cut_model(model, place.number), inputs)
        assert relative(found[place], expected) < TOLERANCE


# With a final norm and without one, looking back only and both ways, positions learned and relative.
@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "opt-post-norm", "bert", "modernbert", "t5-encoder"]
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_exit_of_padded_texts_equals_the_model_cut_there(
    name: str, side: str, tiny: Any, zoo: Any
) -> None:
    """At every layer: token states of a padded batch against each text alone through the cut model."""
    model, texts = tiny(name), zoo.texts(7)
    acts = capture(model, texts, "exit", "none", batch_tokens=1000, padding_side=side)
    assert (
        len(set(np.diff(acts.offsets))) > 2
    )  # the control: texts of many lengths, so padding there is
    for layer in range(model.n_layers + 1):
        cut = cut_model(model, layer)
        alone = torch.cat([run_base(cut, encode(model, text))[0] for text in texts])
        assert relative(acts["exit", layer], alone) < TOLERANCE


def test_exit_is_not_resid_post_where_there_is_a_final_norm(tiny: Any) -> None:
    """The control: without it the test above could compare two equal things."""
    model = tiny("llama")
    inputs = trial_inputs(model.hf_model)
    found = catch(model, [Place("exit", 1), Place("resid_post", 1)], inputs)
    assert relative(found[Place("exit", 1)], found[Place("resid_post", 1)]) > 0.1


def test_z_through_the_output_projection(architecture: str, tiny: Any) -> None:
    model = tiny(architecture)
    if "z" not in sites_of(model):
        pytest.skip("no attention heads")
    inputs = trial_inputs(model.hf_model)
    block = model.structure.blocks[1]
    seen: list[torch.Tensor] = []
    handle = block.o_proj.register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
    try:
        run_base(model.structure.base, inputs)
    finally:
        handle.remove()
    z = catch(model, [Place("z", 1)], inputs)[Place("z", 1)]  # (batch, token, head, d_head)
    assert z.shape[2:] == (block.n_heads, block.d_head)
    weight = block.o_proj.weight.data  # (out, in), transposed in GPT-2's Conv1D
    weight = weight if type(block.o_proj).__name__ == "Conv1D" else weight.T
    bias = 0 if block.o_proj.bias is None else block.o_proj.bias.data
    expected = seen[0].reshape(*z.shape[:2], -1)
    whole = z.flatten(2) @ weight + bias
    assert relative(whole, expected) < TOLERANCE
    by_head = weight.reshape(block.n_heads, block.d_head, -1)
    summed = torch.einsum("bthd,hde->bte", z, by_head) + bias
    assert relative(summed, expected) < TOLERANCE


POST_NORM = [
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "mpnet",
    "electra",
    "deberta-v2",
    "opt-post-norm",
]


def test_parts_sum_to_the_next_layer(architecture: str, tiny: Any) -> None:
    model = tiny(architecture)
    if architecture in POST_NORM or "attn_out" not in sites_of(model):
        pytest.skip("the block is not a plain sum of stream, attention and MLP")
    found = catch(
        model, list(parse_sites(sites_of(model), model.n_layers)), trial_inputs(model.hf_model)
    )
    for b in range(model.n_layers):
        total = (
            found[Place("resid_post", b)] + found[Place("attn_out", b)] + found[Place("mlp_out", b)]
        )
        assert relative(total, found[Place("resid_post", b + 1)]) < TOLERANCE


def test_padding_does_not_matter_for_any_site(text_architecture: str, tiny: Any, zoo: Any) -> None:
    model = tiny(text_architecture)
    sites = sites_of(model)
    captured = [
        capture(model, zoo.texts(7), sites, "mean", padding_side=side, batch_tokens=tokens)
        for side, tokens in (("none", 1), ("right", 1000), ("left", 1000), ("right", 30))
    ]
    for site in sites:
        for layer in captured[0].layers(site):
            for other in captured[1:]:
                assert relative(other[site, layer], captured[0][site, layer]) < 2 * TOLERANCE


def test_the_model_and_its_inputs_are_left_as_they_were(architecture: str, tiny: Any) -> None:
    model = tiny(architecture)
    inputs = trial_inputs(model.hf_model)
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    before, hooks = model.weights_hash, hook_count(model)
    catch(model, list(parse_sites(sites_of(model), model.n_layers)), inputs)
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)
    assert model.weights_hash == before
    assert hook_count(model) == hooks


def hook_count(model: Any) -> int:
    modules = list(model.hf_model.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_hooks_are_gone_after_an_exception(error: type[BaseException], tiny: Any) -> None:
    model = tiny("gpt2")
    hooks = hook_count(model)
    runner = TorchRunner(model, parse_sites(sites_of(model), model.n_layers))

    def receive(place: Place, states: torch.Tensor) -> None:
        assert hook_count(model) > hooks  # the control: they were there
        raise error("inside the hook")

    with pytest.raises(error):
        runner(trial_inputs(model.hf_model), receive)
    assert hook_count(model) == hooks


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_the_pass_stops_after_the_deepest_layer(architecture: str, depth: int, tiny: Any) -> None:
    model = tiny(architecture)
    calls: list[int] = []
    handles = [
        block.module.register_forward_hook(lambda _m, _a, _o, i=block.index: calls.append(i))
        for block in model.structure.blocks
    ]
    tail = [m.register_forward_hook(lambda *_: calls.append(-1)) for m in model.structure.tail]
    try:
        catch(model, [Place("resid_post", depth)], trial_inputs(model.hf_model))
    finally:
        for handle in handles + tail:
            handle.remove()
    # The hook that counts comes before the one that reads, so the last block is counted too.
    assert calls == list(range(depth))


def test_the_language_model_head_never_runs(tiny: Any, zoo: Any) -> None:
    model = tiny("llama")
    calls: list[int] = []
    handle = model.structure.lm_head.register_forward_hook(lambda *_: calls.append(1))
    try:
        capture(model, zoo.texts(3), ["exit", "z", "mlp_out"])
        assert not calls
        model.hf_model(**trial_inputs(model.hf_model))
        assert calls
    finally:
        handle.remove()


def test_editing_a_site_changes_the_output_and_ends_with_the_context(
    architecture: str, tiny: Any
) -> None:
    model = tiny(architecture)
    inputs = trial_inputs(model.hf_model)
    base = model.structure.base
    before = run_base(base, inputs)
    for site in sites_of(model):
        if site == "exit":
            continue
        with edit_site(model, site, 1, lambda states: states.clone()):
            assert torch.equal(run_base(base, inputs), before)  # the identity changes nothing
        with edit_site(model, site, 1, lambda states: states.flip(-1)):
            assert relative(run_base(base, inputs), before) > 1e-3
        assert torch.equal(run_base(base, inputs), before)


def test_ablating_one_head_by_hand(tiny: Any) -> None:
    """Zeroing a head's z equals zeroing its rows of the output projection."""
    model = tiny("llama")
    inputs = trial_inputs(model.hf_model)
    block = model.structure.blocks[1]

    def edit(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, :, 2] = 0
        return z

    with edit_site(model, "z", 1, edit):
        edited = run_base(model.structure.base, inputs)
    weight = block.o_proj.weight
    kept = weight.data.clone()
    try:
        weight.data[:, 2 * block.d_head : 3 * block.d_head] = 0
        expected = run_base(model.structure.base, inputs)
    finally:
        weight.data.copy_(kept)
    assert relative(edited, expected) < TOLERANCE


def test_what_cannot_be_edited_is_refused(tiny: Any) -> None:
    model = tiny("llama")
    with pytest.raises(InputError, match="resid_post"), edit_site(model, "exit", 1, lambda s: s):
        pass
    with (
        pytest.raises(InputError, match="is needed"),
        edit_site(model, "z", 1, lambda z: z[:, :1]),
    ):
        run_base(model.structure.base, trial_inputs(model.hf_model))
    with pytest.raises(DoesNotApply), edit_site(tiny("mamba"), "z", 0, lambda z: z):
        pass
