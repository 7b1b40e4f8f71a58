"""Proof of an export: the folder is read by a process without Fathometer and held to what the run promised.

Embeddings must equal those of the original model's captured states, quality on the test part must equal the
decision's, and the share of the full model's time is measured again, both models in turns in that process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import FathometerError, RunError
from probes.exits.classification import ClassificationTask
from probes.exits.export.source import Exit, Promise, dataset_of, promise_of
from probes.exits.material import Material, prepare
from probes.files import cache_dir, write_json
from probes.runs.environment import hardware

if TYPE_CHECKING:
    from probes.types import Dataset

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Writer = Callable[[Path, Exit], None]

FILE = "verification.json"
TOLERANCE = 1e-5  # of a coordinate, relative to the length of its row
COARSE = 2e-2  # the same where the model computes in half precision
SHARE_TOLERANCE = 0.03
_TEXT_FILES = (".json", ".md", ".py", ".txt", ".jinja")
_WORDS = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")  # words, not settings


@dataclass(frozen=True)
class Timing:
    """How the time is taken again: `seconds` in all (0: not at all), at least and at most so many rounds."""

    seconds: float = 10.0
    min_rounds: int = 20
    max_rounds: int = 400


@dataclass(frozen=True)
class Check:
    """One thing looked at: what came, what was expected, how far apart they may lie; `passed` None: not done."""

    name: str
    passed: bool | None
    found: float | None
    expected: float | None
    allowed: float | None
    text: str


@dataclass(frozen=True)
class Verification:
    """All checks, and what the process said of itself."""

    checks: tuple[Check, ...]
    library: str
    texts: int

    @property
    def passed(self) -> bool:
        """Whether no check failed; those that could not be done (`passed` None) do not count."""
        return all(check.passed is not False for check in self.checks)

    @property
    def first_failure(self) -> str:
        return next((c.text for c in self.checks if c.passed is False), "")

    def check(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)


def verify_export(
    folder: Path, exit_: Exit, kind: str, code: bool, write: Writer, timing: Timing | None = None
) -> Verification:
    """Check `folder` and write `verification.json` into it; `write` writes the full model for the comparison of time.

    Raises `FathometerError` where the process does not come to an end; a check that fails raises nothing here.
    """
    timing = timing or Timing()
    data = load_data(exit_)
    material = prepare(data, (), int(exit_.view.info["options"]["seed"]), exit_.prompts)
    test = material.parts["test"]
    rows = material.task.text_rows(test)
    texts = [material.texts[i] for i in rows.tolist()]
    own = list(material.texts)
    with tempfile.TemporaryDirectory(prefix="fathometer-verify-") as place:
        full = Path(place) / "full"
        full.mkdir()
        if timing.seconds > 0:
            write(full, exit_.full())
        job = {
            "format": kind,
            "exported": str(folder.resolve()),
            "full": str(full),
            "code": code,
            "classes": exit_.recipe.probe is not None,
            "texts": texts,
            "timed": _shuffled(own),
            "batch_size": 32,
            "timed_batch": int(exit_.view.info["options"].get("batch_size") or 1),
            "threads": _threads(),
            **asdict(timing),
        }
        embeddings, told = run_fresh(Path(place), job)
    promise = promise_of(exit_.view, exit_.candidate)
    checks = (
        Check(
            "process",
            bool(told["blocked"]),
            None,
            None,
            None,
            "the process could import Fathometer",
        ),
        _check_embeddings(embeddings, reference(exit_, texts), exit_),
        _check_quality(embeddings, rows, material, promise),
        _check_time(np.asarray(told["times"]), promise, exit_),
        check_files(folder, exit_),
    )
    found = Verification(checks, str(told["library"]), len(texts))
    write_json(
        folder / FILE,
        {
            "passed": found.passed,
            "candidate": exit_.name,
            "library": found.library,
            "texts": found.texts,
            "hardware": hardware(),
            "checks": [asdict(check) for check in checks],
        },
    )
    return found


def load_data(exit_: Exit) -> Dataset:
    """The run's (first) dataset, the same examples; `RunError` where it has changed."""
    from probes.datasets import dataset_names, limit_dataset, load_dataset

    options = exit_.view.info["options"]
    pairs = [
        part.split("=", 1) for part in (options.get("columns") or "").split(",") if part.strip()
    ]
    columns: Any = {role.strip(): column.strip() for role, column in pairs}
    data = load_dataset(dataset_names(options["data"])[0], **columns)
    data = limit_dataset(data, options.get("limit"), np.random.default_rng(options["seed"]))
    known = dataset_of(exit_.view)["hash"]
    if data.content_hash() != known:
        raise RunError(
            f"the data of run {exit_.view.slug!r} have changed since: its quality cannot be checked; run it again"
        )
    return data


