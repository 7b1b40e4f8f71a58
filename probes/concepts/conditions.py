"""Conditions under which a concept is measured again: noise in the text, coarser weights, a template, other pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from probes.concepts.tasks import Reading
from probes.errors import InputError, unknown_name

if TYPE_CHECKING:
    from probes.models import Model

NOISES = ("prepend", "swap", "shuffle")
WEIGHTS = ("int8", "int4")
DTYPES = ("bfloat16", "float16", "float32")
POOLINGS = ("mean", "last", "first", "max", "weighted")
_ALLOWED = {"noise": NOISES, "weights": WEIGHTS, "dtype": DTYPES, "pooling": POOLINGS}


@dataclass(frozen=True)
class Condition:
    """One change to the text, the model or the pooling; `kind` None is the plain measurement."""

    kind: str | None = None
    value: str = ""
    number: int = 0  # of a template, whose text is too long for a name

    @property
    def variant(self) -> str | None:
        """What the tidy table calls it."""
        if self.kind is None or self.kind == "untrained":
            return self.kind
        return f"{self.kind}={self.number if self.kind == 'template' else self.value}"

    @property
    def pooling(self) -> str | None:
        """The pooling it asks for, None for the plan's."""
        return self.value if self.kind == "pooling" else None

    @property
    def dtype(self) -> str | None:
        """The arithmetic it asks for, None for the model's."""
        return self.value if self.kind == "dtype" else None

    def model(self, model: Model, seed: int) -> Model:
        """The model it is measured on."""
        if self.kind == "untrained":
            from probes.models import untrained

            return untrained(model, seed=seed)
        if self.kind == "weights":
            from probes.models import quantised

            # real kernels where there are any; simulated rounding is exact but no quicker
            real = model.device.type == "cuda" and find_spec("bitsandbytes") is not None
            backend = "bitsandbytes" if real else "simulated"
            return quantised(model, bits=int(self.value.removeprefix("int")), backend=backend)
        return model

    def reading(self, reading: Reading, seed: int) -> Reading:
        """What the model then reads. `InputError` where noise would move the places at which states are taken."""
        if self.kind == "template":
            return reading.in_template(self.value)
        if self.kind != "noise":
            return reading
        from probes.datasets import corrupt

        if reading.spans is not None:
            raise InputError("noise moves the places at which states are taken")
        texts = corrupt(reading.texts, self.value, seed=seed, keys=reading.keys)
        return replace(reading, texts=tuple(texts))


PLAIN = Condition()
UNTRAINED = Condition("untrained")


def parse_conditions(text: str | None, templates: Sequence[str] = ()) -> tuple[Condition, ...]:
    """`"noise=swap, weights=int4"` and templates as conditions.

    >>> [c.variant for c in parse_conditions("noise=swap,weights=int4", ["True or false? {}"])]
    ['noise=swap', 'weights=int4', 'template=1']
    """
    found: list[Condition] = []
    for part in filter(None, (piece.strip() for piece in (text or "").split(","))):
        kind, _, value = part.partition("=")
        if kind not in _ALLOWED:
            raise unknown_name("condition", part, [f"{k}=…" for k in _ALLOWED])
        if value not in _ALLOWED[kind]:
            raise unknown_name(f"condition {kind}", value, _ALLOWED[kind])
        found.append(Condition(kind, value))
    for number, template in enumerate(templates, start=1):
        Reading(("",)).in_template(template)  # refused now, not after the first concepts
        found.append(Condition("template", template, number))
    if len({c.variant for c in found}) < len(found):
        raise InputError(f"conditions {text!r} name one twice")
    return tuple(found)
