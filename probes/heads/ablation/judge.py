"""What a model is asked while heads are ablated: numbers per item, of any measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from probes.models import Model

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Read = Callable[["Model", IntArray], Mapping[str, Any]]


@dataclass(frozen=True)
class Judge:
    """`read(model, items)` answers for the items with these numbers (m,) a dict of measure -> (m,) finite values.

    `n` is the number of items. `groups` (n,) says which items belong together and count as one draw in intervals,
    such as those about one needle. The model is asked as it is then, with whatever edit is in force; the same measures
    must come back each time.

    >>> judge = Judge(3, lambda model, items: {"accuracy": items * 0.5})
    >>> judge(None, np.array([2, 0]))["accuracy"].tolist()
    [1.0, 0.0]
    """

    n: int
    read: Read
    groups: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"{self.n} items to judge by: at least one is needed")
        if self.groups is not None and np.shape(self.groups) != (self.n,):
            raise InputError(f"groups have shape {np.shape(self.groups)}, ({self.n},) is needed")

    @property
    def owners(self) -> IntArray:
        """(n,) group number of each item; each its own without groups."""
        if self.groups is None:
            return np.arange(self.n)
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    def __call__(self, model: Any, items: IntArray | None = None) -> dict[str, Array]:
        """Measure -> (m,) for `items` (m,), all when None."""
        asked = np.arange(self.n) if items is None else np.asarray(items, np.int64)
        found = {name: np.asarray(v, np.float64) for name, v in self.read(model, asked).items()}
        if not found:
            raise InputError("the judge answered no measure")
        for name, values in found.items():
            if values.shape != asked.shape:
                raise InputError(
                    f"the judge answered {values.shape} for {name!r}, {asked.shape} is needed: one value per item"
                )
            if not np.isfinite(values).all():
                raise NonFiniteError(
                    f"{name!r} of item {asked[~np.isfinite(values)][0]} is not finite"
                )
        return found