def reference(exit_: Exit, texts: Sequence[str]) -> Array:
    """What the recipe makes of the original model's captured states: (texts, dim), or the scores of the classes."""
    from probes.capture import capture
    from probes.capture.pooling import POOLINGS
    from probes.exits.translate import read_inputs
    from probes.exits.ways import parse_spec
    from probes.layers import temperature

    recipe, model = exit_.recipe, exit_.model
    hot = nullcontext() if recipe.temperature == 1 else temperature(model, recipe.temperature)
    layer, longest = recipe.layer, exit_.max_length
    if recipe.pooling in POOLINGS:
        with hot:
            acts = capture(model, texts, ["exit"], recipe.pooling, [layer], max_length=longest)
        rows = recipe(acts["exit", layer])
    else:
        spec = parse_spec(recipe.pooling, model.embedding.pooling)
        layers = list(spec.layers(layer))
        inputs = read_inputs(model, texts, spec.poolings, layers, recipe.table, max_length=longest)
        rows = recipe(inputs.read(spec, layer, slice(None)))
    return rows if recipe.probe is None else rows @ recipe.probe.weight + recipe.probe.bias


def gain(exit_: Exit, expected: Array) -> Array:
    """What differences of each row are measured by, (texts, 1): its length.

    Scores of classes are measured by what rounding of the state may become in them: a probe fitted to few texts has
    large weights that cancel each other, and its scores are far shorter than what they are summed from. That is the
    probe's gain, its spectral norm, for a state of length 1 or more.
    """
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    probe = exit_.recipe.probe
    if probe is None:
        return lengths
    weight = np.asarray(probe.weight, np.float64)
    return np.maximum(lengths, np.linalg.norm(weight, 2))


def run_fresh(place: Path, job: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
    """Run `fresh.py` on `job` in the folder `place`; the embeddings and what it told."""
    write_json(place / "job.json", job)
    script = Path(__file__).with_name("fresh.py")
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(place / "modules")}
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(place / "job.json")],
        cwd=place, env=surroundings, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        hint = ": pip install sentence-transformers" if "sentence_transformers" in last else ""
        raise FathometerError(
            f"the exported model does not load in a process of its own: {last}{hint}"
        )
    told = json.loads((place / "told.json").read_text(encoding="utf-8"))
    return np.load(place / "embeddings.npy", allow_pickle=False), told


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _shuffled(texts: Sequence[str]) -> list[str]:
    """In the order in which the study took them, so that the same lengths are timed."""
    order: list[int] = np.random.default_rng(0).permutation(len(texts))[:1000].tolist()
    return [str(texts[i]) for i in order]


def _check_embeddings(found: Array, expected: Array, exit_: Exit) -> Check:
    whole = str(exit_.model.dtype).endswith("float32")
    allowed = TOLERANCE if whole else COARSE
    if found.shape != expected.shape:
        text = f"embeddings have shape {found.shape}, {expected.shape} was expected"
        return Check("embeddings", False, None, None, allowed, text)
    lengths = gain(exit_, expected)
    largest = float((np.abs(found - expected) / np.maximum(lengths, 1e-12)).max())
    text = f"embeddings differ from the captured ones by up to {largest:.1e} of their length ({allowed:.0e} is allowed)"
    return Check("embeddings", bool(largest <= allowed), largest, 0.0, allowed, text)


