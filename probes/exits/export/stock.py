"""The folder that `SentenceTransformer(DIR)` loads alone: cut transformer, pooling, linear maps, all stock modules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from probes.errors import DoesNotApply
from probes.exits.export.recipes import simplified
from probes.exits.export.source import Exit
from probes.exits.recipe import Linear, Normalise, Recipe, Step, Truncate
from probes.files import make_dir, write_json

if TYPE_CHECKING:
    from probes.models import Model

# Flags, not a name: every version of sentence-transformers reads them.
_POOLINGS = {
    "mean": "pooling_mode_mean_tokens",
    "first": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
    "weighted": "pooling_mode_weightedmean_tokens",
}
STATIC = "table"  # read by a static embedding alone: no transformer is run
# Keys of a tokenizer's settings that name a place, or how it was loaded.
_PLACES = (
    "name_or_path",
    "is_local",
    "local_files_only",
    "tokenizer_file",
    "special_tokens_map_file",
)


def why_not_stock(recipe: Recipe) -> str | None:
    """Why stock modules of sentence-transformers cannot express `recipe`; None where they can."""
    if recipe.reason is not None:
        return recipe.reason
    if recipe.temperature != 1:
        return "attention with a temperature is no stock module"
    if recipe.pooling not in (*_POOLINGS, STATIC):
        return f"pooling {recipe.pooling!r} is no stock module"
    return None


def write_stock(folder: Path, exit_: Exit) -> None:
    """Write `exit_` into `folder` as a sentence-transformers model; `DoesNotApply` where stock modules cannot.

    For classification `encode` gives the scores of the classes, (n, classes); `labels.json` names them.
    """
    reason = why_not_stock(exit_.recipe)
    if reason is not None:
        raise DoesNotApply(
            f"candidate {exit_.name} is not exportable in the format of sentence-transformers: {reason}. "
            "Use --format transformers --with-code"
        )
    steps = steps_with_probe(exit_.recipe, exit_.width)
    truncate = None
    if steps and isinstance(steps[-1], Truncate):
        truncate = steps[-1].dim
        steps = steps[:-1]
    if exit_.recipe.pooling == STATIC:
        modules = [("StaticEmbedding", "")]
        width = _write_static(folder, exit_, steps[0])
        steps = steps[1:]
    else:
        write_backbone(folder, exit_)
        modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
        _write_pooling(make_dir(folder / "1_Pooling"), exit_)
        width = exit_.width
    for place, step in enumerate(steps, start=len(modules)):
        kind = "Normalize" if isinstance(step, Normalise) else "Dense"
        path = f"{place}_{kind}"
        modules.append((kind, path))
        make_dir(folder / path)
        if not isinstance(step, Normalise):
            width = _write_dense(folder / path, step, width)
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": exit_.max_length, "do_lower_case": False},
    )
    settings: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": dict(exit_.prompts),
        "default_prompt_name": "text" if "text" in exit_.prompts else None,
        "similarity_fn_name": "cosine",
    }
    if truncate is not None:
        settings["truncate_dim"] = truncate
    write_json(folder / "config_sentence_transformers.json", settings)
    write_labels(folder, exit_.recipe)


def steps_with_probe(recipe: Recipe, width: int) -> tuple[Step, ...]:
    """All steps from the pooled state (`width` coordinates), the probe as the last one."""
    if recipe.probe is None:
        return simplified(recipe.steps, width)
    return simplified((*recipe.steps, Linear(recipe.probe.weight, recipe.probe.bias)), width)


def write_labels(folder: Path, recipe: Recipe) -> None:
    """`labels.json`: names of the classes in the order of the scores."""
    if recipe.probe is not None:
        write_json(folder / "labels.json", list(recipe.probe.labels))


def write_backbone(folder: Path, exit_: Exit, cut: Any = None) -> None:
    """The transformer cut after the exit's layer (or `cut` in its place), with its tokenizer."""
    from probes.models import cut_model
    from probes.models.quiet import quiet_transformers

    part: Any = _loadable(cut_model(exit_.model, exit_.recipe.layer)) if cut is None else cut
    with quiet_transformers():
        part.save_pretrained(folder)
    clean_settings(folder / "config.json", {})
    write_tokenizer(folder, exit_)


