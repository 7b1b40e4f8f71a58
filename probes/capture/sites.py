"""Sites: the places in a transformer whose states are read, and how a request names them.

Two sites lie on the residual stream and are indexed by *layer* 0…L (layer k: after k blocks); the others belong to
a *block* 0…L-1. A request is a site's name (all its layers or blocks), or a TransformerLens hook name (one of them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from probes.errors import InputError, unknown_name
from probes.registry import Registry

Axis = Literal["layer", "block"]


@dataclass(frozen=True)
class Site:
    """A kind of place. `axis` says what its index counts; `per_head` whether heads are kept apart."""

    name: str
    axis: Axis
    per_head: bool
    summary: str

    def count(self, n_layers: int) -> int:
        """How many places of this kind a model with `n_layers` blocks has.

        >>> SITES["exit"].count(6), SITES["z"].count(6)
        (7, 6)
        """
        return n_layers + 1 if self.axis == "layer" else n_layers


SITES: Registry[Site] = Registry("site")
for _site in (
    Site("resid_post", "layer", False, "the residual stream after k blocks, as it is"),
    Site("exit", "layer", False, "what the model cut after k blocks returns, final norm included"),
    Site("attn_out", "block", False, "what the block's attention adds to the residual stream"),
    Site("mlp_out", "block", False, "what the block's MLP adds to the residual stream"),
    Site("mlp_act", "block", False, "the MLP's neurons: what its last projection takes"),
    Site("z", "block", True, "each head's output before the output projection"),
):
    SITES.add(_site.name, _site)


class Place(NamedTuple):
    """One place: a site and its layer or block number; equal to the plain tuple `(site, number)`."""

    site: str
    number: int

    def __str__(self) -> str:
        return f"{self.site} at {SITES[self.site].axis} {self.number}"

    @property
    def depth(self) -> int:
        """Number of blocks that must run before this place has its value.

        >>> Place("exit", 3).depth, Place("z", 3).depth
        (3, 4)
        """
        return self.number if SITES[self.site].axis == "layer" else self.number + 1


_LENS_NAME = re.compile(r"blocks\.(\d+)\.([a-z_.]+)")
_LENS_HOOKS: dict[str, tuple[str, int]] = {
    "hook_resid_pre": ("resid_post", 0),
    "hook_resid_post": ("resid_post", 1),
    "hook_attn_out": ("attn_out", 0),
    "hook_mlp_out": ("mlp_out", 0),
    "mlp.hook_post": ("mlp_act", 0),
    "attn.hook_z": ("z", 0),
}

Layers = Iterable[int] | Mapping[str, Iterable[int]] | None


def parse_place(name: str) -> Place | None:
    """The place that a TransformerLens hook name means; None when `name` is not of that form.

    Examples:
        >>> parse_place("blocks.3.hook_resid_post")
        Place(site='resid_post', number=4)
        >>> parse_place("blocks.0.hook_resid_pre")
        Place(site='resid_post', number=0)
        >>> parse_place("exit") is None
        True
    """
    match = _LENS_NAME.fullmatch(name)
    if match is None:
        return None
    block, hook = int(match[1]), match[2]
    if hook not in _LENS_HOOKS:
        raise unknown_name(f"hook of {name!r}", hook, _LENS_HOOKS)
    site, shift = _LENS_HOOKS[hook]
    return Place(site, block + shift)


def _check_index(site: Site, index: int, n_layers: int) -> Place:
    if isinstance(index, bool) or int(index) != index:
        raise InputError(f"{site.axis} {index!r} of site {site.name!r} is no whole number")
    last = site.count(n_layers) - 1
    if not 0 <= index <= last:
        raise InputError(
            f"site {site.name!r} has no {site.axis} {index}: this model has {site.axis}s 0 to {last}"
        )
    return Place(site.name, int(index))


def _chosen(layers: int | Layers, names: Sequence[str]) -> dict[str, list[int]]:
    """The numbers asked for, by site; sites that are not in it have all of theirs."""
    if layers is None:
        return {}
    if isinstance(layers, int):
        return {name: [layers] for name in names}
    if isinstance(layers, Mapping):
        by_site = cast("Mapping[str, Iterable[int]]", layers)
        for name in by_site:
            if name not in names:
                raise unknown_name("site in layers=", name, [n for n in names if n in SITES])
        return {name: list(numbers) for name, numbers in by_site.items()}
    numbers = list(layers)  # once: an iterator must serve every site
    return {name: [*numbers] for name in names}


def parse_sites(
    sites: str | Sequence[str], n_layers: int, layers: int | Layers = None
) -> tuple[Place, ...]:
    """Every place that a request means, each once, sorted by depth.

    `layers` restricts the plain site names: layer numbers for `resid_post` and `exit`, block numbers for the others;
    a mapping `{site: numbers}` restricts each site on its own. TransformerLens names already say which one they mean.

    Raises `InputError` for unknown sites, layers that the model does not have, and empty requests.

    Examples:
        >>> parse_sites("exit", 2)
        (Place(site='exit', number=0), Place(site='exit', number=1), Place(site='exit', number=2))
        >>> parse_sites(["z", "blocks.0.hook_resid_pre"], 4, layers=[1])
        (Place(site='resid_post', number=0), Place(site='z', number=1))
        >>> parse_sites("exti", 2)
        Traceback (most recent call last):
        ...
        probes.errors.InputError: unknown site 'exti': did you mean 'exit'? Allowed: attn_out, exit, ...
    """
    names = [sites] if isinstance(sites, str) else list(sites)
    chosen = _chosen(layers, names)
    places: set[Place] = set()
    for name in names:
        named = parse_place(name)
        if named is not None:
            places.add(_check_index(SITES[named.site], named.number, n_layers))
            continue
        if name not in SITES:
            raise unknown_name(
                "site",
                name,
                SITES,
                "TransformerLens names such as 'blocks.3.hook_resid_post' work too.",
            )
        site = SITES[name]
        numbers = chosen.get(name, range(site.count(n_layers)))
        places.update(_check_index(site, number, n_layers) for number in numbers)
    if not places:
        raise InputError("no site was asked for: name at least one site and one layer")
    return tuple(sorted(places, key=lambda place: (place.depth, place.site)))
