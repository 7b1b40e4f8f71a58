"""What an analysis is: a question, the options it takes, and the function that answers it into a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.errors import InputError, unknown_name
from probes.runs import Progress, Run, RunView


@dataclass(frozen=True)
class Option:
    """One option of an analysis; the command line and the dashboard's form are drawn from it.

    `type` is the Python type of the value (str, int, float, bool); None is allowed where the default is None.
    """

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def flag(self) -> str:
        """How it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> Any:
        """`value` as the declared type; an error says what came and what is allowed."""
        if value is None:
            if self.default is None:
                return None
            raise InputError(f"{self.flag} needs a value")
        try:
            typed = self.type(value)
        except (TypeError, ValueError):
            raise InputError(f"{self.flag} {value!r}: a {self.type.__name__} is needed") from None
        if self.choices and typed not in self.choices:
            raise unknown_name(self.flag, str(typed), self.choices)
        below = self.low is not None and typed < self.low
        above = self.high is not None and typed > self.high
        if below or above or (isinstance(typed, float) and typed != typed):
            least = "" if self.low is None else f"at least {self.low:g}"
            most = "" if self.high is None else f"at most {self.high:g}"
            raise InputError(
                f"{self.flag} {typed}: {' and '.join(filter(None, (least, most)))} is allowed"
            )
        return typed


@dataclass(frozen=True)
class Analysis:
    """A question, the options it takes, and the function that answers it into an open run.

    `run(run, options, progress)` writes rows and tables; `summary(view)` gives the lines that are printed at the end;
    `precheck(options)` refuses what can be seen to be wrong at once, before a folder is made.
    """

    name: str
    title: str
    question: str
    options: tuple[Option, ...]
    run: Callable[[Run, Mapping[str, Any], Progress], None]
    summary: Callable[[RunView], Any] = field(default=lambda view: "")
    precheck: Callable[[Mapping[str, Any]], None] = field(default=lambda options: None)

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options with defaults filled in; unknown names and bad values are refused."""
        allowed = {option.name: option for option in self.options}
        for name in given:
            if name not in allowed:
                raise unknown_name(f"option of {self.name}", name, allowed)
        return {
            name: option.check(given.get(name, option.default)) for name, option in allowed.items()
        }
