"""Built-in sets of real text: docstrings of the standard library, for retrieval and for topics."""

from __future__ import annotations

import numpy as np

from probes.datasets.catalogue import PYTHON, register_dataset
from probes.datasets.relevance import build_retrieval
from probes.datasets.stdlib_docs import Docstring, python_version, stdlib_docstrings
from probes.types import LabelledTexts, Retrieval, Source

QUERY_WORDS = (4, 40)  # shorter sentences say too little, longer ones are no queries
TOPIC_CAP = 40  # texts per module, so that no module stands for its family
TOPIC_WORDS = 8

# Module families after the chapters of the library reference; only modules that clearly belong.
FAMILIES: dict[str, tuple[str, ...]] = {
    "concurrency": (
        "asyncio", "concurrent", "multiprocessing", "queue", "sched", "selectors", "subprocess", "threading",
    ),
    "data formats": (
        "base64", "binascii", "configparser", "csv", "json", "netrc", "pickle", "pickletools", "plistlib",
        "quopri", "shelve", "tomllib", "copyreg", "marshal",
    ),
    "files and archives": (
        "bz2", "filecmp", "fileinput", "fnmatch", "genericpath", "glob", "gzip", "linecache", "lzma",
        "ntpath", "pathlib", "posixpath", "shutil", "tarfile", "tempfile", "zipfile", "zipapp",
    ),
    "internet": (
        "ftplib", "http", "imaplib", "ipaddress", "nntplib", "poplib", "smtplib", "smtpd", "socket",
        "socketserver", "ssl", "telnetlib", "urllib", "webbrowser", "wsgiref", "xmlrpc", "email", "mailbox",
    ),
    "numbers and dates": (
        "calendar", "colorsys", "datetime", "decimal", "fractions", "numbers", "random", "secrets",
        "statistics", "zoneinfo", "time",
    ),
    "program analysis": (
        "ast", "bdb", "cProfile", "code", "codeop", "compileall", "dis", "doctest", "inspect", "modulefinder",
        "pdb", "profile", "pstats", "pyclbr", "pydoc", "symtable", "tabnanny", "timeit", "token", "tokenize",
        "trace", "traceback", "tracemalloc", "unittest", "faulthandler",
    ),
    "text": (
        "cmd", "codecs", "difflib", "encodings", "gettext", "html", "locale", "pprint", "re", "string",
        "stringprep", "textwrap", "xml",
    ),
}  # fmt: skip


def _query_worthy(item: Docstring) -> bool:
    words = item.first.split()
    return (
        item.public
        and item.has_body
        and QUERY_WORDS[0] <= len(words) <= QUERY_WORDS[1]
        and item.first[0].isalpha()
    )


@register_dataset(
    "docstrings",
    "retrieval",
    PYTHON,
    "First sentence of a docstring of the standard library finds the rest of it, among bodies without a query.",
)
def docstrings(seed: int) -> Retrieval:
    """Queries are first sentences of public docstrings, documents the rest of each.

    Near-misses: the corpus also holds the bodies of private and special functions of the same modules and of docstrings
    whose first sentence makes no query. Equal queries share their documents. There are no groups: all queries are asked
    of this one corpus, so the query, not its module, is what is drawn. `seed` changes nothing.
    """
    documents: dict[str, int] = {}
    queries: dict[str, int] = {}
    grades: dict[tuple[int, int], float] = {}
    for item in stdlib_docstrings():
        if not item.has_body:
            continue
        document = documents.setdefault(item.rest, len(documents))
        if _query_worthy(item):
            query = queries.setdefault(item.first, len(queries))
            grades[query, document] = 1.0
    numbers = [str(i) for i in range(max(len(queries), len(documents)))]
    return build_retrieval(
        "docstrings",
        (numbers[: len(queries)], list(queries)),
        (numbers[: len(documents)], list(documents)),
        grades,
        Source(PYTHON, python_version(), ("texts depend on the Python version: compare by hash",)),
    )


@register_dataset(
    "docstring-topics",
    "labelled",
    PYTHON,
    "Which family of modules a docstring of the standard library belongs to; classes never straddle splits.",
    "topical",
)
def docstring_topics(seed: int) -> LabelledTexts:
    """Docstrings labelled by module family, at most `TOPIC_CAP` per module (drawn by `seed`).

    Groups are submodules or, in a module that is one file, its classes and functions: what was written in one breath.
    """
    rng = np.random.default_rng(seed)
    family = {module: name for name, modules in FAMILIES.items() for module in modules}
    by_module: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for item in stdlib_docstrings():
        text = item.whole
        if item.module in family and len(text.split()) >= TOPIC_WORDS and text not in seen:
            seen.add(text)
            place = ".".join(item.name.split(".")[:2])
            by_module.setdefault(item.module, []).append((text, place))
    rows: list[tuple[str, str, str]] = []
    for module in sorted(by_module):
        texts = by_module[module]
        chosen = sorted(rng.permutation(len(texts))[:TOPIC_CAP].tolist())
        rows += [(texts[i][0], family[module], texts[i][1]) for i in chosen]
    texts, labels, groups = zip(*rows, strict=True)
    source = Source(
        PYTHON, python_version(), ("texts depend on the Python version: compare by hash",)
    )
    return LabelledTexts.make("docstring-topics", texts, labels, groups, source)
