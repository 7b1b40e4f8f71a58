"""The command line; see `probes.cli.main`."""

from __future__ import annotations

from probes.cli.main import main
from probes.cli.shell import run_script

__all__ = ["main", "run_script"]
