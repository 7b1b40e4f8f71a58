"""Loading folders: what comes back is what was saved, and what is unsafe or incomplete is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from zoo import hf_model

from probes.errors import FathometerError, InputError, ModelError, NonFiniteError
from probes.models import load_model
from probes.models.load import locate, pick_device

Save = Callable[[str], Path]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5-encoder", "vit", "mamba", "opt"])
def test_a_saved_model_comes_back(name: str, saved: Save) -> None:
    folder = saved(name)
    model = load_model(folder, device="cpu")
    assert model.n_layers == 3
    theirs = model.hf_model.state_dict()
    for key, value in hf_model(name).state_dict().items():
        assert torch.equal(theirs[key], value)
    if name != "vit":
        assert model.tokenizer("the cat")["input_ids"][0] == 0
    assert model.structure.base.training is False


def test_dtype_and_device(saved: Save) -> None:
    folder = saved("bert")
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(InputError, match="did you mean 'float16'"):
        load_model(folder, dtype="floatl6")
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        load_model(folder, device="gpu")
    with pytest.raises(InputError, match=r"is not here.*try auto"):
        pick_device("cuda:99")


@pytest.mark.parametrize(
    "name", ["minilmm", "../nowhere", "a/b/c", "x" * 5000, "a\0b", "", "missing.gguf"]
)
def test_an_unknown_name_lists_the_catalogue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not name:
        name = " "
    with pytest.raises(InputError, match="Allowed: minilm, smollm2") as caught:
        load_model(name)
    assert len(str(caught.value)) < 400


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def refuse(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, local_files_only))
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"'owner/name' is no folder here.*no route") as caught:
        load_model("owner/name")
    assert "\n" not in str(caught.value)
    assert asked == [("owner/name", False), ("owner/name", True)]


def test_a_hub_id_is_loaded_from_its_cache(saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("bert")

    def answer(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        if not local_files_only:
            raise OSError("offline")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    assert load_model("owner/name").n_layers == 3


def refused(folder: Path) -> str:
    with pytest.raises(FathometerError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_pickle_weights_only(saved: Save) -> None:
    folder = saved("bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin only, a pickle file" in refused(folder)


def test_pickle_beside_safetensors_is_not_opened(saved: Save) -> None:
    folder = saved("bert")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert load_model(folder).n_layers == 3


def test_no_weights_no_config_no_folder(saved: Save, tmp_path: Path) -> None:
    folder = saved("bert")
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refused(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)
    plain = tmp_path / "notes.txt"
    plain.write_text("x")
    assert "is a file" in refused(plain)


def test_a_folder_that_is_no_model_is_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be somebody's home, with millions of files and links to everywhere."""
    (tmp_path / "link").symlink_to("/")

    def walk(*_args: object) -> None:
        pytest.fail("the folder was walked")

    monkeypatch.setattr(Path, "rglob", walk)
    assert "no config.json" in refused(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "config", "wrong width"])
def test_damaged_files(saved: Save, damage: str) -> None:
    folder = saved("bert")
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "garbage":
        weights.write_bytes(b"\xff" * 5000)
    elif damage == "config":
        config.write_text("{")
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 50}))
    assert "cannot be" in refused(folder)


def test_missing_weights_are_not_made_up(saved: Save) -> None:
    folder = saved("bert")
    tensors = load_file(folder / "model.safetensors")
    gone = "encoder.layer.1.output.dense.weight"
    save_file(
        {k: v for k, v in tensors.items() if k != gone},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    assert f"lacks 1 weights that BertModel needs, such as {gone}" in refused(folder)


def test_a_missing_pooler_does_not_matter(saved: Save) -> None:
    """Nothing that is measured goes through it, and many published encoders lack it."""
    folder = saved("bert")
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "pooler" not in k}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert load_model(folder).n_layers == 3


def test_nan_weights_are_named(saved: Save) -> None:
    folder = saved("llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        load_model(folder)


def test_a_missing_tokenizer(saved: Save) -> None:
    folder = saved("bert")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer (looked for tokenizer.json" in refused(folder)


def test_a_damaged_tokenizer(saved: Save) -> None:
    folder = saved("bert")
    (folder / "tokenizer.json").write_text("{]")
    assert "the tokenizer in" in refused(folder)


def test_remote_code_is_not_run(saved: Save, tmp_path: Path) -> None:
    folder = saved("bert")
    trap = tmp_path / "trap"
    (folder / "evil.py").write_text(
        f"open({str(trap)!r}, 'w')\nclass Config: ...\nclass Model: ...\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
    }
    config.pop("architectures")
    (folder / "config.json").write_text(json.dumps(config))
    message = refused(folder)
    assert "needs Python code of its own" in message
    assert "--trust-remote-code" in message
    assert not trap.exists()


def test_links_that_lead_outside(saved: Save, tmp_path: Path) -> None:
    folder = saved("bert")
    outside = tmp_path / "elsewhere.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    (folder / "model.safetensors").symlink_to(outside)
    assert "outside the model's folder" in refused(folder)


def test_the_links_of_a_hub_cache_are_fine(saved: Save, tmp_path: Path) -> None:
    folder = saved("bert")
    repository = tmp_path / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert load_model(snapshot).n_layers == 3
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (snapshot / "more.json").symlink_to(secret)
    assert "outside" in refused(snapshot)


def test_a_folder_wins_nothing_over_a_catalogue_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("probes.models.load.pull", lambda name: Path("pulled") / name)
    assert locate("minilm") == Path("pulled/minilm")
    assert locate("./minilm") == Path("minilm")
