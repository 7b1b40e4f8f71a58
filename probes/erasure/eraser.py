"""A frozen eraser: the low-rank affine map that a fitter leaves behind, for arrays, tensors and live models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, InputError
from probes.files import replace_file
from probes.linalg import check_matrix

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.floating[Any]]
States = TypeVar("States", FloatArray, "Tensor")

METHODS = ("leace", "inlp", "random")
_FORMAT = "fathometer eraser 1"


@dataclass(frozen=True, eq=False)
class Eraser:
    """x ↦ x − L R (x − m): removes what R reads about the mean m, and nothing else.

    R L is the identity of the rank, so the map is a projection: applying it twice changes nothing. The mean stays
    where it was, since a model expects it there. INLP's and random orthogonal erasers have L = Rᵀ.

    Attributes
    ----------
    left (d, r), right (r, d), mean (d,) : float64. method : "leace", "inlp" or "random".
    history : of INLP, the hold-out accuracy before each round; empty for the others.

    See also `LeaceFitter`, `fit_leace`, `fit_inlp`, `random_eraser`, and `erase` for live models.

    >>> axis = np.array([[1.0, 0.0]])
    >>> eraser = Eraser(axis.T, axis, np.array([5.0, 5.0]), "random")
    >>> eraser(np.array([[9.0, 7.0]])).tolist(), eraser.rank, eraser.d
    ([[5.0, 7.0]], 1, 2)
    """

    left: FloatArray
    right: FloatArray
    mean: FloatArray
    method: str
    history: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        d, rank = self.left.shape if self.left.ndim == 2 else (0, 0)
        if self.left.ndim != 2 or self.right.shape != (rank, d) or self.mean.shape != (d,):
            raise InputError(
                f"an eraser of shapes {self.left.shape}, {self.right.shape} and {self.mean.shape}: "
                "left (d, r), right (r, d) and mean (d,) are needed"
            )
        for name in ("left", "right", "mean"):
            part = getattr(self, name)
            if part.dtype != np.float64 or not np.isfinite(part).all():
                raise InputError(f"{name} of an eraser must be finite float64, {part.dtype} came")

    @property
    def d(self) -> int:
        """Width of the states it acts on."""
        return self.left.shape[0]

    @property
    def rank(self) -> int:
        """Number of dimensions it removes."""
        return self.left.shape[1]

    def __call__(self, X: States) -> States:
        """States (…, d), an array or a tensor, without the concept; same type, precision and device, a new object.

        Computed in float64, because R divides by small standard deviations.
        """
        if X.shape[-1:] != (self.d,):
            raise InputError(
                f"states of shape {tuple(X.shape)} came, this eraser acts on (…, {self.d})"
            )
        if isinstance(X, np.ndarray):
            wide = X.astype(np.float64)
            cleaned = wide - ((wide - self.mean) @ self.right.T) @ self.left.T
            return cleaned.astype(X.dtype if X.dtype.kind == "f" else np.float64)
        return self.on(X.device)(X)

    def on(self, device: Any) -> Callable[[Tensor], Tensor]:
        """The same map for tensors of one device, its matrices moved there once."""
        import torch

        # Apple's accelerator has no float64
        precision = torch.float32 if torch.device(device).type == "mps" else torch.float64
        left, right, mean = (
            torch.from_numpy(part).to(device=device, dtype=precision)
            for part in (self.left, self.right, self.mean)
        )

        def apply(X: Tensor) -> Tensor:
            wide = X.to(precision)
            return (wide - ((wide - mean) @ right.T) @ left.T).to(X.dtype)

        return apply

    def save(self, path: str | Path) -> None:
        """Replace `path` atomically with a safetensors file."""
        from safetensors.numpy import save

        parts = {"left": self.left, "right": self.right, "mean": self.mean}
        parts["history"] = np.asarray(self.history, dtype=np.float64)
        tensors = {name: np.ascontiguousarray(part) for name, part in parts.items()}
        data = save(tensors, metadata={"format": _FORMAT, "method": self.method})
        replace_file(Path(path), lambda handle: handle.write(data), size=len(data))

    @classmethod
    def load(cls, path: str | Path) -> Eraser:
        """An eraser that `save` wrote; `DataError` for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="np") as file:
                found = file.metadata() or {}
                if found.get("format") != _FORMAT:
                    raise DataError(f"{path} holds no eraser: one that Eraser.save wrote is needed")
                parts = {name: file.get_tensor(name) for name in ("left", "right", "mean")}
                history = tuple(float(value) for value in file.get_tensor("history"))
            return cls(**parts, method=found["method"], history=history)
        except (OSError, SafetensorError, KeyError, InputError) as error:
            raise DataError(f"{path} cannot be read as an eraser: {error}") from error


def random_eraser(d: int, rank: int, seed: int = 0, *, mean: FloatArray | None = None) -> Eraser:
    """The control: removes `rank` random orthonormal directions about `mean` (zero by default).

    For LEACE, whose projection is oblique, `LeaceFitter.random_eraser` is the control of the same kind.

    >>> eraser = random_eraser(8, 2, seed=0)
    >>> bool(np.allclose(eraser.right @ eraser.right.T, np.eye(2)))
    True
    """
    check_rank(rank, d)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, rank)))[0]
    centre = np.zeros(d) if mean is None else np.asarray(mean, dtype=np.float64)
    return Eraser(basis, basis.T.copy(), centre, "random")


def check_rank(rank: int, most: int) -> None:
    """`InputError` unless 0 ≤ rank ≤ most."""
    if not 0 <= rank <= most:
        raise InputError(f"rank {rank}: 0 to {most} dimensions can be erased here")


class _Erased(Mapping[int, FloatArray]):
    def __init__(self, states: Mapping[int, Any], erasers: Mapping[int, Eraser]) -> None:
        self._states = states
        self._erasers = erasers

    def __getitem__(self, layer: int) -> FloatArray:
        eraser = self._erasers[layer]
        return eraser(check_matrix(self._states[layer], f"layer {layer}"))

    def __iter__(self) -> Iterator[int]:
        return iter(self._erasers)

    def __len__(self) -> int:
        return len(self._erasers)


def erased(states: Mapping[int, Any], erasers: Mapping[int, Eraser]) -> Mapping[int, FloatArray]:
    """Stored states without a concept: layer -> (n, d), for exactly the layers that have an eraser.

    Lazy: a look-up reads one layer and keeps nothing, so `sweep(probe, erased(acts["exit"], erasers), labels)` needs
    the memory of one layer. Raises `InputError` for a layer that `states` does not have.

    >>> cleaned = erased({0: np.eye(3), 1: np.eye(3)}, {1: random_eraser(3, 3)})
    >>> list(cleaned), np.abs(cleaned[1]).max() < 1e-9
    ([1], np.True_)
    """
    missing = sorted(set(erasers) - set(states))
    if missing:
        raise InputError(
            f"layer {missing[0]} has an eraser but no states: states hold layers {sorted(states)}"
        )
    return _Erased(states, dict(erasers))
