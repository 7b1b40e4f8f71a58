"""What the part `composition` of the study writes: tables, and a row for every registered measure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probes.heads.study import kinds
from probes.registry import MEASURES
from probes.tables import tidy


def test_composition_writes_every_registered_measure(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    find = kinds.all_head_weights
    monkeypatch.setattr(kinds, "all_head_weights", lambda model: calls.append(1) or find(model))
    rows: list[dict[str, Any]] = []
    tables: dict[str, Any] = {}
    study: Any = SimpleNamespace(
        model=tiny("llama"), plan=SimpleNamespace(seed=0), progress=lambda *_: None, tell=lambda _: None,
        add=lambda some: rows.extend(some), write=tables.__setitem__,
    )  # fmt: skip
    kinds.composition(study)
    assert calls == [1]
    frame = tidy(rows)
    assert (frame["measure"] == "copying_score").sum() == 3 * 4
    assert frame.loc[frame["measure"] == "composition", "variant"].tolist() == ["Q", "K", "V"]
    assert set(tables) == {"composition", "head_spectra"}
    assert tables["composition"]["floor_max_high"].notna().any()


def test_what_ablations_are_judged_by_is_registered() -> None:
    for name in ("needle_accuracy", "answer_logprob", "control_logprob"):
        assert MEASURES[name].title
