"""What an analysis is: declared options and a function that fills a run folder.

The scripts in `analyses/` each define one `ANALYSIS`. The command line and the dashboard load them by path, draw their
options, and run them with `execute`; `python analyses/x.py …` and `fathometer run x …` are the same thing.
"""

from __future__ import annotations

from probes.analysis.declare import Analysis, Option, Progress
from probes.analysis.execute import NOTE, execute, resume_command
from probes.analysis.load import load_analyses, load_analysis
from probes.analysis.shared import (
    DRAWS,
    POOLING,
    describe_data,
    describe_model,
    describe_texts,
    model_options,
    open_model,
    parse_columns,
    parse_layers,
    parse_names,
    parse_numbers,
    require_options,
)

__all__ = [
    "DRAWS",
    "NOTE",
    "POOLING",
    "Analysis",
    "Option",
    "Progress",
    "describe_data",
    "describe_model",
    "describe_texts",
    "execute",
    "load_analyses",
    "load_analysis",
    "model_options",
    "open_model",
    "parse_columns",
    "parse_layers",
    "parse_names",
    "parse_numbers",
    "require_options",
    "resume_command",
]
