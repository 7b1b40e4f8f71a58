"""A whole study over poolings, precisions, remedies and translators, on a tiny model and on planted states."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probes.exits.candidates import Candidate
from probes.exits.encoded import Encoded, in_precision, kept_table
from probes.exits.export.recipes import recipe_of
from probes.exits.latency import LatencyPlan
from probes.exits.material import prepare
from probes.exits.peers import PeerPlan
from probes.exits.pipeline import StudyPlan, study_exits, study_states
from probes.exits.recipe import load_recipe, save_recipe
from probes.exits.translate import StaticTable, TranslatorSpec
from probes.exits.walk import Budget
from probes.exits.ways import SearchSpace, Source
from probes.linalg import normalise_rows
from probes.tables import validate
from probes.types import TextPairs

SPACE = SearchSpace(
    ("last", "ditto"), ("centred", "whitened"), ("bfloat16",), ("ridge", "ridge+sif+table", "table")
)


@pytest.fixture(scope="module")
def pairs(zoo):
    rng, rows = np.random.default_rng(0), []
    for i, text in enumerate(zoo.texts(240, seed=1)):
        other = zoo.texts(1, seed=1000 + i)[0]
        words, cut = text.split(), int(rng.integers(0, len(text.split()) + 1))
        rows.append((text, " ".join(words[:cut] + other.split()[cut:]) or other, float(cut)))
    a, b, scores = zip(*rows, strict=True)
    return TextPairs("pairs", a, b, np.asarray(scores))


@pytest.fixture(scope="module")
def model(zoo):
    return zoo.build("bert")


@pytest.fixture(scope="module")
def study(zoo, pairs, model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATHOMETER_CACHE", str(tmp_path_factory.mktemp("cache")))
        timing = LatencyPlan(seconds=0.4, max_rounds=3, min_rounds=2)
        plan = StudyPlan(draws=100, latency=timing, space=SPACE)
        texts = [f"{text} extra" for text in zoo.texts(80, seed=5)]
        return study_exits(model, pairs, Budget(0.5), texts, plan)


def test_every_way_is_measured_and_the_table_is_tidy(study):
    found = set(study.measurements["variant"].dropna())
    assert {"whitened", "pool=last", "pool=ditto", "bfloat16", "bfloat16,translated"} <= found
    assert {"translated=mean+sif+table", "bfloat16,translated=mean+sif+table"} <= found
    static = study.measurements[study.measurements["variant"] == "translated=table"]
    assert set(static["layer"]) == {0}
    validate(study.measurements)


def test_other_ways_have_a_time_of_their_own_and_the_choice_goes_by_it(study):
    cost = study.measurements[study.measurements["measure"] == "relative_cost"]
    timed = set(cost["variant"].dropna())
    assert {"bfloat16", "bfloat16,whitened", "translated=table", "pool=ditto"} <= timed
    assert not {"whitened", "translated", "pool=last"} & timed
    decision = study.decision.to_dict()
    for entry in [
        *decision["alternatives"],
        *([decision] if decision["layer"] is not None else []),
    ]:
        of_layer = cost[cost["layer"] == entry["layer"]]
        variant = entry["variant"]
        own = of_layer[of_layer["variant"] == variant] if variant in timed else None
        rows = of_layer[of_layer["variant"].isna()] if own is None else own
        assert entry["relative_cost"] == pytest.approx(float(rows["value"].iloc[0]))


def test_what_needs_code_is_measured_but_in_no_chain(study):
    chains = set(study.chains["chain"])
    assert not any("sif" in name or "ditto" in name for name in chains)
    assert all(e["exportable"] for e in study.decision.to_dict()["alternatives"])


def test_recipes_give_what_was_measured(study, model, tmp_path):
    """For every kind of way: the recipe, kept and read again, on its inputs, has the cosines of the grid."""
    task = study.material.task
    for variant in study.variants.states:
        layer = 0 if variant == "translated=table" else 1
        recipe = recipe_of(Candidate(variant, layer, 8), study, model.embedding)
        save_recipe(recipe, tmp_path / "one")
        again = load_recipe(tmp_path / "one")
        way = study.variants.ways[variant]
        assert again.reason == way.reason
        assert again.precision == (way.source.precision or "float32")
        assert (again.table is None) == (way.spec is None or not way.spec.table)
        if way.spec is None:
            given = study.encoded.states[way.source][layer]
        else:
            given = study.encoded.inputs("mean", way.source.precision).read(
                way.spec, layer, slice(None)
            )
        made = normalise_rows(again(given))
        expected = normalise_rows(np.asarray(study.variants.states[variant][layer])[:, :8])
        np.testing.assert_allclose(
            (made[task.a] * made[task.b]).sum(1),
            (expected[task.a] * expected[task.b]).sum(1),
            atol=2e-4,
        )
    assert len(list(tmp_path.glob("table-*"))) == 1


def test_tables_of_translators(study):
    table = study.tables["translators"]
    assert set(table["use"]) == {"symmetric", "asymmetric"}
    assert {"raw", "mean", "mean+sif+table", "table", "full model"} <= set(table["spec"])
    full = table[table["spec"] == "full model"].iloc[0]
    assert full["share"] == 1
    raw = table[(table["spec"] == "raw") & (table["layer"] == 1)].set_index("use")
    own = table[(table["spec"] == "mean") & (table["layer"] == 1)].set_index("use")
    for use in ("symmetric", "asymmetric"):
        gain = own.loc[use, "share"] - raw.loc[use, "share"]
        assert own.loc[use, "over_raw"] == pytest.approx(gain)
        assert own.loc[use, "over_raw_low"] <= gain <= own.loc[use, "over_raw_high"]
    assert raw["over_raw"].isna().all()
    rich = table[table["spec"] == "mean+sif+table"]
    assert not rich["exportable"].any()
    assert rich["r2"].notna().all()
    curve = study.tables["translator_curve"]
    assert set(curve["spec"]) == {"mean", "mean+sif+table", "table"}


def test_symmetric_quality_is_that_of_the_grid(study):
    """The same rows and the same measure as the grid's, from another road."""
    table = study.tables["translators"].set_index(["spec", "layer", "use"])
    rows = np.sort(np.concatenate([r for n, r in study.material.parts.items() if n != "fit"]))
    states = np.asarray(study.variants.states["translated"][2])
    task = study.material.task
    cells = task.score(states, [states.shape[1]], rows)["spearman"]
    expected = float(task.estimate("spearman", cells, rows)[0])
    assert table.loc[("mean", 2, "symmetric"), "quality"] == pytest.approx(expected, abs=1e-9)


