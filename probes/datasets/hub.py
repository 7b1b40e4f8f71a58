"""Datasets by `hf:name[:config][:split]` through the `datasets` library, which loads on use.

`name` is a dataset on the hub or a folder that `save_to_disk` wrote. Only data is read: no code of a dataset is run.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from probes.datasets.reading import Row, Table, check_columns
from probes.errors import DataError, InputError, unknown_name

SPLITS = {"train", "validation", "test", "dev"}
BATCH = 1000


def parse_hub_name(spec: str) -> tuple[str, str | None, str | None]:
    """(name, config, split) of `name[:config][:split]`.

    >>> parse_hub_name("nyu-mll/glue:stsb:validation")
    ('nyu-mll/glue', 'stsb', 'validation')
    >>> parse_hub_name("imdb:test")
    ('imdb', None, 'test')
    """
    parts = spec.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InputError(f"bad dataset 'hf:{spec}': hf:NAME[:CONFIG][:SPLIT] is needed")
    if len(parts) == 2:
        second = parts[1]
        is_split = second in SPLITS or "[" in second
        return parts[0], None if is_split else second, second if is_split else None
    return parts[0], parts[1] if len(parts) == 3 else None, parts[2] if len(parts) == 3 else None


def hub_table(spec: str) -> Table:
    """The rows behind `hf:spec`; `DataError` when the library, the network or the dataset is missing."""
    name, config, split = parse_hub_name(spec)
    try:
        import datasets
    except ImportError:
        raise DataError(
            "hf: datasets need the library `datasets`: pip install 'fathometer[hub]'"
        ) from None
    origin = f"hf:{spec}"
    try:
        if (Path(name) / "dataset_dict.json").is_file() or (Path(name) / "state.json").is_file():
            loaded: Any = datasets.load_from_disk(name)
        else:
            with _offline_unless_reachable():
                loaded = datasets.load_dataset(name, config)
    except (
        Exception
    ) as error:  # the library raises a dozen types, its own and those of its network layer
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"{origin} cannot be loaded ({reason}): check the name and the network, or give a local file"
        ) from None
    return _table(_pick_split(loaded, split, origin), origin)


@contextlib.contextmanager
def _offline_unless_reachable() -> Generator[None]:
    """Where the hub's name does not resolve, put the hub library into its offline mode.

    It would otherwise retry for half a minute with a line each; what is in its cache loads all the same.
    """
    from datasets import config
    from huggingface_hub import constants

    host = urlsplit(str(constants.ENDPOINT)).hostname or ""
    try:
        reachable = bool(urllib.request.getproxies()) or bool(socket.getaddrinfo(host, 443))
    except OSError:
        reachable = False
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    if not reachable:
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _pick_split(loaded: Any, split: str | None, origin: str) -> Any:
    if not hasattr(loaded, "keys"):
        if split is not None:
            raise InputError(f"{origin} is a single split: leave {split!r} out")
        return loaded
    names = [str(name) for name in loaded]
    if split is None:
        if len(names) > 1:
            raise DataError(
                f"{origin} has the splits {', '.join(names)}: say which, e.g. {origin}:{names[0]}"
            )
        return loaded[names[0]]
    if split not in names:
        raise unknown_name("split", split, names)
    return loaded[split]


def _table(data: Any, origin: str) -> Table:
    columns = check_columns([str(name) for name in data.column_names], origin)
    names: dict[str, Sequence[str]] = {}
    for column in columns:
        feature = data.features[column]
        if getattr(feature, "names", None):  # a ClassLabel: integers that have names
            names[column] = [str(name) for name in feature.names]

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        number = 0
        for batch in data.select_columns(list(wanted)).iter(batch_size=BATCH):
            for values in zip(*(batch[name] for name in wanted), strict=True):
                number += 1
                yield number, values

    return Table(origin, columns, rows, unit="row", class_names=names)
