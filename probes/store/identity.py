"""What decides the bytes of a store: its identity, its fingerprint, and the difference between two."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from probes.errors import StoreError
from probes.files import canonical_json
from probes.store.sealed import content_hash

_SHOWN = 5  # differences named in one message
_WIDTH = 40  # characters shown of one value


def check_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` as plain JSON values; raises `StoreError` for anything that cannot be hashed.

    Allowed are None, bool, int, finite float, str, and lists, tuples and mappings (with string keys) of these.

    >>> check_identity({"sites": ("exit",), "dtype": "float32"})
    {'dtype': 'float32', 'sites': ['exit']}
    >>> check_identity({"model": object()})
    Traceback (most recent call last):
    ...
    probes.errors.StoreError: identity.model is of type object: it cannot be hashed. Give None, ...
    """
    _check(identity, "identity")
    return json.loads(canonical_json(dict(identity)))


def _check(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise StoreError(f"{where} has the key {key!r}: keys must be strings")
            _check(key, f"the key {key!a} of {where}")
            _check(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[object]", value)):
            _check(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise StoreError(f"{where} is {value}: a finite number is needed")
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise StoreError(f"{where} holds a lone surrogate: it cannot be hashed") from None
    elif value is not None and not isinstance(value, int):
        raise StoreError(
            f"{where} is of type {type(value).__name__}: it cannot be hashed. "
            "Give None, bool, int, float, str, or lists and mappings of these"
        )


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the canonical JSON of `identity`; the order of keys does not count.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    True
    """
    return content_hash(check_identity(identity))


def difference(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """One line that names what differs between two identities; empty when nothing does.

    >>> difference({"dtype": "float32", "n": 1}, {"dtype": "bfloat16", "n": 1})
    'dtype: "float32" there, "bfloat16" now'
    """
    old, new = _leaves(there), _leaves(now)
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    parts: list[str] = []
    for name in names[:_SHOWN]:
        a, b = old.get(name, "nothing"), new.get(name, "nothing")
        parts.append(f"{name}: {_short(a, b)} there, {_short(b, a)} now")
    if len(names) > _SHOWN:
        parts.append(f"and {len(names) - _SHOWN} more")
    line = "; ".join(parts)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for given, item in value.items():
        key = (
            given if given.isidentifier() else canonical_json(given)
        )  # a dot in a key is no border
        if isinstance(item, Mapping) and item:
            found.update(_leaves(cast("Mapping[str, Any]", item), f"{prefix}{key}."))
        else:
            found[prefix + key] = canonical_json(item)
    return found


def _short(text: str, other: str) -> str:
    """`text`, cut around the first character where it differs from `other`."""
    if len(text) <= _WIDTH:
        return text
    pairs = zip(text, other, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))
    start = 0 if first < _WIDTH - 8 else first - 8
    end = start + _WIDTH
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
