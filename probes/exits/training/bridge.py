"""A loaded model as a sentence-transformers model that can be trained, and the way back into a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import FathometerError
from probes.exits.candidates import Candidate
from probes.files import make_dir, write_json, write_text, writing

if TYPE_CHECKING:
    from probes.models import Model


def require_libraries() -> None:
    """`FathometerError` with what to install where sentence-transformers or what its trainer needs is missing."""
    for name in ("sentence_transformers", "datasets", "accelerate"):
        if importlib.util.find_spec(name) is None:
            raise FathometerError(
                f"training needs the library {name!r}: pip install 'fathometer[training]'"
            )


@contextlib.contextmanager
def trainable(
    model: Model, pooling: str, max_length: int | None, prompts: Mapping[str, str]
) -> Generator[Any]:
    """`model` as a `SentenceTransformer` of its own weights in float32, on the same device; `model` stays as it is.

    It is written as `fathometer export` writes a whole model and read back. Raises `DoesNotApply` where stock modules
    cannot express pooling or head.
    """
    from probes.exits.export.recipes import raw_recipe
    from probes.exits.export.source import Exit
    from probes.exits.export.stock import write_stock
    from probes.exits.training.losses import exits_as_layers
    from probes.models.find import find_structure
    from probes.models.quiet import quiet_transformers
    from probes.runs import RunView

    require_libraries()
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        d = model.d_model
        recipe = raw_recipe(model.n_layers, d, pooling, model.embedding, d)
        exit_ = Exit(
            Candidate(None, model.n_layers, d),
            recipe,
            model,
            prompts,
            max_length or model.max_length,
            RunView(folder),
        )
        write_stock(folder, exit_)
        with quiet_transformers():
            made: Any = SentenceTransformer(
                str(folder), device=str(model.device), local_files_only=True
            )
        made = made.float()
        structure = find_structure(made[0].auto_model)
        exits_as_layers(made, structure.n_layers, structure.tail)
        yield made


def save_trained(sentence_model: Any, folder: Path, card: str) -> None:
    """Write the model into `folder`, all or nothing: safetensors, settings without places, and `card` as README.md."""
    from probes.exits.export.stock import clean_settings
    from probes.models.quiet import quiet_transformers

    make_dir(folder.parent)
    with (
        writing(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as place,
    ):
        made = Path(place) / "model"
        with quiet_transformers():
            sentence_model.save_pretrained(str(made), create_model_card=False)
        for name in ("config.json", "tokenizer_config.json"):
            if (made / name).is_file():
                clean_settings(made / name, {})
        write_text(made / "README.md", card)
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(made, folder)


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """What a folder's training is of: a later start goes on only with the same."""
    write_json(make_dir(folder) / "training.json", dict(identity))
