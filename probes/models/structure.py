"""Where the parts of a transformer are: what finding gives and every other part reads.

Words as in the design: layer k is the residual stream after k blocks, a block is 0-based, and a site
is where something is read. `resid_post` and `exit` belong to layers, `attn_out`, `mlp_out`, `mlp_act` and `z` to
blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from probes.errors import DoesNotApply, InputError, unknown_name

BLOCK_SITES: tuple[str, ...] = ("attn_out", "mlp_out", "mlp_act", "z")
READ_AT_INPUT = frozenset(
    {"mlp_act", "z"}
)  # of these the module's input is the site, of others its output


@dataclass(frozen=True)
class Heads:
    """Attention heads of one block: the input of `o_proj` is (batch, token, n·width), head-major."""

    n: int
    n_kv: int  # fewer than n for grouped queries
    width: int  # d_head


@dataclass(frozen=True)
class Block:
    """One block. `modules` are those of its sites; `missing` says for each site without a module why it has none."""

    index: int
    path: str
    module: nn.Module
    modules: Mapping[str, nn.Module] = field(default_factory=dict[str, nn.Module])
    heads: Heads | None = None
    missing: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def o_proj(self) -> nn.Module | None:
        """The attention's output projection: its *input* is z."""
        return self.modules.get("z")

    @property
    def attn_out(self) -> nn.Module | None:
        """The module whose output is what attention adds to the residual stream."""
        return self.modules.get("attn_out")

    @property
    def mlp_out(self) -> nn.Module | None:
        """The module whose output is what the MLP adds to the residual stream."""
        return self.modules.get("mlp_out")

    @property
    def down_proj(self) -> nn.Module | None:
        """The MLP's last projection: its *input* is mlp_act, the neurons."""
        return self.modules.get("mlp_act")

    @property
    def n_heads(self) -> int | None:
        return self.heads.n if self.heads else None

    @property
    def n_kv_heads(self) -> int | None:
        return self.heads.n_kv if self.heads else None

    @property
    def d_head(self) -> int | None:
        return self.heads.width if self.heads else None


@dataclass(frozen=True)
class Structure:
    """What was found. `base` is the backbone without a language-model head: it is what capture runs.

    `hidden_place` says which argument of a block is the residual stream (position or keyword).
    `tail` are the modules between the last block and `last_hidden_state` (the final norm, mostly).
    """

    base: nn.Module
    blocks: tuple[Block, ...]
    tail: tuple[nn.Module, ...]
    lm_head: nn.Module | None
    hidden_place: int | str
    d_model: int
    is_causal: bool

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    def block(self, index: int) -> Block:
        """Block `index`; an error for a number outside 0…L-1."""
        if not 0 <= index < len(self.blocks):
            raise InputError(
                f"block {index} does not exist: 0 to {len(self.blocks) - 1} are allowed"
            )
        return self.blocks[index]

    def module_for(self, site: str, index: int) -> nn.Module:
        """The module to hook for a block site: its output is `attn_out` or `mlp_out`, its input `mlp_act` or `z`.

        Raises `DoesNotApply` with the reason where the block has no such place.
        """
        if site not in BLOCK_SITES:
            raise unknown_name("block site", site, BLOCK_SITES)
        block = self.block(index)
        module = block.modules.get(site)
        if module is None or (site == "z" and block.heads is None):
            raise DoesNotApply(f"site {site!r} of block {index}: {self.why_missing(site, index)}")
        return module

    def why_missing(self, site: str, index: int) -> str | None:
        """Why a block site has no module; None where it has one."""
        return self.block(index).missing.get(site)

    def read_hidden(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The residual stream (batch, token, d_model) among the arguments of a block call."""
        place = self.hidden_place
        return cast("Tensor", args[place] if isinstance(place, int) else kwargs[place])

    def replace_hidden(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], new: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a block call with another residual stream; the given ones are not edited."""
        place = self.hidden_place
        if isinstance(place, int):
            return (*args[:place], new, *args[place + 1 :]), dict(kwargs)
        return args, {**kwargs, place: new}

    def apply_tail(self, hidden: Tensor) -> Tensor:
        """`resid_post` (batch, token, d_model) → `exit`: what a model cut here would return."""
        for module in self.tail:
            hidden = module(hidden)
        return hidden
