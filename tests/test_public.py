"""What the README and the design promise a user: names, quick imports, the example, the commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import probes
from probes.cli.main import app
from probes.cli.shell import invoke

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_probes_loads_no_torch_and_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "sklearn", "pandas", "plotly", "streamlit"]
    code = f"import sys, probes; print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]"


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, probes.cli.main; print('torch' in sys.modules)"
    assert python(code) == "False"


def test_every_public_name_is_there_and_a_misspelt_one_is_not() -> None:
    for name in probes.__all__:
        assert getattr(probes, name) is not None
    with pytest.raises(AttributeError, match="loadmodel"):
        probes.loadmodel  # noqa: B018


@pytest.mark.parametrize("first", ["", "import probes.capture.hooks; ", "import probes.capture; "])
def test_capture_can_be_called_although_a_package_has_its_name(first: str) -> None:
    assert python(f"{first}from probes import capture; print(callable(capture))") == "True"


@pytest.mark.models
@pytest.mark.slow
def test_the_examples_of_the_readme_run_one_after_the_other() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    shown = python(
        "\n".join(blocks)
        + "\nprint(X.shape, X.dtype, sorted(map(int, set(table.layer))), model.n_layers)"
        + "\nimport numpy as np"
        + "\nlabels = np.asarray(data.labels)"
        + "\ndef gap(H):"
        + "\n    return np.abs(H[labels == 1].mean(0) - H[labels == 0].mean(0)).max()"
        + "\nbefore, after = inside['resid_post', 3], without['resid_post', 3]"
        + "\nprint(gap(before) > 1e-2, gap(after) < 1e-4 * np.abs(before).max(), eraser.rank)"
    )
    assert shown.splitlines() == [
        "(1468, 384) float32 [0, 1, 2, 3, 4, 5, 6] 6",
        "True True 1",
    ]


def test_the_two_commands_stand_in_the_readme() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    assert blocks[0].strip() == "pip install -e . && fathometer demo"
    assert blocks[1].strip() == 'pip install -e ".[dev]" && pytest'


@pytest.mark.parametrize(
    "words",
    [
        ["demo"],
        ["models", "list"],
        ["models", "pull"],
        ["datasets", "list"],
        ["datasets", "show"],
        ["capture"],
        ["run"],
        ["report"],
        ["export"],
        ["dashboard"],
        ["doctor"],
    ],
)
def test_every_command_teaches_with_help(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(app, [*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage" in text
    assert len(text) > 200


def test_datasets_can_be_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["datasets", "list"]) == 0
    assert "docstrings" in capsys.readouterr().out
    assert invoke(app, ["datasets", "show", "cities"]) == 0
    assert "licence" in capsys.readouterr().out
    assert invoke(app, ["datasets", "show", "reference"]) == 0
    assert "PSF" in capsys.readouterr().out
    assert invoke(app, ["datasets", "show", "citees"]) == 2
    assert "did you mean 'cities'" in capsys.readouterr().err


def test_models_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "minilm" in out
    assert "smollm2" in out


def test_doctor_says_what_is_installed_and_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FATHOMETER_RUNS", str(tmp_path / "runs"))
    assert invoke(app, ["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out
    assert "writable" in out
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("FATHOMETER_CACHE", "/proc/nowhere")
    assert invoke(app, ["doctor"]) == 2
