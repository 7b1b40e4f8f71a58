"""How an embedding is made of a pooled state: what is exported and verified, kept beside the decision.

A recipe needs neither the data nor a second fit. It is kept as safetensors and JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from probes.errors import FathometerError, InputError
from probes.files import replace_file, write_json
from probes.linalg import normalise_rows

if TYPE_CHECKING:
    from probes.exits.translate.vocabulary import StaticTable

Array = NDArray[np.floating[Any]]
PRECISIONS = ("float32", "bfloat16", "int8")
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Linear:
    """x ↦ x · weight + bias, weight (d_in, d_out), bias (d_out,)."""

    weight: Array
    bias: Array

    def __call__(self, X: Array) -> Array:
        return X @ self.weight + self.bias


@dataclass(frozen=True)
class Normalise:
    """Every row to unit length."""

    def __call__(self, X: Array) -> Array:
        return normalise_rows(X)


@dataclass(frozen=True)
class Truncate:
    """The first `dim` coordinates."""

    dim: int

    def __call__(self, X: Array) -> Array:
        return X[:, : self.dim]


Step = Linear | Normalise | Truncate


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier on the embedding: scores x · weight + bias, weight (dim, classes), and the classes' names."""

    weight: Array
    bias: Array
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a text becomes the embedding of a candidate.

    Attributes:
        layer: blocks kept; the state is that of the site `exit`.
        pooling: how its tokens become one vector.
        steps: applied in order to the pooled states (n, d), after nothing else: the maker's head is among them.
        precision: of the model's arithmetic, one of `PRECISIONS`.
        temperature: by which attention logits are divided.
        probe: the classifier on top, for classification.
        table: vectors and weights of the vocabulary, where `pooling` names `sif` or `table`: mean+sif+table lays the
            mean of the states, their mean weighted by rarity and the bag of the table side by side.
        reason: why stock modules of sentence-transformers cannot express it; None where they can.

    >>> recipe = Recipe(3, "mean", (Truncate(2), Normalise()))
    >>> recipe(np.array([[3.0, 4.0, 9.0]])).tolist(), recipe.exportable
    ([[0.6, 0.8]], True)
    """

    layer: int
    pooling: str
    steps: tuple[Step, ...] = ()
    precision: str = "float32"
    temperature: float = 1.0
    probe: Probe | None = None
    reason: str | None = None
    table: StaticTable | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r}: {', '.join(PRECISIONS)} are allowed")

    @property
    def exportable(self) -> bool:
        """Whether stock modules of sentence-transformers can express it."""
        return self.reason is None

    def __call__(self, pooled: Array) -> Array:
        """Embeddings (n, dim) of pooled states (n, d), or of what `pooling` lays side by side."""
        rows: Array = np.asarray(pooled, np.float64)
        for step in self.steps:
            rows = step(rows)
        return rows


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write `path`.json and, where there are weights, `path`.safetensors; a table once for all recipes beside it."""
    from safetensors.numpy import save

    tensors: dict[str, Array] = {}
    steps: list[dict[str, Any]] = []
    for place, step in enumerate(recipe.steps):
        if isinstance(step, Linear):
            tensors[f"steps.{place}.weight"] = step.weight
            tensors[f"steps.{place}.bias"] = step.bias
            steps.append({"kind": "linear"})
        elif isinstance(step, Truncate):
            steps.append({"kind": "truncate", "dim": step.dim})
        else:
            steps.append({"kind": "normalise"})
    if recipe.probe is not None:
        tensors |= {"probe.weight": recipe.probe.weight, "probe.bias": recipe.probe.bias}
    dense = {name: np.ascontiguousarray(t, np.float32) for name, t in tensors.items()}
    weights = Path(f"{path}.safetensors")
    if dense:
        replace_file(weights, lambda handle: handle.write(save(dense)))
    write_json(
        Path(f"{path}.json"),
        {
            "format": FORMAT,
            "layer": recipe.layer,
            "pooling": recipe.pooling,
            "steps": steps,
            "precision": recipe.precision,
            "temperature": recipe.temperature,
            "labels": None if recipe.probe is None else list(recipe.probe.labels),
            "reason": recipe.reason,
            "weights": bool(dense),
            "table": None if recipe.table is None else _save_table(recipe.table, path.parent),
        },
    )


def load_recipe(path: Path) -> Recipe:
    """The recipe that `save_recipe` kept at `path`; `FathometerError` where there is none or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        told = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise FathometerError(f"{path}.json holds no recipe of this version")
        tensors = load_file(f"{path}.safetensors") if told["weights"] else {}
        steps = [_step(place, step, tensors) for place, step in enumerate(told["steps"])]
        probe = None
        if told["labels"] is not None:
            names = tuple(map(str, told["labels"]))
            probe = Probe(tensors["probe.weight"], tensors["probe.bias"], names)
        return Recipe(
            int(told["layer"]), str(told["pooling"]), tuple(steps), str(told["precision"]),
            float(told["temperature"]), probe, cast("str | None", told["reason"]),
            _load_table(path.parent, told.get("table")),
        )  # fmt: skip
    except (KeyError, TypeError, OSError, SafetensorError, ValueError) as error:
        raise FathometerError(f"the recipe {path} is damaged: {error}") from error


def _save_table(table: StaticTable, folder: Path) -> str:
    """Write the table into `folder` unless it lies there already; the name of its file."""
    from safetensors.numpy import save

    parts = {"rows": table.rows, "weights": table.weights}
    data = save({name: np.ascontiguousarray(t, np.float32) for name, t in parts.items()})
    name = f"table-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    if not (folder / name).exists():
        replace_file(folder / name, lambda handle: handle.write(data))
    return name


def _load_table(folder: Path, name: str | None) -> StaticTable | None:
    from safetensors.numpy import load_file

    from probes.exits.translate.vocabulary import StaticTable

    if name is None:
        return None
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no file beside it")
    kept = load_file(folder / name)
    return StaticTable(kept["rows"], kept["weights"])


def _step(place: int, told: dict[str, Any], tensors: dict[str, Any]) -> Step:
    kind = told["kind"]
    if kind == "linear":
        return Linear(tensors[f"steps.{place}.weight"], tensors[f"steps.{place}.bias"])
    if kind == "truncate":
        return Truncate(int(told["dim"]))
    if kind == "normalise":
        return Normalise()
    raise ValueError(f"step {kind!r} is unknown")
