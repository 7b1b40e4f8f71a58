"""The transformers format: a stock sequence classifier where one fits, else the small file `modeling_exit.py`.

Stock classifiers of decoders are `score(state of the last token)` without a bias. The probe's bias is put into the
final norm where that has one: with Wᵀc = b, W ᵀ(h + c) = Wᵀh + b.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply
from probes.exits.export.source import Exit
from probes.exits.export.stock import (
    padding_side,
    steps_with_probe,
    write_backbone,
    write_labels,
    write_tokenizer,
)
from probes.exits.recipe import Linear, Normalise, Recipe, Truncate
from probes.files import write_json

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.floating[Any]]

_CODE = "modeling_exit.py"
_POOLINGS = ("mean", "first", "last", "max", "weighted")
_SMALL = 1e-6  # of the bias that the final norm may leave out


def write_transformers(folder: Path, exit_: Exit, with_code: bool = False) -> None:
    """Write `exit_` for transformers; `DoesNotApply` where it needs its own file and `with_code` is not given."""
    try:
        model = _stock_classifier(exit_)
    except DoesNotApply as error:
        if not with_code:
            other = "" if exit_.recipe.reason else ", or --format sentence-transformers"
            raise DoesNotApply(
                f"no stock class of transformers expresses candidate {exit_.name}: {error}. Use --with-code to put a "
                f"small Python file beside the weights{other}"
            ) from None
        _write_with_code(folder, exit_)
    else:
        write_backbone(folder, exit_, model)
    write_labels(folder, exit_.recipe)


def affine(recipe: Recipe, width: int) -> tuple[Array, Array]:
    """All steps and the probe as one map x ↦ x·W + b on states of `width` coordinates: (width, out), (out,).

    Raises `DoesNotApply` where a step is not affine.
    """
    steps = steps_with_probe(recipe, width)
    if any(isinstance(step, Normalise) for step in steps):
        raise DoesNotApply("unit length is no part of it")
    both: Array = np.concatenate([np.zeros((1, width)), np.eye(width)])
    for step in steps:
        both = step(both)
    return both[1:] - both[0], both[0]


def _stock_classifier(exit_: Exit) -> nn.Module:
    """The architecture's own sequence classifier with the probe as its head."""
    import torch

    from probes.capture.tokens import control_ids
    from probes.models import cut_model

    recipe, model = exit_.recipe, exit_.model
    if recipe.reason is not None:
        raise DoesNotApply(recipe.reason)
    if recipe.probe is None:
        raise DoesNotApply("it gives embeddings, which are pooled outside the model")
    if recipe.pooling != "last" or not model.is_causal:
        raise DoesNotApply(
            f"stock classifiers read one token of a decoder, this one {recipe.pooling}"
        )
    if recipe.temperature != 1:
        raise DoesNotApply("attention with a temperature is no part of it")
    if model.pad_id not in control_ids(model.require_tokenizer()):
        raise DoesNotApply("its tokenizer has no token that only pads")
    weight, bias = affine(recipe, exit_.width)
    cut: Any = cut_model(model, recipe.layer)
    built = _with_head(cut, exit_)
    shift = _shift(weight, bias, cut, exit_)
    with torch.no_grad():
        built.score.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.T)))
        if shift is not None:
            name, values = shift
            built.base_model.get_submodule(name).bias.add_(torch.from_numpy(values))
    return cast("nn.Module", built)


def _with_head(cut: Any, exit_: Exit) -> Any:
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    mapping: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    kind = mapping.get(type(cut.config), None)
    if kind is None:
        raise DoesNotApply(f"{type(cut).__name__} has none")
    config = copy.deepcopy(cut.config)
    for name, value in _labels(exit_.recipe).items():
        setattr(config, name, value)
    config.pad_token_id = exit_.model.pad_id
    with torch.random.fork_rng(devices=[]):
        built = kind(config).to(exit_.model.dtype).eval()
    head = getattr(built, "score", None)
    if type(built.base_model) is not type(cut) or not isinstance(head, torch.nn.Linear):
        raise DoesNotApply(f"{kind.__name__} has a head of another kind")
    built.base_model.load_state_dict(cut.state_dict())
    return built


def _shift(weight: Array, bias: Array, cut: Any, exit_: Exit) -> tuple[str, Array] | None:
    """Name of the final norm in the backbone, and what its bias has to gain; None where the probe has no bias."""
    if not np.abs(bias).max():
        return None
    tail = exit_.model.structure.tail
    last: Any = tail[-1] if tail else None
    if getattr(last, "bias", None) is None:
        raise DoesNotApply("its head has no bias, and neither has the final norm")
    name = next(name for name, module in cut.named_modules() if module is last)
    values = np.linalg.lstsq(weight.T, bias, rcond=None)[0]
    if np.abs(values @ weight - bias).max() > _SMALL * np.abs(bias).max():
        raise DoesNotApply("its head has no bias, and the final norm's cannot stand for it")
    return name, values


def _labels(recipe: Recipe) -> dict[str, Any]:
    if recipe.probe is None:
        return {}
    names = recipe.probe.labels
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _write_with_code(folder: Path, exit_: Exit) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel

    from probes.models import cut_model

    recipe, model = exit_.recipe, exit_.model
    if recipe.pooling not in _POOLINGS:
        raise DoesNotApply(
            f"pooling {recipe.pooling!r} is in no format: {', '.join(_POOLINGS)} are"
        )
    padding_side(model)
    cut: Any = cut_model(model, recipe.layer)
    with torch.device("meta"):
        other = AutoModel.from_config(cut.config)
    if type(other) is not type(cut):
        raise DoesNotApply(f"{type(cut).__name__} is only a part of {type(other).__name__}")
    steps = steps_with_probe(recipe, exit_.width)
    tensors = {f"backbone.{name}": t.contiguous().clone() for name, t in cut.state_dict().items()}
    told: list[dict[str, Any]] = []
    for place, step in enumerate(steps):
        if isinstance(step, Linear):
            told.append(
                {"kind": "linear", "d_in": step.weight.shape[0], "d_out": step.weight.shape[1]}
            )
            for name, value in (("weight", step.weight.T), ("bias", step.bias)):
                dense = torch.from_numpy(np.ascontiguousarray(value, np.float32))
                tensors[f"steps.{place}.{name}"] = dense.to(model.dtype)
        elif isinstance(step, Truncate):
            told.append({"kind": "truncate", "dim": step.dim})
        else:
            told.append({"kind": "normalise"})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", _config(exit_, cut, told))
    shutil.copyfile(Path(__file__).with_name(_CODE), folder / _CODE)
    write_tokenizer(folder, exit_)


def _config(exit_: Exit, cut: Any, steps: list[dict[str, Any]]) -> dict[str, Any]:
    backbone = cut.config.to_diff_dict()
    backbone = {name: value for name, value in backbone.items() if "name_or_path" not in name}
    recipe = exit_.recipe
    place = Path(_CODE).stem
    auto = {"AutoConfig": f"{place}.ExitConfig", "AutoModel": f"{place}.ExitModel"}
    if recipe.probe is not None:
        auto["AutoModelForSequenceClassification"] = f"{place}.ExitModel"
    return {
        "model_type": "fathometer_exit",
        "architectures": ["ExitModel"],
        "auto_map": auto,
        "dtype": str(exit_.model.dtype).removeprefix("torch."),
        "backbone": {"model_type": cut.config.model_type, **backbone},
        "pooling": recipe.pooling,
        "steps": steps,
        "classifies": recipe.probe is not None,
        "temperature": recipe.temperature,
        **_labels(recipe),
    }
