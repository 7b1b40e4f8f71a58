"""Analyses by name: each is one script in `analyses/`, loaded from its file."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from probes.analysis.declare import Analysis
from probes.errors import FathometerError, unknown_name
from probes.files import bundled


def load_analyses() -> dict[str, Path]:
    """Names of all analyses and the scripts that hold them."""
    scripts = sorted(bundled("analyses").glob("[a-z]*.py"))
    return {path.stem.replace("_", "-"): path for path in scripts}


def load_analysis(name: str) -> Analysis:
    """The `ANALYSIS` of a script in `analyses/`, loaded from its file."""
    scripts = load_analyses()
    if name not in scripts:
        raise unknown_name("analysis", name, scripts)
    module_name = "fathometer_analysis_" + re.sub(r"\W", "_", name)
    spec = importlib.util.spec_from_file_location(module_name, scripts[name])
    if spec is None or spec.loader is None:
        raise FathometerError(f"{scripts[name]} cannot be loaded: reinstall the package")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ANALYSIS
