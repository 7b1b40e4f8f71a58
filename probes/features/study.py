"""The whole study of autoencoders, part after part; what does not apply leaves its reason, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.errors import DoesNotApply, InputError
from probes.features.material import Material, gather, text_length
from probes.features.names import PARTS
from probes.features.plan import SaePlan
from probes.runs import Keep, Previous, Progress, do_parts
from probes.sae.estimator import SparseAutoencoder
from probes.tables import tidy, typed

if TYPE_CHECKING:
    from probes.models import Model

TABLES = {
    "train": ("sae_models", "sae_history", "sae_density"),
    "features": ("sae_features", "sae_examples"),
    "concepts": ("sae_concepts", "sae_probing", "sae_feature_concepts"),
    "effects": ("sae_effects",),
    "circuits": ("sae_circuits", "sae_circuit_heads"),
    "csr": ("csr",),
}
MEASURES_OF = {
    "train": ("explained_variance", "fvu", "l0", "dead_share", "norm_ratio"),
    "loss": ("cross_entropy", "loss_recovered"),
    "circuits": ("circuit_auc",),
}
_INTEGERS = (
    "layer", "block", "head", "k", "n_features", "steps", "step", "tokens", "features", "feature", "nearest", "shown",
    "rank", "text", "peak", "n", "seed", "active", "width", "csr_k", "seeds",
)  # fmt: skip
_WORDS = (
    "sae", "site", "variant", "folder", "coder", "up_tokens", "down_tokens", "dataset", "concept", "why", "quantile",
    "tokens_json", "values", "measure", "mode", "task", "method", "level", "comparison", "part", "reason",
)  # fmt: skip
_TRUTHS = ("main", "dead", "applies", "in_circuit")
_JSON = {"sae_examples": ("tokens",)}  # columns that hold text in this table and numbers in others


@dataclass(frozen=True)
class Place:
    """One autoencoder of the study: where it reads, how sparse it is, and its name."""

    site: str
    number: int  # layer, or block for the sites of a block
    k: int
    variant: str
    main: bool  # the one of its layer whose features are looked at

    @property
    def name(self) -> str:
        """Its name in tables.

        >>> Place("resid_post", 15, 32, "topk", True).name
        'L15 topk k=32'
        """
        return f"{self.letter}{self.number} {self.variant} k={self.k}"

    @property
    def letter(self) -> str:
        return "L" if self.by_layer else "B"

    @property
    def by_layer(self) -> bool:
        return self.site in ("resid_post", "exit")

    @property
    def folder(self) -> str:
        """Where it is kept, relative to the run.

        >>> Place("mlp_out", 3, 8, "topk", True).folder
        'sae/B3-topk-k8'
        """
        return f"sae/{self.slug}"

    @property
    def slug(self) -> str:
        """Its name where only plain characters are allowed."""
        return self.name.replace(" ", "-").replace("=", "")

    @property
    def where(self) -> dict[str, Any]:
        return {"site": self.site, ("layer" if self.by_layer else "block"): self.number}


@dataclass
class Study:
    """A study under way: what it works on, and what later parts need of earlier ones."""

    model: Model
    texts: Sequence[str]
    plan: SaePlan
    keep: Keep
    progress: Progress
    tables: dict[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])
    saes: dict[Place, SparseAutoencoder] = field(default_factory=dict[Place, SparseAutoencoder])

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Layers, or blocks, that are read."""
        plan, deepest = self.plan.training, self.model.n_layers
        by_layer = plan.site in ("resid_post", "exit")
        last = deepest if by_layer else deepest - 1
        if plan.layers is None:
            return (deepest // 2,)
        beyond = [n for n in plan.layers if n > last]
        if beyond:
            what = "layers" if by_layer else "blocks"
            raise InputError(f"--layers {beyond[0]}: {self.model.name} has {what} 0 to {last}")
        return plan.layers

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every autoencoder of the plan. The main one of a layer is that of the middle sparsity."""
        plan = self.plan.training
        ks = sorted(plan.ks)
        main = ks[len(ks) // 2]
        return tuple(
            Place(plan.site, number, k, plan.variant, k == main)
            for number in self.numbers
            for k in ks
        )

    @cached_property
    def material(self) -> Material:
        """Token states of the texts, captured once and kept in the cache."""
        return gather(self.model, self.texts, self.numbers, self.plan, self.report("reading texts"))

    @property
    def length(self) -> int:
        """Tokens of a text that are read."""
        return text_length(self.model, self.plan)

    @property
    def main(self) -> dict[Place, SparseAutoencoder]:
        """The autoencoders that are looked at; `DoesNotApply` where none was trained."""
        found = {place: sae for place, sae in self.saes.items() if place.main}
        if not found:
            raise DoesNotApply("no autoencoder was trained: the part train is needed")
        return found

    def add(self, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> None:
        """Tidy rows, from dictionaries or from a table that is tidy already."""
        frame = rows if isinstance(rows, pd.DataFrame) else tidy([dict(row) for row in rows])
        if len(frame):
            self.keep.add(frame)

    def write(self, name: str, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> None:
        """Write a table down: missing numbers are null, and NaN is refused."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), dtype=object)
        text = _JSON.get(name, ())
        made = typed(
            frame,
            integers=[n for n in _INTEGERS if n not in text],
            words=(*_WORDS, *text),
            truths=_TRUTHS,
        )
        self.tables[name] = made
        self.keep.write_table(name, made)

    def tell(self, notes: Iterable[str]) -> None:
        """Write down what a reader must know."""
        for note in dict.fromkeys(notes):
            self.keep.note(note)

    def report(self, text: str) -> Callable[[int, int], None]:
        """A function (done, total) that says how far a part is."""
        return lambda done, total: self.progress(done, total, text)


def study_autoencoders(
    model: Model,
    texts: Sequence[str],
    plan: SaePlan,
    keep: Keep,
    progress: Progress = lambda done, total, text: None,
    *,
    previous: Previous | None = None,
) -> Study:
    """Train autoencoders on token states of `texts`, measure them beside baselines, and read their features.

    All that is found goes to `keep`, trained autoencoders to the plan's folder in SAELens format. A part that does not
    apply (no language-model head, no retrieval data) leaves its reason in the table `applies`. What `previous` holds
    is taken over.
    """
    from probes.features.parts import PART_FUNCTIONS
    from probes.features.training import fit, forget_training

    study = Study(model, texts, plan, keep, progress)
    done: dict[str, dict[str, Any]] = {}
    if previous is not None:
        done = previous.done
        if done.get("train", {}).get("applies"):
            fit(study)
        study.tables.update(previous.tables)
        rows = previous.rows_of(name for part in done for name in MEASURES_OF.get(part, ()))
        if len(rows):
            keep.add(rows)
    do_parts(
        [name for name in PARTS if name in plan.parts],
        done,
        lambda name: PART_FUNCTIONS[name](study),
        lambda outcomes: study.write("applies", outcomes),
        progress,
    )
    forget_training(study)
    return study
