"""What analyses have in common: options of model and data, what a run says of them, and how options are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from probes.analysis.declare import Option, Progress
from probes.datasets.columns import ALIASES
from probes.errors import InputError, unknown_name
from probes.runs import Run

if TYPE_CHECKING:
    from probes.models import Model
    from probes.types import Dataset

T = TypeVar("T", int, float)


def model_options(model: str, data: str) -> tuple[Option, ...]:
    """The options every analysis of a model on data has, with that analysis' defaults."""
    return (
        Option(
            "model", str, model, "Model: a name of `fathometer models list`, a folder, or a hub id."
        ),
        Option(
            "data",
            str,
            data,
            "Data: a name of `fathometer datasets list`, a CSV, TSV, JSONL or Parquet file, a retrieval "
            "folder, or hf:NAME.",
        ),
        Option(
            "columns",
            str,
            None,
            "Columns of a data file where they are not recognised: text=review,label=stars.",
        ),
        Option("device", str, "auto", "auto, cpu, cuda, cuda:N or mps."),
        Option(
            "dtype",
            str,
            "float32",
            "Arithmetic of the model: bfloat16 is about three times faster on many processors and changes "
            "states by 0.5–2 %.",
            ("float32", "bfloat16", "float16"),
        ),
        Option(
            "max_length",
            int,
            None,
            "Longest text in tokens; longer ones are cut and counted.",
            low=4,
        ),
        Option(
            "limit",
            int,
            None,
            "Use at most this many examples of the data, drawn by --seed.",
            low=20,
        ),
        Option("seed", int, 0, "Seed of every random draw.", low=0),
        Option(
            "trust_remote_code",
            bool,
            False,
            "Run Python code that comes with a model. Only for models whose code you have read.",
        ),
    )


POOLING = Option(
    "pooling",
    str,
    None,
    "How tokens become one vector; default the model's own.",
    ("mean", "last", "first", "max", "weighted"),
)
DRAWS = Option("draws", int, 1000, "Bootstrap draws behind every interval.", low=200, high=100_000)


def describe_model(model: Model) -> dict[str, Any]:
    """What `run.json` says of a model."""
    return {
        "name": model.name,
        "kind": model.kind,
        "weights_hash": model.weights_hash,
        "tokenizer_hash": model.tokenizer_hash,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "n_kv_heads": model.n_kv_heads,
        "d_model": model.d_model,
        "max_length": model.max_length,
        "pooling": model.embedding.pooling,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def describe_data(data: Dataset) -> dict[str, Any]:
    """What `run.json` says of a dataset."""
    return {
        "name": data.name,
        "kind": data.kind,
        "n": len(data),
        "hash": data.content_hash(),
        "licence": data.source.licence,
        "notes": list(data.source.notes),
    }


def describe_texts(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """What `run.json` says of texts without labels."""
    from probes.datasets.load import short_name
    from probes.files import sha256_texts

    return {
        "name": short_name(Path(name).stem),
        "kind": "texts",
        "n": len(texts),
        "hash": sha256_texts(list(texts)),
        "licence": None,
        "notes": [],
    }


def parse_columns(text: str | None) -> dict[str, Any]:
    """`"text=review,label=stars"` as a dictionary.

    >>> parse_columns("text=review, label=stars")
    {'text': 'review', 'label': 'stars'}
    """
    pairs = [part.split("=", 1) for part in (text or "").split(",") if part.strip()]
    for pair in pairs:
        if len(pair) != 2 or not all(side.strip() for side in pair):
            raise InputError(
                f"--columns {text!r}: write role=column pairs, such as text=review,label=stars"
            )
    given = {role.strip(): column.strip() for role, column in pairs}
    for role in given:
        if role not in ALIASES:
            raise unknown_name("role in --columns", role, ALIASES)
    return given


def parse_names(text: str, allowed: Iterable[str], what: str) -> frozenset[str]:
    """Names separated by commas, `all` or `none`.

    >>> sorted(parse_names("mdl, erasure", ["erasure", "mdl", "causal"], "--parts"))
    ['erasure', 'mdl']
    """
    known = list(allowed)
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    if names in (["all"], ["none"]):
        return frozenset(known if names == ["all"] else ())
    for name in names:
        if name not in known:
            raise unknown_name(what, name, (*known, "all", "none"))
    return frozenset(names)


def parse_numbers(text: str, kind: Callable[[str], T], flag: str, low: float) -> tuple[T, ...]:
    """Numbers separated by commas, ascending, each once; `InputError` for what is none or lies below `low`.

    >>> parse_numbers("32, 8,16", int, "--cuts", 2)
    (8, 16, 32)
    """
    found: set[T] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            number = kind(part)
        except ValueError:
            raise InputError(
                f"{flag} {text!r}: {part!r} is no {_name(kind)}; write numbers separated by commas"
            ) from None
        if not low <= number < float("inf"):
            raise InputError(f"{flag} {part}: numbers from {low:g} are allowed")
        found.add(number)
    if not found:
        raise InputError(f"{flag} {text!r}: at least one number is needed")
    return tuple(sorted(found))


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Layer numbers separated by commas, or `all` (None).

    >>> parse_layers("0,3"), parse_layers("all")
    ((0, 3), None)
    """
    return None if text.strip() == "all" else parse_numbers(text, int, "--layers", 0)


def _name(kind: Any) -> str:
    return "whole number" if kind is int else "number"


def require_options(options: Mapping[str, Any], *data: str) -> None:
    """Refuse a model, a device, or data in the options named `data` that mean nothing; None stands for no data."""
    from probes.datasets import require_dataset
    from probes.models import pick_device, require_model

    require_model(options["model"])
    pick_device(options["device"])
    for name in data:
        if options[name] is not None:
            require_dataset(options[name])


def open_model(run: Run, options: Mapping[str, Any], progress: Progress) -> Model:
    """The model that the options of `model_options` name, described in the run."""
    from probes.models import load_model

    progress(0, None, "loading the model")
    model = load_model(
        options["model"],
        device=options["device"],
        dtype=options["dtype"],
        trust_remote_code=options["trust_remote_code"],
    )
    run.describe(model=describe_model(model))
    return model
