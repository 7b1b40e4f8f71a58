"""The tables of a run of autoencoders: the features to read, and the autoencoders themselves."""

from __future__ import annotations

from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.frames import only
from probes.report.sae_examples import QUANTILES, examples_in, in_words, quoted, texts_in
from probes.report.sae_tables import (
    Row,
    SaeFocus,
    coder_of,
    is_sae,
    models,
    of_sae,
    saes_of,
    shown_features,
)
from probes.report.tables import Table
from probes.report.text import NOTHING, clean, count, counted, interval, number, percent, sentence


def feature_table(data: RunData, focus: SaeFocus | None = None) -> Table | None:
    """The features that were picked to be read; None without any."""
    focus = focus or SaeFocus()
    rows = shown_features(data, focus) if is_sae(data) else []
    if not rows:
        return None
    texts = _first_texts(data, rows)
    body = tuple(_feature_row(row, texts.get(int(row["feature"]), NOTHING)) for row in rows)
    why = list(dict.fromkeys(clean(row["why"], 160) for row in rows if row["why"]))
    note = (
        f"{counted(len(body), 'feature')} of {clean(rows[0]['sae'], 60)} that the run picked to be read. "
        "Fires: share of tokens. Promotes: tokens that it makes more likely. Concept: the labelled one that it tells "
        "best, with the AUROC on examples that did not pick it and a 95 % interval; none where the interval is not "
        "above 0.5, which one in forty gets past by chance. Fires most in: text round the strongest token, which "
        "stands between « and »."
    )
    note += f" Picked because: {sentence(why[0])}" if len(why) == 1 else ""
    columns = ("feature", "fires", "promotes", "fires most in", "concept", "AUROC")
    return Table("", columns, body, frozenset({0, 1}), note)


def feature_names(data: RunData, focus: SaeFocus | None = None) -> list[str]:
    """Features of the table, row by row."""
    return [f"{row['feature']:.0f}" for row in shown_features(data, focus or SaeFocus())]


def _first_texts(data: RunData, rows: list[Row]) -> dict[int, str]:
    """The strongest example of every feature in words."""
    found = of_sae(data, "sae_examples", SaeFocus(rows[0]["sae"]))
    if found is None or found[1] != rows[0]["sae"]:
        return {}
    told: dict[int, str] = {}
    for row in rows:
        kept = examples_in(only(found[0], feature=row["feature"]))
        first = next((e for quantile in QUANTILES for e in kept.get(quantile, ())), None)
        if first is not None:
            told[int(row["feature"])] = in_words(first, 20, 24)
    return told


def _feature_row(row: Row, text: str) -> tuple[str, ...]:
    known = bool(row["concept"]) and row["auroc_low"] > 0.5
    span = interval(row["auroc_low"], row["auroc_high"], 2)
    return (
        f"{row['feature']:.0f}",
        percent(row["density"], 2),
        quoted(texts_in(row["up_tokens"]), 3) or NOTHING,
        text,
        clean(row["concept"], 40) if known else NOTHING,
        f"{number(row['auroc'], 2)} {span}".strip() if known else NOTHING,
    )


def autoencoder_table(data: RunData) -> Table | None:
    """Every autoencoder of the run with what it keeps and what it took; None without any."""
    names = saes_of(data) if is_sae(data) else []
    if not names:
        return None
    rows: list[tuple[str, ...]] = []
    for name in names:
        own, coder = models(data).get(name, {}), coder_of(data, name)
        values = {} if coder is None else coder.numbers
        rows.append((
            clean(name, 60),
            count(own.get("n_features")),
            number(None if coder is None else coder.active, 1),
            _share(values.get("explained_variance")),
            _share(values.get("loss_recovered")),
            percent(values.get("dead_share", {}).get("value")),
            count(own.get("tokens")),
            count(own.get("steps")),
            count(own.get("seconds")),
        ))  # fmt: skip
    columns = (
        "autoencoder", "features", "active", "variance explained", "loss recovered", "dead", "tokens", "steps",
        "seconds",
    )  # fmt: skip
    folders = [clean(row["folder"], 80) for row in models(data).values() if row["folder"]]
    note = "On held-out states, with 95 % intervals. Dead: features that never fire there."
    note += (
        f" Saved in the folder of the run, in the format of SAELens: {listed(folders)}."
        if folders
        else ""
    )
    return Table("Autoencoders", columns, tuple(rows), frozenset(range(1, len(columns))), note, 0)


def _share(row: Row | None) -> str:
    if row is None:
        return NOTHING
    return f"{percent(row['value'])} {interval(100 * row['low'], 100 * row['high'], 1)}".strip()
