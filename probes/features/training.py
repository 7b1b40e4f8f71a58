"""The part `train`: all autoencoders from one pass over the states, measured on held-out texts beside baselines."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from probes.features.material import LONG
from probes.sae.baselines import NeuronCoder, PCACoder, random_autoencoder
from probes.sae.estimator import SparseAutoencoder
from probes.sae.metrics import density_histogram, evaluate, measure, norm_ratio
from probes.sae.saelens import save_saelens
from probes.sae.select import SelectedRows
from probes.sae.together import train_together

if TYPE_CHECKING:
    from probes.features.study import Place, Study
    from probes.sae.data import Rows

HELD_OUT = "held out"
TRAINING = "training"  # folder of checkpoints beside the autoencoders
CHECKPOINT_EVERY = 200  # steps


def train(study: Study) -> None:
    """Tables sae_models, sae_history and sae_density, and how well each reconstructs what it was not trained on."""
    began = time.monotonic()
    rows = fit(study)
    seconds = time.monotonic() - began
    _keep(study)
    _tell(study)
    _describe(study, rows, seconds)
    _measure(study, rows)


def fit(study: Study) -> dict[int, SelectedRows]:
    """Train every autoencoder of the plan, or take it over from an earlier start of the run; the rows by layer."""
    material, plan = study.material, study.plan
    rows = {n: material.rows(n, material.train) for n in study.numbers}
    d = next(iter(rows.values())).d
    study.saes = {
        place: plan.training.make(place.k, d, plan.seed, str(study.model.device))
        for place in study.places
    }
    train_together(
        {place.slug: sae for place, sae in study.saes.items()},
        rows,
        reads={place.slug: place.number for place in study.places},
        checkpoint=None if plan.folder is None else plan.folder / TRAINING,
        every=CHECKPOINT_EVERY,
        progress=study.report("training autoencoders"),
    )
    return rows


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
                "target_l0": sae.target_l0,
                "steps": sae.n_steps_,
                "tokens": rows[place.number].n,
                "seconds": seconds,
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
