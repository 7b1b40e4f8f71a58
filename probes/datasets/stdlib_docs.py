"""The docstrings of the standard library, read from its source files.

Sources are parsed and never imported: some modules do things when imported. What is found depends on the Python
version, which is why datasets made of it record version and hash.
"""

from __future__ import annotations

import ast
import platform
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from inspect import cleandoc
from pathlib import Path

from probes.errors import DataError

# Not English prose about an interface, graphical, or tests.
SKIPPED = {
    "antigravity", "config", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "lib-dynload",
    "pydoc_data", "site-packages", "test", "tests", "this", "tkinter", "turtle", "turtledemo",
}  # fmt: skip
# Pure-Python sources of public modules that are named like private ones.
PUBLIC_NAMES = {
    "_pydecimal": "decimal", "_pyio": "io", "_pydatetime": "datetime", "_collections_abc": "collections",
    "_strptime": "time", "_weakrefset": "weakref", "_sitebuiltins": "builtins",
}  # fmt: skip
LONGEST = 2000  # characters of a body; the few longer ones are cut at a word
FEWEST_WORDS = 8  # of a body
_SIGNATURE = re.compile(r"[\w.]+\s?\([^)]*\)(\s*->.*)?[.:]?")
# A sentence ends at . ! or ? before a capital, but not in "e.g. The" or "i.e. This".
_SENTENCE = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<=[.!?])\s+(?=[A-Z\"'(`])")


@dataclass(frozen=True)
class Docstring:
    """One docstring: top-level `module`, dotted `name`, first sentence and the rest (may be empty)."""

    module: str
    name: str
    public: bool
    first: str
    rest: str

    @property
    def has_body(self) -> bool:
        return len(self.rest.split()) >= FEWEST_WORDS

    @property
    def whole(self) -> str:
        return f"{self.first} {self.rest}".strip()


def python_version() -> str:
    return f"standard library of Python {platform.python_version()}"


@lru_cache(maxsize=1)
def stdlib_docstrings() -> tuple[Docstring, ...]:
    """All docstrings with a first sentence, in order of file and line."""
    root = Path(sysconfig.get_path("stdlib"))
    found = tuple(item for path in _sources(root) for item in _of_file(path, root))
    if not found:
        raise DataError(
            f"no sources of the standard library in {root}: this Python ships none; use a data file"
        )
    return found


def _sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part in SKIPPED or part.startswith("config-") for part in parts):
            continue
        if any(_private(part) and part not in PUBLIC_NAMES for part in parts):
            continue
        yield path


def _private(name: str) -> bool:
    return name.startswith("_") and name != "__init__"


def _of_file(path: Path, root: Path) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # a file that this Python does not read has no docstrings
    parts = [p for p in path.relative_to(root).with_suffix("").parts if p != "__init__"]
    parts[0] = PUBLIC_NAMES.get(parts[0], parts[0])
    yield from _walk(tree, parts, parts[0], public=True)


def _walk(node: ast.AST, parts: list[str], module: str, public: bool) -> Iterator[Docstring]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node, clean=False)
        if text and (split := split_docstring(text)):
            yield Docstring(module, ".".join(parts), public, *split)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk(child, [*parts, child.name], module, public and child.name[0] != "_")
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _walk(child, parts, module, public)


def split_docstring(text: str) -> tuple[str, str] | None:
    """(first sentence, the rest) of a docstring as plain prose; None when there is no prose.

    Signature lines, doctests and tables are left out; line breaks inside paragraphs become spaces.

    >>> split_docstring("f(x) -> int\\n\\nCount it. Slowly.\\n\\n>>> f(1)\\n1\\n")
    ('Count it.', 'Slowly.')
    """
    blocks = re.split(r"\n\s*\n", cleandoc(text).encode("utf-8", "ignore").decode("utf-8"))
    paragraphs = [p for block in blocks if (p := _prose(block))]
    if not paragraphs:
        return None
    sentences = _SENTENCE.split(paragraphs[0], maxsplit=1)
    rest = "\n".join([*sentences[1:], *paragraphs[1:]])
    if len(rest) > LONGEST:
        rest = rest[:LONGEST].rsplit(None, 1)[0]
    return sentences[0], rest


def _prose(block: str) -> str:
    """One paragraph on one line; empty for signatures, doctests, underlines and tables."""
    lines = block.strip().splitlines()
    if any(line.lstrip().startswith(">>>") for line in lines):
        return ""
    if lines and _SIGNATURE.fullmatch(lines[0].strip()):
        lines = lines[1:]
    joined = " ".join(" ".join(lines).split())
    letters = sum(c.isalpha() or c.isspace() for c in joined)
    return joined if letters >= 0.7 * len(joined) else ""
