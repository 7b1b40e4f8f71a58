"""Some of the rows of others, such as those of the texts that an autoencoder is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probes.errors import EstimatorInputError
from probes.sae.data import Rows


class SelectedRows:
    """The rows `numbers` of `rows`, in that order, without a copy.

    Raises `EstimatorInputError` for no rows at all and for numbers that `rows` does not have.

    >>> from probes.sae import ArrayRows
    >>> picked = SelectedRows(ArrayRows(np.arange(6.0).reshape(3, 2)), np.array([2, 0]))
    >>> picked.take(np.array([0, 1])).tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """

    def __init__(self, rows: Rows, numbers: Any) -> None:
        self._rows = rows
        self.numbers = np.asarray(numbers, np.int64)
        if not len(self.numbers):
            raise EstimatorInputError("no rows were selected: at least one is needed")
        if self.numbers.min() < 0 or self.numbers.max() >= rows.n:
            raise EstimatorInputError(f"rows 0 to {rows.n - 1} can be selected")
        self.n, self.d, self.in_memory = len(self.numbers), rows.d, rows.in_memory

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        return self._rows.take(self.numbers[rows])
