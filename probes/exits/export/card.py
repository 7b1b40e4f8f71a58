"""The model card: what was cut, what it keeps, how sure that is, how to use it, in Markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from probes.exits.export.source import Exit, dataset_of, promise_of
from probes.exits.export.verify import Verification


def write_card(folder: Path, exit_: Exit, kind: str, verified: Verification | None) -> str:
    """README.md of the exported model as text."""
    return "\n".join(
        [
            *_front(exit_, kind),
            *_what(exit_),
            *_numbers(exit_),
            *_baselines(exit_),
            *_usage(folder, exit_, kind),
            *_checks(verified),
            *_caveats(exit_),
        ]
    )


def base_of(exit_: Exit) -> tuple[str, str | None]:
    """Name of the base model without its place, and its licence where it is stated."""
    from probes.models.catalog import CATALOGUE

    name = exit_.view.info["options"]["model"]
    if name in CATALOGUE:
        entry = CATALOGUE[name]
        return entry.summary.partition(":")[0], entry.licence
    folder = Path(name).expanduser()
    shown = folder.name if folder.exists() else str(name)
    return shown, _stated_licence(folder / "README.md")


def _stated_licence(readme: Path) -> str | None:
    """The `license:` line in the front matter of a model card."""
    if not readme.is_file():
        return None
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---", 2)
    match = re.search(r"^license:\s*(\S+)", parts[1], re.MULTILINE) if len(parts) == 3 else None
    return None if match is None else match[1]


def _front(exit_: Exit, kind: str) -> list[str]:
    base, licence = base_of(exit_)
    labelled = exit_.recipe.probe is not None
    task = "text-classification" if labelled else "sentence-similarity"
    lines = ["---", f"library_name: {kind}", f"pipeline_tag: {task}"]
    if licence:
        lines.append(f"license: {licence.lower()}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        lines.append(f"base_model: {base}")
    return [*lines, "tags:", "- early-exit", "- fathometer", "---", ""]


def _what(exit_: Exit) -> list[str]:
    base, licence = base_of(exit_)
    candidate, layers = exit_.candidate, exit_.model.n_layers
    stated = licence or "not stated in its folder; look there before you pass this model on"
    variant = {None: "states as they are", "translated": "states mapped to the full model's space"}
    how = variant.get(candidate.variant, str(candidate.variant))
    lines = [
        f"# {base}, stopped after {candidate.layer} of {layers} blocks",
        "",
        f"* Base model: {base} (licence: {stated})",
        f"* Exit: layer {candidate.layer} of {layers}, {candidate.dim} coordinates, {how}; pooling: "
        f"{exit_.recipe.pooling}; precision: {exit_.recipe.precision}",
    ]
    if exit_.recipe.probe is not None:
        names = ", ".join(exit_.recipe.probe.labels[:20])
        lines.append(f"* Classes ({len(exit_.recipe.probe.labels)}): {names}")
    for role, prompt in exit_.prompts.items():
        lines.append(f"* Put before every {role}: {json.dumps(prompt, ensure_ascii=False)}")
    return [*lines, f"* Longest text: {exit_.max_length} tokens", ""]


def _numbers(exit_: Exit) -> list[str]:
    decision, data = exit_.view.decision or {}, dataset_of(exit_.view)
    promise = promise_of(exit_.view, exit_.candidate)
    lines = [
        "## What it keeps",
        "",
        f"Measured on {data['name']} ({data['n']:,} examples, licence: {data.get('licence')}), on a test part of "
        f"{promise.n:,} examples that took no part in the choice.",
        "",
        "| | this model | full model |",
        "|---|---|---|",
        f"| {promise.measure} | {_number(promise.quality)} | {_number(promise.quality_full)} |",
    ]
    if promise.quality is not None and promise.quality_full:
        lines.append(f"| share kept | {promise.quality / promise.quality_full:.1%} | 100.0% |")
    if promise.relative_cost:
        lines.append(f"| share of the time | {promise.relative_cost:.3f} | 1.000 |")
        lines.append(f"| times as fast | {1 / promise.relative_cost:.2f} | 1.00 |")
    lines.append("")
    if _is_chosen(exit_):
        budget = decision.get("budget", {})
        asked = (
            f"an excess loss of at most {budget['max_loss']}"
            if budget.get("max_loss") is not None
            else f"at least {budget.get('min_quality', 0):.0%} of the full model's quality"
        )
        lines.append(
            f"Chosen to keep {asked} with confidence {decision.get('confidence')} ({decision.get('guarantee')} "
            "guarantee, for texts like those it was measured on)."
        )
    else:
        lines.append("This candidate is not the one that the run chose: no guarantee goes with it.")
    return [*lines, ""]


def _baselines(exit_: Exit) -> list[str]:
    listed = (exit_.view.decision or {}).get("baselines") or []
    if not listed:
        return []
    lines = [
        "## Beside it",
        "",
        "| baseline | layer | quality | share | share of the time |",
        "|---|---|---|---|---|",
    ]
    for entry in listed:
        numbers = [_number(entry.get(key)) for key in ("quality", "share", "relative_cost")]
        lines.append(f"| {entry.get('name')} | {entry.get('layer')} | {' | '.join(numbers)} |")
    return [*lines, ""]


def _usage(folder: Path, exit_: Exit, kind: str) -> list[str]:
    labelled = exit_.recipe.probe is not None
    if kind == "sentence-transformers":
        code = [
            "from sentence_transformers import SentenceTransformer",
            "",
            f'model = SentenceTransformer("{folder.name}")',
        ]
        if labelled:
            code += [
                "scores = model.encode(texts)  # (texts, classes)",
                f'labels = json.load(open("{folder.name}/labels.json"))',
                "classes = [labels[i] for i in scores.argmax(axis=1)]",
            ]
            code.insert(0, "import json")
        elif "query" in exit_.prompts or "document" in exit_.prompts:
            code += [
                "queries = model.encode_query(texts)",
                "documents = model.encode_document(texts)",
            ]
        else:
            code.append("embeddings = model.encode(texts)")
    else:
        auto = "AutoModelForSequenceClassification" if labelled else "AutoModel"
        trust = ", trust_remote_code=True" if (folder / "modeling_exit.py").exists() else ""
        code = [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{folder.name}")',
            f'model = {auto}.from_pretrained("{folder.name}"{trust})',
            'out = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))',
            "classes = [model.config.id2label[i] for i in out.logits.argmax(-1).tolist()]"
            if labelled
            else "embeddings = out.pooler_output",
        ]
    return ["## Use", "", "```python", *code, "```", ""]


def _checks(verified: Verification | None) -> list[str]:
    if verified is None:
        return ["## Checks", "", "This folder was not verified.", ""]
    words = {True: "passed", False: "FAILED", None: "not done"}
    lines = [
        f"* {c.name}: {words[c.passed]}: {c.text}" for c in verified.checks if c.name != "process"
    ]
    said = f"Loaded by {verified.library} in a process without Fathometer, on {verified.texts:,} texts:"
    return ["## Checks", "", said, "", *lines, ""]


def _caveats(exit_: Exit) -> list[str]:
    listed = [str(c) for c in (exit_.view.decision or {}).get("caveats") or []]
    lines = [f"* {text}" for text in listed]
    lines.append(
        "* Quality on other texts than those it was measured on may differ; measure it on yours."
    )
    return ["## Limits", "", *lines, ""]


def _is_chosen(exit_: Exit) -> bool:
    decision: dict[str, Any] = exit_.view.decision or {}
    place = (decision.get("variant"), decision.get("layer"), decision.get("dim"))
    candidate = exit_.candidate
    return place == (candidate.variant, candidate.layer, candidate.dim)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"
