"""What an analysis is: declared options and a function that fills a run folder.

The scripts in `analyses/` each define one `ANALYSIS`. The command line and the dashboard load them by path, draw their
options, and run them with `execute`; `python analyses/x.py …` and `fathometer run x …` are the same thing.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from probes.datasets.columns import ALIASES
from probes.errors import FathometerError, InputError, RunError, unknown_name
from probes.files import bundled, runs_dir
from probes.report import build_report
from probes.runs import Run, RunView

if TYPE_CHECKING:
    from probes.models import Model
    from probes.types import Dataset

NOTE = "note: "  # how a progress text begins that is a remark and no stage of the work

Progress = Callable[[int, int | None, str], None]


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


@contextmanager
def _stoppable() -> Generator[None]:
    """SIGTERM ends the work like Ctrl-C does, at the next safe point, with exit code 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_as_notes(run: Run, progress: Progress) -> Generator[None]:
    """Warnings meant for users (texts that were cut, values that overflowed) go to the run's log and to the terminal as
    one line each, without the place in our code that raised them."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_rest: Any, **_more: Any) -> None:
        text = f"{NOTE}{message}"
        if issubclass(category, UserWarning) and text not in seen:
            seen.add(text)
            run.note(str(message))
            progress(0, None, text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def resume_command(path: Path) -> str:
    """The command that continues the run in `path`, to be pasted into a shell.

    >>> resume_command(Path("my runs/one"))
    "fathometer run --resume one --runs 'my runs'"
    """
    words = ["fathometer", "run", "--resume", path.name]
    if path.parent.resolve() != runs_dir().resolve():
        words += ["--runs", str(path.parent)]
    return shlex.join(words)


def execute(
    analysis: Analysis,
    given: Mapping[str, Any],
    *,
    runs: Path,
    name: str | None = None,
    resume: RunView | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run `analysis` into a new folder (or continue `resume`), write its report, and return the folder.

    Options and names are checked before the folder is made, so that a misspelt one leaves nothing behind.
    """
    if resume is not None:
        if resume.info.get("analysis") != analysis.name:
            raise RunError(f"run {resume.slug!r} belongs to {resume.info.get('analysis')!r}")
        options = analysis.check(resume.info["options"])
        run = Run.reopen(resume.path)
    else:
        options = analysis.check(given)
        analysis.precheck(options)
        run = Run.create(runs, analysis.name, options, name)

    def tell(done: int, total: int | None, text: str) -> None:
        run.progress(done, total, text)
        if progress is not None:
            progress(done, total, text)

    try:
        with _stoppable(), _warnings_as_notes(run, tell), run:
            analysis.run(run, options, tell)
            tell(0, None, "writing the report")
            build_report(run.path)
    except (KeyboardInterrupt, SystemExit):
        if progress is not None:
            progress(0, None, f"{NOTE}stopped; continue with: {resume_command(run.path)}")
        raise
    build_report(run.path)  # once more, so that the report itself says that the run is finished
    return run.path
