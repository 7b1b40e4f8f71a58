"""`load_model`: a catalogue name, a local path or a hub id → a checked `Model`."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from probes.errors import FathometerError, InputError, ModelError, unknown_name
from probes.models import sentence
from probes.models.catalog import CATALOGUE
from probes.models.download import pull
from probes.models.embedding import EmbeddingSpec
from probes.models.find_blocks import find_base
from probes.models.folder import check_code, check_folder, check_links, has_tokenizer, read_config
from probes.models.gguf import load_gguf
from probes.models.inputs import run_base, takes_pixels, trial_inputs
from probes.models.model import Model, wrap_model
from probes.models.quiet import quiet_transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Hub downloads are limited to what is read: weights that are safe, configurations, vocabularies.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def load_model(
    name: str | Path, device: str = "auto", dtype: str = "float32", trust_remote_code: bool = False
) -> Model:
    """Load a model and find its layers, heads and norms.

    `name` is a catalogue name (`minilm`, `smollm2`), a folder, a GGUF file or a hub id (`owner/name`).
    Weights are read from safetensors or GGUF only. `device` is auto, cpu, cuda, cuda:N or mps; `dtype`
    float32, bfloat16 or float16.

    Raises `InputError` for an unknown name, device or dtype, `ModelError` for a model that cannot be
    found, trusted, read or resolved, `NonFiniteError` for weights with NaN or infinity.
    """
    kind = DTYPES.get(dtype)
    if kind is None:
        raise unknown_name("dtype", dtype, DTYPES)
    place = pick_device(device)
    path = locate(str(name))
    if path.suffix == ".gguf":
        check_links(path.parent)
        hf_model, tokenizer = load_gguf(path)
        spec = None
    else:
        hf_model, tokenizer, spec = _load_folder(path, kind, trust_remote_code)
    try:
        hf_model = hf_model.to(device=place, dtype=kind)
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"{name} does not fit into the memory of {place}: try dtype bfloat16"
        ) from error
    return wrap_model(hf_model, tokenizer, str(name), spec)


def pick_device(device: str) -> torch.device:
    """The device of that name if this machine has it; auto prefers CUDA.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise unknown_name("device", device, ["auto", "cpu", "cuda", "cuda:0", "mps"])
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        have = torch.cuda.device_count()
        raise InputError(
            f"device {device!r} is not here: this machine has {have} CUDA devices; try auto"
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not here: try auto")
    return found


def require_model(name: str) -> None:
    """`InputError` or `ModelError` unless `name` can mean a model; nothing is downloaded.

    >>> require_model("minilm")
    """
    hub = _HUB_ID.fullmatch(name) and not name.endswith(".gguf")
    if name not in CATALOGUE and _local(name) is None and not hub:
        raise _unknown(name)


def locate(name: str) -> Path:
    """The folder or GGUF file that a name means; pulls or downloads what is not here."""
    if name in CATALOGUE:
        return pull(name)
    path = _local(name)
    if path is not None:
        return path
    if _HUB_ID.fullmatch(name) and not name.endswith(".gguf"):
        return _from_hub(name)
    raise _unknown(name)


def _local(name: str) -> Path | None:
    path = Path(name).expanduser()
    with contextlib.suppress(OSError, ValueError):  # names with NUL or thousands of characters
        if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
            return path
        if path.is_file():
            raise ModelError(f"{path} is a file: a model folder or a .gguf file is needed")
    return None


def _unknown(name: str) -> InputError:
    shown = name if len(name) <= 80 else name[:77] + "..."
    return unknown_name(
        "model", shown, CATALOGUE, "Or give a folder, a .gguf file or a hub id such as owner/name."
    )


def _from_hub(name: str) -> Path:
    """Download (or find in the hub's own cache) the safe files of a hub repository."""
    from huggingface_hub import snapshot_download

    errors: list[str] = []
    for local in (False, True):  # the cache answers where the hub cannot be reached
        try:
            found = snapshot_download(name, allow_patterns=_WANTED, local_files_only=local)
            return Path(found)
        except Exception as error:  # many kinds: network, missing, gated, private
            errors.append(f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}")
    raise ModelError(
        f"{name!r} is no folder here, and the hub did not give it ({errors[0][:200]}). "
        f"Built-in names: {', '.join(CATALOGUE)}"
    )


def _load_folder(
    folder: Path, dtype: torch.dtype, trust: bool
) -> tuple[nn.Module, Any, EmbeddingSpec | None]:
    spec = None
    where = folder
    if sentence.is_sentence_folder(folder):
        check_links(folder)
        spec = sentence.read_sentence_folder(folder)
        where = sentence.transformer_folder(folder)
    else:
        only = [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.gguf"))
        if len(only) == 1:
            check_links(folder)
            return (*load_gguf(only[0]), None)
        if only:
            raise ModelError(f"{folder} holds {len(only)} GGUF files: name one of them")
    check_folder(where)
    check_code(where, trust)
    hf_model = _load_weights(where, dtype, trust)
    if takes_pixels(hf_model):
        return hf_model, None, spec
    tokenizer = _load_tokenizer(where if has_tokenizer(where) else folder, trust)
    if spec is not None and sentence.lowercases(folder):
        _check_case(folder, tokenizer)
    return hf_model, tokenizer, spec


def _load_weights(folder: Path, dtype: torch.dtype, trust: bool) -> nn.Module:
    import transformers

    names = read_config(folder).get("architectures") or []
    known: Any = getattr(transformers, str(names[0]), None) if names else None
    auto: Any = transformers.AutoModel if known is None or trust else known
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    if auto is transformers.AutoModel:
        options["trust_remote_code"] = trust
    try:
        with quiet_transformers():
            model, report = auto.from_pretrained(folder, output_loading_info=True, **options)
    except FathometerError:
        raise
    except (
        Exception
    ) as error:  # transformers, safetensors and torch raise many kinds for damaged folders
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"{folder} cannot be loaded: {type(error).__name__}: {lines[0][:300]}"
        ) from error
    _check_complete(cast("nn.Module", model), report, folder)
    return cast("nn.Module", model)


def _check_complete(model: nn.Module, report: dict[str, Any], folder: Path) -> None:
    """Weights that the files lack are random: allowed only where `last_hidden_state` does not feel them."""
    missing = sorted(report.get("missing_keys") or ())
    parameters = dict(model.named_parameters())
    absent = [name for name in missing if name in parameters]
    if not absent:
        return
    model.eval()
    inputs, base = trial_inputs(model, rows=1), find_base(model)
    kept = {name: parameters[name].data for name in absent}
    try:
        for name in absent:
            parameters[name].data = torch.full_like(kept[name], float("nan"))
        felt = not bool(torch.isfinite(run_base(base, inputs)).all())
    finally:
        for name, data in kept.items():
            parameters[name].data = data
    if felt:
        raise ModelError(
            f"{folder} lacks {len(absent)} weights that {type(model).__name__} needs, such as {absent[0]}: "
            "the files do not fit the configuration"
        )


def _load_tokenizer(folder: Path, trust: bool) -> Any:
    import transformers

    if not has_tokenizer(folder):
        raise ModelError(
            f"{folder} has no tokenizer (looked for tokenizer.json, vocab.txt, vocab.json, "
            "tokenizer.model, spiece.model): put the tokenizer's files beside the weights"
        )
    try:
        with quiet_transformers():
            return transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trust
            )
    except Exception as error:  # damaged or unknown tokenizers raise many kinds
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {type(error).__name__}: {lines[0][:300]}"
        ) from error


def _check_case(folder: Path, tokenizer: Any) -> None:
    sample = "The Cat SEES a Dog"
    if tokenizer(sample)["input_ids"] != tokenizer(sample.lower())["input_ids"]:
        raise ModelError(
            f"{folder} wants texts lower-cased before its tokenizer (do_lower_case), which is not "
            "supported: use a tokenizer that does it itself"
        )
