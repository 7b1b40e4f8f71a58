"""What the rows of a layerwise study repeat, and the layers that several sets of states share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.errors import DataError, InputError
from probes.linalg import check_matrix
from probes.probing.base import FloatArray
from probes.probing.layerwise import RESIDUAL_SITES
from probes.stats import Estimate

States = Mapping[int, Any]


@dataclass(frozen=True)
class Place:
    """Where the numbers of a table come from."""

    site: str = "exit"
    dataset: str | None = None
    concept: str | None = None
    pooling: str | None = None
    split: str | None = None

    def row(
        self, measure: str, layer: int | None, variant: str | None, estimate: Estimate
    ) -> dict[str, Any]:
        """A tidy row.

        >>> row = Place(concept="truth").row("accuracy", 3, None, Estimate(0.9, 0.8, 1.0, 50, 0))
        >>> row["layer"], row["concept"], row["value"]
        (3, 'truth', 0.9)
        """
        where = "layer" if self.site in RESIDUAL_SITES else "block"
        return {
            "measure": measure,
            "site": self.site,
            "dataset": self.dataset,
            "concept": self.concept,
            "pooling": self.pooling,
            "split": self.split,
            where: layer,
            "variant": variant,
            **estimate.row(),
        }


def shared_layers(states: Mapping[str, States], layers: Sequence[int] | None = None) -> list[int]:
    """The layers of all sets of states, ascending; `layers` picks some.

    Raises `InputError` for no states, for sets with different layers, or for a layer that is not there.

    >>> shared_layers({"a": {1: None, 0: None}, "b": {0: None, 1: None}})
    [0, 1]
    """
    found: list[int] | None = None
    first = ""
    for name, own in states.items():
        if not isinstance(own, Mapping) or not len(own):
            raise InputError(f"states of {name!r} must map layer numbers to (n, d) arrays")
        here = sorted(int(layer) for layer in own)
        if found is None:
            found, first = here, name
        elif layers is None and here != found:
            raise InputError(
                f"states of {first!r} hold the layers {found}, those of {name!r} {here}: "
                "give layers=[…] that all hold"
            )
        lacking = sorted(set(layers or ()) - set(here))
        if lacking:
            raise InputError(f"states of {name!r} hold no layer {lacking[0]}. Allowed: {here}")
    if found is None:
        raise InputError("no states: at least one set is needed")
    return found if layers is None else sorted({int(layer) for layer in layers})


def read_layer(states: States, layer: int, name: str, rows: int) -> FloatArray:
    """One layer's finite states (rows, d); errors name the set and the layer."""
    X = check_matrix(states[layer], f"layer {layer} of {name}")
    if len(X) != rows:
        raise DataError(f"layer {layer} of {name} has {len(X)} rows, {rows} are needed")
    return X
