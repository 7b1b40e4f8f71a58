"""Small JSON files that carry a hash of themselves, so that any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from probes.files import canonical_json

_KEY = "self_sha256"


class BrokenSealError(ValueError):
    """The file is not what was written: cut, flipped, edited or never finished."""


def seal(content: Mapping[str, Any]) -> bytes:
    """`content` as JSON with its own SHA-256; equal contents give equal bytes.

    >>> unseal(seal({"rows": [0, 3]}))
    {'rows': [0, 3]}
    """
    sealed = {**content, _KEY: content_hash(content)}
    text = json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def unseal(data: bytes) -> dict[str, Any]:
    """The content of a sealed file; `BrokenSealError` when a single byte differs from what was written."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenSealError("it is not JSON") from error
    if not isinstance(value, dict) or _KEY not in value:
        raise BrokenSealError("it carries no hash of itself")
    content = cast("dict[str, Any]", value)
    del content[_KEY]
    try:
        same = seal(content) == data  # the bytes too, not only the meaning
    except ValueError as error:
        raise BrokenSealError("it holds values that are never written") from error
    if not same:
        raise BrokenSealError("it differs from the hash it carries")
    return content


def read_sealed(path: Path) -> dict[str, Any]:
    """Read and unseal `path`; a missing file raises `FileNotFoundError`."""
    return unseal(path.read_bytes())


def content_hash(content: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the canonical JSON of `content`."""
    return hashlib.sha256(canonical_json(content).encode("utf-8")).hexdigest()
