"""Requests: what each name means, and that anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.capture.sites import SITES, Place, parse_place, parse_sites
from probes.errors import InputError


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.3.hook_resid_post", ("resid_post", 4)),
        ("blocks.0.hook_resid_pre", ("resid_post", 0)),
        ("blocks.5.hook_resid_pre", ("resid_post", 5)),
        ("blocks.2.hook_attn_out", ("attn_out", 2)),
        ("blocks.2.hook_mlp_out", ("mlp_out", 2)),
        ("blocks.2.mlp.hook_post", ("mlp_act", 2)),
        ("blocks.11.attn.hook_z", ("z", 11)),
    ],
)
def test_transformer_lens_names(name: str, place: tuple[str, int]) -> None:
    assert parse_place(name) == place
    assert parse_sites(name, 12) == (place,)


def test_post_of_a_block_is_pre_of_the_next() -> None:
    for block in range(4):
        assert parse_place(f"blocks.{block}.hook_resid_post") == parse_place(
            f"blocks.{block + 1}.hook_resid_pre"
        )


@given(n_layers=st.integers(1, 40), names=st.sets(st.sampled_from(sorted(SITES)), min_size=1))
def test_plain_names_mean_every_layer_or_block_once(n_layers: int, names: set[str]) -> None:
    places = parse_sites(sorted(names), n_layers)
    assert len(set(places)) == len(places) == sum(SITES[n].count(n_layers) for n in names)
    assert [p.depth for p in places] == sorted(p.depth for p in places)
    assert max(p.depth for p in places) == n_layers


@given(st.text(max_size=40))
def test_any_other_text_is_refused_or_parsed(name: str) -> None:
    try:
        places = parse_sites(name, 3)
    except InputError:
        return
    assert places


def test_layers_restrict_each_site_by_its_own_count() -> None:
    assert parse_sites(["exit", "z"], 4, layers=iter([1, 2])) == (
        ("exit", 1),
        ("exit", 2),
        ("z", 1),
        ("z", 2),
    )
    assert parse_sites(["exit", "z"], 4, layers={"exit": [4]})[-2:] == (("exit", 4), ("z", 3))
    assert parse_sites("exit", 4, layers=2) == (("exit", 2),)


@pytest.mark.parametrize(
    ("sites", "layers", "words"),
    [
        ("exit", [5], "layers 0 to 4"),
        ("z", [4], "blocks 0 to 3"),
        ("exit", [-1], "layers 0 to 4"),
        ("exit", [1.5], "whole number"),
        ("exit", [True], "whole number"),
        ("exit", [], "no site"),
        ([], None, "no site"),
        ("resid_pots", None, "resid_post"),
        ("blocks.4.hook_mlp_out", None, "blocks 0 to 3"),
        ("blocks.0.hook_resid_mid", None, "hook_resid_pre"),
        ("exit", {"z": [0]}, "layers="),
    ],
)
def test_what_does_not_exist_is_refused(sites: object, layers: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_sites(sites, 4, layers)  # type: ignore[arg-type]


def test_a_place_is_a_plain_tuple() -> None:
    assert Place("exit", 3) == ("exit", 3)
    assert {("exit", 3): 1}[Place("exit", 3)] == 1
    assert str(Place("z", 3)) == "z at block 3"
