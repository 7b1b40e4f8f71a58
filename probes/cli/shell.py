"""How commands end: one line and exit code 2 for a user's mistake, a traceback only with --debug."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console

from probes.analysis import Analysis
from probes.errors import FathometerError

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def _say(text: str) -> None:
    errors.print(f"error: {' '.join(text.split())}", style="bold red", markup=False)


def invoke(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run `app` and return its exit code: 0 done, 2 a user's mistake, 130 and 143 stopped, 1 a defect of ours."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        result = typer.main.get_command(app)(args=given, standalone_mode=False)
    except FathometerError as error:
        if debug:
            traceback.print_exc()
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        return 0
    except Exception as error:
        return _unexpected(error, debug)
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception, debug: bool) -> int:
    """Typer's own complaints carry `format_message` and an exit code; everything else is a defect."""
    message = getattr(error, "format_message", None)
    if callable(message):
        text = str(message())
        if text:
            _say(f"{text} (--help shows what is allowed)")
        return int(getattr(error, "exit_code", 2)) or 2
    if type(error).__name__ == "Abort":
        _say("stopped")
        return 130
    if debug:
        traceback.print_exc()
    _say(f"{type(error).__name__}: {error} (a defect in Fathometer; --debug shows where)")
    return 1


def run_script(analysis: Analysis, arguments: Sequence[str] | None = None) -> None:
    """What `python analyses/x.py …` does: exactly `fathometer run x …`."""
    from probes.cli.run import command_for

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=analysis.question)(command_for(analysis))
    sys.exit(invoke(app, arguments))


def print_lines(renderable: Any) -> None:
    """Print a rich renderable or a string without interpreting brackets in it."""
    if isinstance(renderable, str):
        console.print(renderable, markup=False)
    else:
        console.print(renderable)