def _check_quality(found: Array, rows: IntArray, material: Material, promise: Promise) -> Check:
    if promise.quality is None:
        return Check(
            "quality", None, None, None, None, "the run holds no quality of this candidate"
        )
    value = quality_of(found, rows, material)
    n = len(material.parts["test"])
    # A near tie may fall the other way in the last bits: one example of a mean, and a little of a rank correlation.
    allowed = 1e-4 if material.task.kind == "similarity" else 1 / n
    text = (
        f"{promise.measure} on the test part is {value:.4f}, the run says {promise.quality:.4f} "
        f"({allowed:.4f} is allowed)"
    )
    close = abs(value - promise.quality) <= allowed + 1e-9
    return Check("quality", bool(close), value, promise.quality, allowed, text)


def quality_of(found: Array, rows: IntArray, material: Material) -> float:
    """The task's primary measure on the test part, of embeddings (or class scores) of the texts `rows`."""
    task, test = material.task, material.parts["test"]
    if isinstance(task, ClassificationTask):
        place = {int(row): i for i, row in enumerate(rows)}
        own = found[[place[int(row)] for row in task.rows[test]]]
        return float((own.argmax(axis=1) == task.labels[test]).mean())
    states = np.zeros((material.own, found.shape[1]), np.float32)
    states[rows] = found
    part = task.part(test)
    everything = np.arange(len(part))
    scores = part.score(states, [found.shape[1]], everything)[part.primary]
    return float(part.estimate(part.primary, scores, everything)[0])


def _check_time(times: Array, promise: Promise, exit_: Exit) -> Check:
    """Fails where even the lower limit of the measured share lies beyond what is allowed: noise alone must not.

    `times` (rounds, 4) as `fresh.py` takes them. What is compared is the model without what the library does around
    it, as in the run; the share with it is told beside.
    """
    if not len(times):
        return Check("time", None, None, promise.relative_cost, None, "time was not measured again")
    ratios = times[:, 0] / times[:, 1]
    share, around = float(np.median(ratios)), float(np.median(times[:, 2] / times[:, 3]))
    draws = np.random.default_rng(0).integers(0, len(ratios), (1000, len(ratios)))
    low = float(np.quantile(np.median(ratios[draws], axis=1), 0.025))
    expected = promise.relative_cost
    if expected is None or not (exit_.view.decision or {}).get("cost_measured", False):
        text = f"{share:.3f} of the full model's time; the run measured none"
        return Check("time", None, share, None, None, text)
    text = (
        f"{share:.3f} of the full model's time over {len(times)} rounds, the run measured {expected:.3f} "
        f"({SHARE_TOLERANCE} is allowed); with what the library does around the model: {around:.3f}"
    )
    return Check(
        "time", bool(low <= expected + SHARE_TOLERANCE), share, expected, SHARE_TOLERANCE, text
    )


def check_files(folder: Path, exit_: Exit) -> Check:
    """Weights in safetensors only, and no path of this machine in any settings file."""
    weights = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy"}
    bad = [p.name for p in folder.rglob("*") if p.suffix in weights or p.is_symlink()]
    if bad:
        return Check("files", False, None, None, None, f"{bad[0]} is no safetensors file")
    own = [Path.home(), Path.cwd(), cache_dir(), exit_.view.path, folder, Path(exit_.model.name)]
    known = {str(p.absolute()) for p in own if len(p.absolute().parts) > 2}
    anything = re.compile(
        "|".join(map(re.escape, sorted(known))) + r"|[\"\s](/home/|/Users/|/root/|/tmp/|[A-Z]:\\)"
    )
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TEXT_FILES and path.name not in _WORDS:
            match = anything.search(path.read_text(encoding="utf-8"))
            if match is not None:
                text = f"{path.name} names a place on this machine: {match[0].strip()}"
                return Check("files", False, None, None, None, text)
    return Check("files", True, None, None, None, "safetensors only, no path of this machine")
