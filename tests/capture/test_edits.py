"""States of an edited model can be looked at, but never end up in a store that passes for the model's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from zoo import build, texts

from probes.capture import capture, edit_site
from probes.errors import InputError


@pytest.mark.parametrize("more", [{"cache": True}, {"out": "kept"}, {"dtype": "bfloat16"}])
def test_states_under_an_edit_are_not_kept(
    more: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache"))
    if "out" in more:
        more = {"out": tmp_path / "kept"}
    model, words = build("bert"), texts(4)
    with (
        edit_site(model, "resid_post", 1, lambda states: states * 0),
        pytest.raises(InputError, match="an edit of tiny-bert is in force"),
    ):
        capture(model, words, **more)  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*.safetensors"))
    capture(model, words, **more)  # type: ignore[arg-type]  # and afterwards it works again


def test_they_can_be_looked_at_and_the_edit_ends_with_its_context() -> None:
    model, words = build("bert"), texts(4)
    plain = np.array(capture(model, words)["exit", 3])
    with edit_site(model, "resid_post", 1, lambda states: states * 0):
        edited = np.array(capture(model, words)["exit", 3])
    assert np.abs(edited - plain).max() > 0.1
    np.testing.assert_array_equal(capture(model, words)["exit", 3], plain)