def test_asymmetric_use_needs_the_translator(rng):
    """A rotated layer answers nothing against full embeddings; its translator brings it back."""
    n, width = 300, 12
    texts = tuple(f"left {i}" for i in range(n)), tuple(f"right {i}" for i in range(n))
    scores = rng.uniform(0, 1, n)
    data = TextPairs("pairs", *texts, scores)
    material = prepare(data, [f"free {i}" for i in range(60)])
    place = {text: i for i, text in enumerate(material.texts)}
    last = rng.normal(size=(len(material.texts), width))
    for i in range(n):
        a, b = place[texts[0][i]], place[texts[1][i]]
        last[b] = scores[i] * last[a] + (1 - scores[i]) * last[b]
    last = normalise_rows(last)
    turned = last @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    plan = StudyPlan(draws=100, latency=None, pooling="mean")
    study = study_states(material, {0: turned, 1: last}, Budget(0.9), plan, peers=PeerPlan(100))
    table = study.tables["translators"].set_index(["spec", "use"])["share"]
    assert table["raw", "symmetric"] == pytest.approx(1, abs=1e-6)
    assert abs(table["raw", "asymmetric"]) < 0.4
    assert table["mean", "asymmetric"] > 0.99


def planted(rng, allow_code):
    """Layer 0 with its SIF states and table says everything; its plain states say nothing."""
    n, width = 400, 8
    texts = tuple(f"left {i}" for i in range(n)), tuple(f"right {i}" for i in range(n))
    scores = rng.uniform(0, 1, n)
    material = prepare(TextPairs("pairs", *texts, scores), [f"free {i}" for i in range(60)])
    place = {text: i for i, text in enumerate(material.texts)}
    last = rng.normal(size=(len(material.texts), width))
    for i in range(n):
        a, b = place[texts[0][i]], place[texts[1][i]]
        last[b] = scores[i] * last[a] + (1 - scores[i]) * last[b]
    noise = [rng.normal(size=last.shape) for _ in range(2)]
    table = StaticTable(np.ones((1, width)), np.ones(1))
    spec = TranslatorSpec(("mean", "sif"), table=True)
    states = {0: noise[0], 1: noise[1], 2: last}
    sif = dict.fromkeys(states, noise[0])
    read = Encoded(
        {Source(): states},
        (TranslatorSpec(), spec),
        {None: sif},
        table,
        last @ np.diag(np.arange(1.0, 9)),
    )
    space = SearchSpace(allow_code=allow_code)
    plan = StudyPlan(draws=200, latency=None, pooling="mean", space=space)
    return study_states(material, read, Budget(0.9), plan).decision


def test_only_where_code_is_allowed_is_such_an_exit_chosen(rng):
    without, allowed = (planted(np.random.default_rng(0), flag) for flag in (False, True))
    assert without.layer in (None, 2)
    assert allowed.layer == 0
    assert allowed.variant == "translated=mean+sif+table"
    assert allowed.to_dict()["exportable"] is False


def test_the_table_is_kept_for_the_next_time(model, own_cache, monkeypatch):
    from probes.exits import encoded

    first = kept_table(model)
    monkeypatch.setattr(encoded, "static_table", None)
    np.testing.assert_array_equal(kept_table(model), first)


def test_precisions_that_cannot_be(model):
    from probes.errors import InputError

    with pytest.raises(InputError, match="already"):
        in_precision(model, "float32")
    low = in_precision(model, "bfloat16")
    assert str(low.dtype) == "torch.bfloat16"
    assert str(model.dtype) == "torch.float32"


def test_no_translators_no_tables(rng):
    material = prepare(
        TextPairs("p", *[tuple(f"{s} {i}" for i in range(60)) for s in "ab"], rng.uniform(size=60))
    )
    pooled = {k: rng.normal(size=(len(material.texts), 6)) for k in range(3)}
    plan = StudyPlan(draws=50, latency=None, pooling="mean", space=SearchSpace(translators=()))
    study = study_states(material, pooled, Budget(0.9), plan, peers=PeerPlan(50))
    assert not study.tables
    assert pd.isna(study.measurements["variant"]).any()
    assert "translated" not in set(study.measurements["variant"].dropna())
