"""Backends: who runs the model and hands out its states. The torch hooks are the reference the others are held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from probes.capture.sites import Place
from probes.errors import InputError
from probes.registry import Registry

if TYPE_CHECKING:
    from probes.capture.hooks import Inputs, Receive
    from probes.models import Model


class Runner(Protocol):
    """Runs the model on one batch; `receive(place, states)` is called once for every place."""

    def __call__(self, inputs: Inputs, receive: Receive) -> None: ...


Open = Callable[["Model", Sequence[Place]], AbstractContextManager[Runner]]


@dataclass(frozen=True)
class Backend:
    """`open(model, places)` is a context that gives a `Runner` and leaves the model as it was."""

    name: str
    package: str  # the distribution it needs
    load: Callable[[], Open]
    summary: str

    def package_version(self) -> str:
        """Version of the library; `InputError` with the command to install it where it is missing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            raise InputError(
                f"backend {self.name!r} needs {self.package}, which is not installed: "
                'run pip install "fathometer[backends]", or use backend="torch"'
            ) from None

    def open(self, model: Model, places: Sequence[Place]) -> AbstractContextManager[Runner]:
        self.package_version()
        return self.load()(model, places)


def _torch() -> Open:
    from probes.capture.hooks import TorchRunner

    return lambda model, places: nullcontext(TorchRunner(model, places))


def _transformer_lens() -> Open:
    from probes.capture.bridge_backend import open_bridge

    return open_bridge


def _nnsight() -> Open:
    from probes.capture.nnsight_backend import open_nnsight

    return open_nnsight


BACKENDS: Registry[Backend] = Registry("backend")
for _backend in (
    Backend("torch", "torch", _torch, "hooks on the model itself (the reference)"),
    Backend(
        "transformer_lens",
        "transformer-lens",
        _transformer_lens,
        "TransformerLens' TransformerBridge",
    ),
    Backend("nnsight", "nnsight", _nnsight, "nnsight traces"),
):
    BACKENDS.add(_backend.name, _backend)
