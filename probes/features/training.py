"""The part `train`: all autoencoders from one pass over the states, measured on held-out texts beside baselines."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.files import make_dir, write_json
from probes.sae.baselines import NeuronCoder, PCACoder, random_autoencoder
from probes.sae.estimator import SparseAutoencoder
from probes.sae.metrics import density_histogram, evaluate, measure, norm_ratio
from probes.sae.saelens import save_saelens
from probes.sae.select import SelectedRows
from probes.sae.stream_model import LONG
from probes.sae.together import train_together

if TYPE_CHECKING:
    from probes.features.study import Place, Study
    from probes.sae.data import Rows

HELD_OUT = "held out"
TRAINING = "training"  # folder of checkpoints beside the autoencoders
SECONDS = "seconds.json"
CHECKPOINT_EVERY = 200  # steps
CLOCK_EVERY = 2.0  # seconds


def train(study: Study) -> None:
    """Tables sae_models, sae_history and sae_density, and how well each reconstructs what it was not trained on."""
    rows, seconds = fit(study)
    _keep(study)
    _tell(study)
    _describe(study, rows, seconds)
    _measure(study, rows)


class Clock:
    """Seconds of training in all starts of a run: written down now and then in `folder`, beside the checkpoints."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / SECONDS
        self._before, self._began = self._read(), time.monotonic()
        self._written = self._began

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.monotonic() - self._began

    def tick(self) -> None:
        """Write the seconds down if the last time is long ago."""
        now = time.monotonic()
        if self._file is not None and now - self._written >= CLOCK_EVERY:
            self._written = now
            make_dir(self._file.parent)
            write_json(self._file, {"seconds": self.seconds})

    def _read(self) -> float:
        if self._file is None or not self._file.is_file():
            return 0.0
        try:
            found = float(json.loads(self._file.read_text(encoding="utf-8"))["seconds"])
            return found if 0 <= found < float("inf") else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0  # a time, on which nothing else rests


def fit(study: Study) -> tuple[dict[int, SelectedRows], float]:
    """Train every autoencoder of the plan, or take it over from an earlier start of the run.

    Returns the rows by layer, and the seconds that training took in all starts, for all autoencoders together.
    """
    material, plan = study.material, study.plan
    rows = {n: material.rows(n, material.train) for n in study.numbers}
    d = next(iter(rows.values())).d
    folder = None if plan.folder is None else plan.folder / TRAINING
    clock, report = Clock(folder), study.report("training autoencoders")

    def tell(done: int, total: int) -> None:
        clock.tick()
        report(done, total)

    study.saes = {
        place: plan.training.make(place.k, d, plan.seed, str(study.model.device))
        for place in study.places
    }
    train_together(
        {place.slug: sae for place, sae in study.saes.items()},
        rows,
        reads={place.slug: place.number for place in study.places},
        checkpoint=folder,
        every=CHECKPOINT_EVERY,
        progress=tell,
    )
    return rows, clock.seconds


def _tell(study: Study) -> None:
    """How many states were left out, and why."""
    material = study.material
    for number in study.numbers:
        n, first = material.left_out(number), material.first
        if n or first:
            firsts = "each text's first token and " if first else ""
            study.tell(
                [
                    f"{study.places[0].letter}{number}: {firsts}{n:,} other tokens with states over {LONG:g} times the "
                    "median length (attention sinks) were left out of training and measuring"
                ]
            )


def _keep(study: Study) -> None:
    folder = study.plan.folder
    if folder is None:
        return
    for place, sae in study.saes.items():
        save_saelens(sae, folder.parent / place.folder, **_about(study, place))


def _about(study: Study, place: Place) -> dict[str, Any]:
    """What is said of an autoencoder in its own folder."""
    return {"model_name": study.model.name, "hook_name": place.site, "hook_layer": place.number}


def forget_training(study: Study) -> None:
    """Remove what only a run that goes on needs: three times the weights."""
    if study.plan.folder is not None:
        shutil.rmtree(study.plan.folder / TRAINING, ignore_errors=True)


def _describe(study: Study, rows: dict[int, Any], seconds: float) -> None:
    models: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    for place, sae in study.saes.items():
        models.append(
            {
                "sae": place.name,
                "site": place.site,
                "layer": place.number if place.by_layer else None,
                "block": None if place.by_layer else place.number,
                "variant": place.variant,
                "k": place.k,
                "n_features": sae.n_features,
                "target_l0": float(sae.k if sae.target_l0 is None else sae.target_l0),
                "steps": sae.n_steps_,
                "tokens": rows[place.number].n,
                "seconds": seconds / len(study.saes),  # they are trained in one pass
                "norm_ratio": norm_ratio(rows[place.number]),
                "main": place.main,
                "folder": None if study.plan.folder is None else place.folder,
            }
        )
        history += [{"sae": place.name, **row} for row in sae.history_.to_dict("records")]
    study.write("sae_models", models)
    study.write("sae_history", history)


def _measure(study: Study, rows: dict[int, Any]) -> None:
    """Reconstruction of held-out tokens; intervals over texts."""
    material, plan = study.material, study.plan
    densities: list[dict[str, Any]] = []
    for done, (place, sae) in enumerate(study.saes.items()):
        study.progress(done, len(study.saes), "measuring reconstruction")
        held = material.rows(place.number, material.held_out)
        coders = with_baselines(sae, rows[place.number], plan.seed)
        study.add(
            evaluate(
                {f"{name} k={place.k}": coder for name, coder in _named(coders, place).items()},
                held,
                groups=material.groups(place.number, material.held_out),
                resamples=plan.draws,
                seed=plan.seed,
                dataset="texts",
                split=HELD_OUT,
                **place.where,
            )
        )
        for name in ("sae", "random"):
            table = density_histogram(measure(coders[name], held).density)
            densities += [
                {"sae": place.name, "coder": name, **row} for row in table.to_dict("records")
            ]
    study.write("sae_density", densities)


def with_baselines(sae: SparseAutoencoder, rows: Rows | Any, seed: int) -> dict[str, Any]:
    """An autoencoder and what it must beat, all fitted to the same states, by their names in tables."""
    k = sae.k
    return {
        "sae": sae,
        "random": random_autoencoder(sae, rows, seed),
        "pca": PCACoder(k).fit(rows),
        "neurons": NeuronCoder(k).fit(rows),
    }


def _named(coders: dict[str, Any], place: Place) -> dict[str, Any]:
    return {place.variant if name == "sae" else name: c for name, c in coders.items()}
