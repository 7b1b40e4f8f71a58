"""Errors a user can cause and mend.

Every error here is shown by the command line as one line and ends with exit code 2. The message says
what came, what is allowed and what to do. Anything else that escapes is a defect in Fathometer.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FathometerError(Exception):
    """Base of all errors that a user can mend."""

    exit_code = 2


class InputError(FathometerError):
    """A value, name or option that is not allowed."""


class EstimatorInputError(InputError, ValueError):
    """Data or a parameter that an estimator cannot take; a `ValueError` too, as scikit-learn expects."""


class DataError(FathometerError):
    """A dataset that cannot be read or does not hold what it must; names file and line where known."""


class ModelError(FathometerError):
    """A model that cannot be found, trusted, resolved or computed with."""


class DoesNotApply(FathometerError):
    """The quantity has no meaning for this model, e.g. heads of a state-space model."""


class StoreError(FathometerError):
    """An activation store that cannot be created, read or continued."""


class ShardCorrupt(StoreError):
    """Bytes on disk differ from what was committed; the message names the shard."""


class NonFiniteError(FathometerError):
    """NaN or infinity in weights, activations or labels; the message says where."""


class RunError(FathometerError):
    """A run folder that cannot be created, read or continued."""


class ExportError(FathometerError):
    """An exported model that does not do what the run promised."""


def unknown_name(kind: str, given: str, allowed: Iterable[str], hint: str = "") -> InputError:
    """An `InputError` that lists what is allowed and guesses what was meant.

    >>> print(unknown_name("pooling", "maen", ["mean", "last"]))
    unknown pooling 'maen': did you mean 'mean'? Allowed: last, mean.
    """
    names = sorted(allowed)
    near = get_close_matches(given, names, n=1)
    guess = f" did you mean {near[0]!r}?" if near else ""
    listed = f" Allowed: {', '.join(names)}." if names else ""
    tail = f" {hint}" if hint else ""
    return InputError(f"unknown {kind} {given!r}:{guess}{listed}{tail}")