def _loadable(cut: Any) -> Any:
    """`cut` as what the libraries make of its configuration: of an encoder-decoder's encoder, its encoder model."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_TEXT_ENCODING_MAPPING,
        MODEL_MAPPING,
    )

    made: Any = cast("Any", MODEL_MAPPING).get(type(cut.config), None)
    kind: Any = cast("Any", MODEL_FOR_TEXT_ENCODING_MAPPING).get(type(cut.config), None)
    if type(cut) in (made, kind):
        return cut
    encoder = None if kind is None else kind(cut.config).to(cut.dtype)
    if encoder is None or type(encoder.get_encoder()) is not type(cut):
        other = "another model" if made is None else made.__name__
        raise DoesNotApply(
            f"{type(cut).__name__} is only a part of {other}, which no library loads alone"
        )
    encoder.get_encoder().load_state_dict(cut.state_dict())
    encoder.set_input_embeddings(cut.get_input_embeddings())
    return encoder.eval()


def write_tokenizer(folder: Path, exit_: Exit) -> None:
    """The tokenizer, padding where the model bears it, and taking control tokens inside texts as plain characters."""
    model = exit_.model
    tokenizer = model.require_tokenizer()
    tokenizer.save_pretrained(folder)
    for template in folder.glob("chat_template*"):  # an embedding holds no conversation
        template.unlink()
    settings: dict[str, Any] = {
        "model_max_length": exit_.max_length,
        "padding_side": padding_side(model),
        "split_special_tokens": True,
        "max_length": None,
    }
    if tokenizer.pad_token is None:
        settings["pad_token"] = tokenizer.convert_ids_to_tokens(model.pad_id)
    clean_settings(folder / "tokenizer_config.json", settings)


def padding_side(model: Model) -> str:
    """The side on which padding does not matter without further arguments."""
    if "right" in model.padding_sides:
        return "right"
    if "left" in model.padding_sides and not model.position_ids:
        return "left"
    raise DoesNotApply(
        f"{Path(model.name).name} cannot be padded without changing its states: a stock module would do so"
    )


def clean_settings(path: Path, changed: Mapping[str, Any]) -> None:
    """Leave out of a settings file what names a place on this machine, and set what is `changed` (None: left out)."""
    told = json.loads(path.read_text(encoding="utf-8"))
    for name in (*_PLACES, "_name_or_path", "_model_name_or_path", "chat_template"):
        told.pop(name, None)
    told = {
        name: value
        for name, value in {**told, **changed}.items()
        if name not in changed or value is not None
    }
    write_json(path, told)


def _write_pooling(folder: Path, exit_: Exit) -> None:
    wanted = _POOLINGS[exit_.recipe.pooling]
    flags = {
        flag: flag == wanted for flag in (*_POOLINGS.values(), "pooling_mode_mean_sqrt_len_tokens")
    }
    told = {"word_embedding_dimension": exit_.width, **flags, "include_prompt": True}
    write_json(folder / "config.json", told)


def _write_static(folder: Path, exit_: Exit, first: Step) -> int:
    """A static embedding whose plain mean over the tokens is the translator's output; its width.

    It adds no tokens around a text, so its texts are cut that much earlier.
    """
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer

    table, model = exit_.recipe.table, exit_.model
    if table is None or not isinstance(first, Linear):
        raise DoesNotApply("a static embedding needs a table and a linear map of it")
    tokenizer = model.require_tokenizer()
    if not getattr(tokenizer, "is_fast", False):
        raise DoesNotApply(
            f"{Path(model.name).name} has no fast tokenizer: a static embedding needs one"
        )
    rows = np.ascontiguousarray(table.folded(first.weight, first.bias), np.float32)
    save_file({"embedding.weight": rows}, folder / "model.safetensors", metadata={"format": "pt"})
    plain: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.enable_truncation(exit_.max_length - tokenizer.num_special_tokens_to_add())
    plain.save(str(folder / "tokenizer.json"))
    return rows.shape[1]


def _write_dense(folder: Path, step: Linear | Truncate, width: int) -> int:
    """A Dense module; truncation in the middle keeps the first coordinates by a map of ones and zeros."""
    from safetensors.numpy import save_file

    weight = np.eye(width, step.dim) if isinstance(step, Truncate) else step.weight
    tensors = {"linear.weight": np.ascontiguousarray(weight.T, np.float32)}
    if isinstance(step, Linear):
        tensors["linear.bias"] = np.ascontiguousarray(step.bias, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    told = {
        "in_features": weight.shape[0],
        "out_features": weight.shape[1],
        "bias": isinstance(step, Linear),
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(folder / "config.json", told)
    return int(weight.shape[1])
