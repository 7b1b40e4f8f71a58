"""Words and figure of effects: counted is what can be told, and nothing more is claimed of steering than it shows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import synthetic_sae as planted

from probes.report import RunData
from probes.report.figures import feature_effects
from probes.report.sae_study import effects
from probes.report.theme import ACCENT
from probes.runs import RunView

FIRST = next(iter(planted.READ))


def _changed(tmp_path: Path, **more: object) -> RunData:
    """A run whose first feature has other values in the rows of ablation."""
    path = planted.write_sae_run(tmp_path, parts=("effects",))
    (file,) = path.rglob("sae_effects.parquet")
    frame = pd.read_parquet(file)
    first = (frame["feature"] == FIRST) & (frame["mode"] == "ablate")
    for name, value in more.items():
        frame.loc[first, name] = value
    frame.to_parquet(file)
    return RunData.of(RunView(path))


def test_words_say_what_was_compared_and_on_how_many_tokens(tmp_path: Path) -> None:
    told = effects(_changed(tmp_path))
    assert "taking as much away along random features does, for 10 of 10 features" in told
    assert "(300 tokens each)" in told
    assert "own promoted tokens otherwise than random features move theirs, for 10 of 10" in told
    assert "no more than that a direction moves the tokens that it points at" in told


def test_features_of_few_tokens_are_not_told(tmp_path: Path) -> None:
    data = _changed(tmp_path, n=29)
    told = effects(data)
    assert "for 9 of 9 features (300 tokens each), too few tokens to tell (under 30): 1" in told
    assert "for 10 of 10 features" in told  # steering changes every token
    card = feature_effects(data)
    assert card is not None
    own = next(t for t in card.spec["data"] if t.get("name") == "feature")
    at = own["meta"]["features"].index(FIRST)
    assert own["marker"]["color"][at] != ACCENT
    assert own["marker"]["symbol"].count("circle-open") == 1
    assert own["marker"]["symbol"][at] == "circle-open"
    assert "9 of 9 features differ" in card.alt
    (tmp_path / "enough").mkdir()
    assert "for 10 of 10 features (30 to 300 tokens" in effects(_changed(tmp_path / "enough", n=30))


def test_features_without_controls_are_not_told(tmp_path: Path) -> None:
    names = (
        "control_value", "control_low", "control_high", "difference", "difference_low", "difference_high",
    )  # fmt: skip
    data = _changed(tmp_path, **dict.fromkeys(names))
    assert "for 9 of 9 features (300 tokens each), no control: 1" in effects(data)
    card = feature_effects(data)
    assert card is not None
    assert "no control: 1" in card.alt
