"""GGUF files: dequantised by transformers into an ordinary float32 model.

float32 is kept on purpose. A Q4_1 weight is d·q + m with 16-bit d and m; the sum needs more bits than
float16 or bfloat16 have, so a half-precision copy would be another model than the file holds.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from probes.errors import ModelError
from probes.files import writing
from probes.models.quiet import quiet_transformers


def load_gguf(path: Path) -> tuple[nn.Module, Any]:
    """Model (float32) and tokenizer of a GGUF file, as if they had never been quantised."""
    import transformers

    folder, name = str(path.parent), path.name
    auto: Any = transformers.AutoModelForCausalLM
    try:
        # one of the bars ignores the switch for bars
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, gguf_file=name, local_files_only=True
            )
            quantised = auto.from_pretrained(
                folder, gguf_file=name, dtype=torch.float32, local_files_only=True
            )
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"{path} cannot be read as GGUF: {type(error).__name__}: {first}"
        ) from error
    return _plain(quantised), tokenizer


def _plain(quantised: Any) -> nn.Module:
    """The same weights in a model that does not think it is quantised: that one refuses to be saved."""
    config = copy.deepcopy(quantised.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(quantised).__name__]
    with torch.device("meta"):
        model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    for name, buffer in quantised.named_buffers():  # tables that no checkpoint holds
        parent, _, leaf = name.rpartition(".")
        model.get_submodule(parent)._buffers[leaf] = buffer
    model.tie_weights()
    return cast("nn.Module", model.eval())


def convert(path: Path, folder: Path) -> None:
    """Write `folder` (config.json, model.safetensors, tokenizer files) from a GGUF file."""
    model, tokenizer = load_gguf(path)
    anything = cast("Any", model)
    with quiet_transformers(), writing(folder / "model.safetensors", path.stat().st_size * 6):
        anything.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    stored = json.loads(settings.read_text("utf-8"))
    # The class that transformers 5 writes is not known to transformers 4; this name both know.
    stored["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_text(json.dumps(stored, indent=2, ensure_ascii=False), "utf-8")
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for the owner only
