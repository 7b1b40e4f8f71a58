"""The parts that read trained autoencoders in the model: loss recovered, concepts, features, effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.datasets import limit_dataset, load_concepts
from probes.datasets.splits import components
from probes.errors import DoesNotApply
from probes.features.training import HELD_OUT, with_baselines
from probes.models.completions import require_language_model
from probes.sae.baselines import PCACoder
from probes.sae.concepts import concepts_of_features, feature_concepts
from probes.sae.effects import EffectOptions, feature_effects
from probes.sae.examples import ExamplePlan
from probes.sae.features import FeatureTables, describe_features
from probes.sae.halves import concept_labels
from probes.sae.ordinary import OrdinaryCoder
from probes.sae.probing import sparse_probing
from probes.sae.splice import loss_recovered
from probes.sae.token_states import text_codes
from probes.types import LabelledTexts

if TYPE_CHECKING:
    from probes.features.study import Study

FEATURE_TEXTS = (
    1000  # read for examples: enough for features that are active once in ten thousand tokens
)
EFFECT_TEXTS = 150
FEATURES_HALF, EFFECTS_HALF = (
    0,
    1,
)  # effects are judged on texts that had no part in picking the features


def loss(study: Study) -> None:
    """How much of the model's loss each autoencoder keeps, beside its baselines, on held-out texts."""
    require_language_model(study.model)
    if not study.saes:
        raise DoesNotApply("no autoencoder was trained: the part train is needed")
    texts = _held_out(study, study.plan.look.loss_texts)
    for number in study.numbers:
        rows = study.material.rows(number, study.material.train)
        coders: dict[str, Any] = {}
        for place, sae in study.saes.items():
            if place.number == number:
                made = with_baselines(sae, rows, study.plan.seed)
                coders |= {
                    f"{place.variant if name == 'sae' else name} k={place.k}": coder
                    for name, coder in made.items()
                }
        found = loss_recovered(
            study.model,
            coders,
            texts,
            study.plan.training.site,
            number,
            longest=study.material.longest[number],
            max_length=study.length,
            resamples=study.plan.draws,
            seed=study.plan.seed,
            progress=study.report("loss with reconstructed states"),
            dataset="texts",
            split=HELD_OUT,
        )
        study.add(found)
        shares: Any = found[found["measure"] == "loss_recovered"]["value"]
        if shares.isna().any():
            study.tell(
                [
                    f"{study.places[0].letter}{number}: the mean in place of every state is not shown to cost the "
                    "model anything, so there is no share of the loss to be recovered: give more --loss-texts, or "
                    "other --layers"
                ]
            )


def concepts(study: Study) -> None:
    """Tables sae_concepts, sae_probing and sae_feature_concepts: what single features, and few of them, tell apart."""
    plan = study.plan
    sets = _labelled(study)
    single: list[pd.DataFrame] = []
    sparse: list[pd.DataFrame] = []
    each: list[pd.DataFrame] = []
    for place, sae in study.main.items():
        rows = study.material.rows(place.number, study.material.train)
        made = with_baselines(sae, rows, plan.seed)
        made["neurons"] = None  # every coordinate of the state, none left out
        made["pca"] = PCACoder(rows.d).fit(rows)  # and every component, not the first k only
        for done, data in enumerate(sets):
            study.progress(done, len(sets), f"concepts: {data.name}")
            codes = text_codes(
                study.model,
                made,
                data.texts,
                place.site,
                place.number,
                pooling="last" if study.model.is_causal else "mean",
                longest=study.material.longest[place.number],
                max_length=study.length,
            )
            X = codes["neurons"]
            labels, groups = concept_labels(data), components(data)
            given: dict[str, Any] = {
                "dataset": data.name,
                "resamples": plan.draws,
                "seed": plan.seed,
            }
            named = {"sae": place.name}
            single.append(feature_concepts(codes, X, labels, groups, **given).assign(**named))
            sparse.append(sparse_probing(codes, X, labels, groups, **given).assign(**named))
            each.append(
                concepts_of_features(codes["sae"], None, labels, groups, **given).assign(**named)
            )
    study.write("sae_concepts", pd.concat(single, ignore_index=True))
    study.write("sae_probing", pd.concat(sparse, ignore_index=True))
    study.write("sae_feature_concepts", pd.concat(each, ignore_index=True))


def _labelled(study: Study) -> list[LabelledTexts]:
    """The labelled texts that the plan names; others are told, `DoesNotApply` where there are none."""
    plan = study.plan
    found: list[LabelledTexts] = []
    for concept in load_concepts(plan.look.concepts, plan.look.columns, seed=plan.seed):
        data = limit_dataset(
            concept.dataset, plan.look.concept_limit, np.random.default_rng(plan.seed)
        )
        if isinstance(data, LabelledTexts) and concept_labels(data):
            found.append(data)
        else:
            study.tell(
                [f"concept {concept.name}: no labelled texts with 20 of each kind, left out"]
            )
    if not found:
        raise DoesNotApply("no labelled texts were named: give some with --concepts")
    return found


def features(study: Study) -> None:
    """Tables sae_features and sae_examples: where each feature is active, and what it writes."""
    every: list[pd.DataFrame] = []
    examples: list[pd.DataFrame] = []
    material = study.material
    for place, sae in study.main.items():
        known = study.tables.get("sae_feature_concepts")
        own: Any = None if known is None else known[known["sae"] == place.name]
        found: FeatureTables = describe_features(
            study.model,
            OrdinaryCoder(sae, material.longest[place.number]),
            material.chosen(material.train)[:FEATURE_TEXTS],
            place.site,
            place.number,
            held_out=_half(study, FEATURES_HALF),
            concepts=() if own is None else (own,),
            plan=ExamplePlan(seed=study.plan.seed),
            progress=study.report(f"reading features of {place.name}"),
            max_length=study.length,
        )
        every.append(found.features.assign(sae=place.name))
        examples.append(found.examples.assign(sae=place.name))
        study.tell(f"{place.name}: {note}" for note in found.notes)
    study.write("sae_features", pd.concat(every, ignore_index=True))
    study.write("sae_examples", pd.concat(examples, ignore_index=True))


def effects(study: Study) -> None:
    """Table sae_effects: what the model does without a feature, or with more of it, for the features that are shown."""
    require_language_model(study.model)
    table: Any = study.tables.get("sae_features")
    if table is None:
        raise DoesNotApply("no feature was read: the part features is needed")
    found: list[pd.DataFrame] = []
    for place, sae in study.main.items():
        shown = table[(table["sae"] == place.name) & table["shown"].notna()]
        chosen = shown.sort_values("shown")["feature"].astype(int).tolist()
        if not chosen:
            continue
        rows = feature_effects(
            study.model,
            sae,
            _half(study, EFFECTS_HALF)[:EFFECT_TEXTS],
            place.site,
            place.number,
            chosen,
            options=EffectOptions(
                longest=study.material.longest[place.number],
                max_length=study.length,
                seed=study.plan.seed,
            ),
            progress=study.report(f"effects of features of {place.name}"),
        )
        found.append(rows.assign(sae=place.name))
    if not found:
        raise DoesNotApply("no feature could be picked to be read, so that none was tried")
    study.write("sae_effects", pd.concat(found, ignore_index=True))


def _half(study: Study, which: int) -> list[str]:
    """One of two halves of the held-out texts: every other one."""
    return study.material.chosen(study.material.held_out[which::2])


def _held_out(study: Study, most: int) -> list[str]:
    material = study.material
    return material.chosen(material.held_out)[:most]
