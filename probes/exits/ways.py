"""The search space: which states are read (pooling, precision, temperature), and what is made of them.

A way is a variant by its parts; its name is the variant's: `translated`, `pool=last,whitened`, `bfloat16,translated`,
`translated=mean+sif+table`, `tau=0.9`. None is the model as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from probes.errors import InputError, unknown_name
from probes.exits.recipe import PRECISIONS
from probes.exits.translate.maps import KINDS
from probes.exits.translate.spec import TranslatorSpec

DITTO = "ditto"
POOLINGS = ("mean", "last", "first", "max", "weighted", DITTO)
INPUTS = (*(name for name in POOLINGS if name != DITTO), "sif", "table")
REMEDIES = ("centred", "whitened")
RICH = "ridge+sif+table"  # the translator that was best nearly everywhere
TABLE = "table"


@dataclass(frozen=True)
class Source:
    """Which states are read. None: as the study does it, in the pooling and the precision of the full model."""

    pooling: str | None = None
    precision: str | None = None
    tau: float = 1.0

    @property
    def words(self) -> tuple[str, ...]:
        """Its part of a variant's name."""
        pool = () if self.pooling is None else (f"pool={self.pooling}",)
        precision = () if self.precision is None else (self.precision,)
        return (*pool, *precision, *(() if self.tau == 1 else (f"tau={self.tau:g}",)))


@dataclass(frozen=True)
class Way:
    """States of `source`, then a remedy or a translator, or neither."""

    source: Source = Source()
    remedy: str | None = None
    spec: TranslatorSpec | None = None
    plain: bool = True  # the translator reads the pooled states of its source alone, by a ridge

    @property
    def name(self) -> str | None:
        """The variant's name.

        >>> Way(Source("last", "bfloat16"), "whitened").name, Way().name
        ('pool=last,bfloat16,whitened', None)
        >>> Way(spec=TranslatorSpec(("mean", "sif"), table=True), plain=False).name
        'translated=mean+sif+table'
        """
        words = list(self.source.words)
        if self.remedy is not None:
            words.append(self.remedy)
        if self.spec is not None:
            told = self.spec.name.replace(" (", "/").rstrip(")")
            words.append("translated" if self.plain else f"translated={told}")
        return ",".join(words) or None

    @property
    def reason(self) -> str | None:
        """Why sentence-transformers cannot hold it as stock modules; None where it can."""
        if self.source.pooling == DITTO:
            return "the attention of a head weighs the tokens"
        if self.source.precision == "int8":
            return "int8 needs the kernels of bitsandbytes"
        if self.spec is None or self.is_static:
            return None
        return self.spec.reason()

    @property
    def is_exportable(self) -> bool:
        """Whether stock modules of sentence-transformers hold it."""
        return self.reason is None and self.source.tau == 1 and self.remedy in (None, *REMEDIES)

    @property
    def is_static(self) -> bool:
        """Whether no transformer is run at all: a stock static embedding."""
        spec = self.spec
        return spec is not None and spec.table and not spec.poolings

    @property
    def timed_as(self) -> tuple[str | None, str] | None:
        """What decides its time beside the layer: precision, and what is read. None: that of the raw states.

        Linear maps of pooled states take no time that could be seen.
        """
        reads, spec = DITTO if self.source.pooling == DITTO else "states", self.spec
        if spec is not None and (spec.table or len(spec.poolings) > 1 or spec.reach == "all"):
            reads = spec.name
        place = (self.source.precision, reads)
        return None if place == (None, "states") else place


@dataclass(frozen=True)
class SearchSpace:
    """What is tried beside the model as it is: each way is one more chain of candidates, and all share the risk.

    Attributes:
        poolings: beside the study's own, of `POOLINGS`.
        remedies: of `REMEDIES`; needless for classification, whose probe standardises.
        precisions: beside that of the model, of float32, bfloat16, int8 (with bitsandbytes).
        translators: as `parse_spec` reads them; None: `ridge` and, where its table is quickly made, the richest.
        allow_code: let what needs a file of its own to be exported be chosen; else it is measured only.
        peers: measure translators beside each other, raw, model2vec and the full model (table `translators`).
    """

    poolings: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ("centred",)
    precisions: tuple[str, ...] = ()
    translators: tuple[str, ...] | None = None
    allow_code: bool = False
    peers: bool = True

    def __post_init__(self) -> None:
        for what, given, allowed in (
            ("pooling", self.poolings, POOLINGS),
            ("remedy", self.remedies, REMEDIES),
            ("precision", self.precisions, PRECISIONS),
        ):
            for name in given:
                if name not in allowed:
                    raise unknown_name(what, name, allowed)
        for text in self.translators or ():
            parse_spec(text, "mean")

    def ways(self, specs: Sequence[TranslatorSpec], own: str, remedies: bool = True) -> list[Way]:
        """Every way, the model as it is first. `own` is the study's pooling, left out of `poolings`.

        A translator of the own pooling alone is fitted to every other pooling too; the others once per precision.
        """
        found: list[Way] = []
        others = [name for name in dict.fromkeys(self.poolings) if name != own]
        for precision in (None, *dict.fromkeys(self.precisions)):
            for pooling in (None, *others):
                if pooling == DITTO and precision is not None:
                    continue
                source = Source(pooling, precision)
                found.append(Way(source))
                found += [Way(source, remedy) for remedy in self.remedies if remedies]
                for spec in specs:
                    if spec.poolings == (own,) and not spec.table and spec.reach == "one":
                        reads = replace(spec, poolings=(pooling or own,))
                        found.append(Way(source, spec=reads, plain=spec.map == "ridge"))
            for spec in specs:
                if spec.poolings != (own,) or spec.table or spec.reach == "all":
                    way = Way(Source(None, precision), spec=spec, plain=False)
                    if precision is None or not way.is_static:
                        found.append(way)
        return found


def parse_spec(text: str, own: str) -> TranslatorSpec:
    """A translator as it is written: what it reads, joined by +, and its map after a slash (ridge).

    `ridge` (or another map, written alone) stands for the pooling of the study, `own`; `0..k:` before it reads every
    layer up to the exit.

    >>> parse_spec("ridge+sif+table", "mean").name, parse_spec("orthogonal", "last").name
    ('mean+sif+table', 'last (orthogonal)')
    >>> parse_spec("0..k:mean/reduced-rank", "mean").name
    '0..k:mean (reduced-rank)'
    """
    body, slash, kind = text.strip().partition("/")
    reach = "all" if body.startswith("0..k:") else "one"
    parts = body.removeprefix("0..k:").split("+")
    if parts[0] in KINDS and (parts[0] == "ridge" or len(parts) == 1) and not slash:
        kind = parts[0]
        parts[0] = own
    allowed = (*KINDS, *INPUTS)
    for part in parts:
        if part not in INPUTS:
            raise unknown_name("translator", part, allowed)
    if (kind or "ridge") not in KINDS:
        raise unknown_name("map", kind, KINDS)
    if parts == [TABLE] and reach == "all":
        raise InputError(f"translator {text!r}: the table belongs to no layer, leave 0..k: away")
    poolings = tuple(part for part in dict.fromkeys(parts) if part != TABLE)
    return TranslatorSpec(
        poolings, cast("Any", reach), TABLE in parts, cast("Any", kind or "ridge")
    )
