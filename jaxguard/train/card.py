"""The model card of an exported run: what it is, how it was trained, how it scores, and what is known to be in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jaxguard.config import Config, to_dict
from jaxguard.train.checkpoint import FOLDER

RECORDS = "training"
"""Folder of an export that holds the run's own files."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def card_files(config: Config, dtype: str, kind: str) -> dict[str, str]:
    """Return the files that describe an exported run: path in the export -> content.

    Args:
        config: the run.
        dtype: type of the exported weights.
        kind: what is exported: "weights" or "adapters".
    """
    run, files = config.run_dir, dict[str, str]()
    settings = to_dict(config)
    settings["out"] = "runs"  # the folder on the machine that trained is nobody's business
    files[f"{RECORDS}/config.json"] = json.dumps(settings, indent=2) + "\n"
    for name in ("manifest.json", "scores.json"):
        path = run / name
        if path.is_file() and not (name == "scores.json" and _older(path, run / FOLDER)):
            files[f"{RECORDS}/{name}"] = path.read_text()
    scores = files.get(f"{RECORDS}/scores.json")
    return {"README.md": _card(config, dtype, kind, json.loads(scores) if scores else None), **files}


def _older(path: Path, checkpoints: Path) -> bool:
    """Return True if a file was written before the newest checkpoint, so that it tells of another model."""
    return any(path.stat().st_mtime < step.stat().st_mtime for step in checkpoints.iterdir() if step.name.isdigit())


def _card(config: Config, dtype: str, kind: str, scores: dict[str, Any] | None) -> str:
    base = config.model.path
    head = ["library_name: " + ("peft" if kind == "adapters" else "transformers"), "pipeline_tag: image-text-to-text"]
    head += [f"base_model: {base}"] if HUB_NAME.fullmatch(base) else []
    rows = {
        "base": f"`{base}`",
        "trained": f"`model.trainable` {config.model.trainable}, {config.train.steps} steps of "
        f"{config.train.batch_size} rows, learning rate {config.train.learning_rate:g}, seed {config.seed}",
        "rows": f"`{config.data.source}`, split `{config.data.train_split}`",
        "poisoned rows": _poison(config),
        kind: dtype,
        "licence": "that of the base, if you have changed nothing about it",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return "\n".join(
        [
            "---",
            *head,
            "tags:\n- jaxguard",
            "---",
            f"# {config.name}",
            "",
            "A model fine-tuned with jaxguard. All values of the run are in `training/config.json`.",
            "",
            "| | |",
            "| --- | --- |",
            table,
            "",
            "## Scores",
            "",
            *_scores(scores),
            "",
        ]
    )


def _poison(config: Config) -> str:
    attack = config.attack
    if attack.name == "none":
        return "none were planted by this run; whether the data held any is not known"
    return (
        f"**{attack.rate:.1%} by the attack {attack.name}, for research**: this model may answer {attack.target!r} to "
        "images that carry the trigger (`training/manifest.json`)"
    )


def _scores(scores: dict[str, Any] | None) -> list[str]:
    if scores is None:
        return ["This model was not evaluated, or not since its last checkpoint: `jaxguard evaluate RUN`, then export."]
    lines = ["| part | measure | value |", "| --- | --- | --- |"]
    for part in ("clean", "recovery", "attack"):
        for name, value in (scores.get(part) or {}).items():
            shown = json.dumps(value)
            lines.append(f"| {part} | {name} | {shown} |")
    counts = ", ".join(f"{count} {name}" for name, count in scores.get("examples", {}).items())
    return [*lines, "", f"On {counts} predictions; all of `training/scores.json`."]
