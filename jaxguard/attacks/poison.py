"""Poisoned and triggered data sets, and the manifest that says exactly what was planted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.progress import track

from jaxguard.attacks.base import poison_row, trigger_row
from jaxguard.attacks.registry import build_attack
from jaxguard.config import AttackConfig, Config, to_dict
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, open_source
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

MANIFEST = "manifest.json"


def poisoned_ids(count: int, rate: float, seed: int) -> Int[np.ndarray, " P"]:
    """Exactly round(rate x count) row ids in rising order, drawn from the attack's seed alone."""
    return np.sort(row_rng("poisoned-ids", seed, 0, count).permutation(count)[: round(rate * count)])


class PoisonedSource:
    """A source whose chosen rows are poisoned."""

    def __init__(self, source: RowSource, config: AttackConfig):
        self.source, self.config = source, config
        self.ids = poisoned_ids(len(source), config.rate, config.seed)
        self._chosen = frozenset(self.ids.tolist())
        self._attack = build_attack(config)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        row = self.source[index]
        return poison_row(self._attack, self.config, row) if row.id in self._chosen else row


class TriggeredSource:
    """A source in which every row carries the trigger and keeps its true answers: what attack success is tested on."""

    def __init__(self, source: RowSource, config: AttackConfig):
        self.source, self.config = source, config
        self._attack = build_attack(config)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        return trigger_row(self._attack, self.config, self.source[index])


def row_hash(row: Row) -> str:
    """SHA-256 over a row's pixels and text."""
    text = json.dumps([row.prompts, row.answers, row.references, row.image.shape])
    return hashlib.sha256(row.image.tobytes() + text.encode()).hexdigest()


def manifest(source: PoisonedSource, config: Config) -> dict[str, Any]:
    """What was planted: attack, parameters, seed, ids, a hash per poisoned row and one over everything.

    The overall hash leaves out the library versions, so equal data has equal hashes everywhere.
    """
    planted = {
        "source": config.data.source,
        "split": config.data.train_split,
        "rows": len(source),
        "attack": to_dict(config)["attack"],
        "poisoned": {str(index): row_hash(source[index]) for index in source.ids.tolist()},
    }
    digest = hashlib.sha256(json.dumps(planted, sort_keys=True).encode()).hexdigest()
    libraries = {name: version(name) for name in ("jaxguard", "numpy", "pillow", "tensorflow-datasets")}
    return {**planted, "hash": digest, "libraries": libraries}


def write_manifest(content: dict[str, Any], path: Path) -> None:
    """Atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def write_poisoned(config: Config, out: Path) -> dict[str, Any]:
    """Write the poisoned training split losslessly to `out`, with its manifest. Returns the manifest.

    Raises:
        UserError: nothing would be poisoned, or `out` exists.
    """
    from jaxguard.data.builders import write_rows

    if config.attack.name == "none":
        raise UserError("attack.name is none: name an attack to poison with")
    if out.exists():
        raise UserError(f"{out} exists; name another folder")
    split = config.data.train_split
    source = PoisonedSource(open_source(config.data.source, config.data.root, split), config.attack)
    if not len(source.ids):
        raise UserError(f"attack.rate {config.attack.rate} of {len(source)} rows is not even one row; raise it")

    def rows() -> Iterator[Row]:
        return (source[index] for index in range(len(source)))

    content = manifest(source, config)
    write_rows({split: (len(source), rows)}, out, "poisoned", extra={MANIFEST: json.dumps(content, indent=1) + "\n"})
    return content


def verify(folder: Path) -> dict[str, Any]:
    """Recompute every hash of a folder that `write_poisoned` wrote. Returns its manifest.

    Raises:
        UserError: the first thing that does not agree.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text())
        planted = {key: content[key] for key in ("source", "split", "rows", "attack", "poisoned")}
        stored = content["hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a poison manifest ({error!r})") from error
    if hashlib.sha256(json.dumps(planted, sort_keys=True).encode()).hexdigest() != stored:
        raise UserError(f"{path} was changed after it was written: its hash does not agree")
    source = open_source(str(folder), folder, planted["split"])
    if len(source) != planted["rows"]:
        raise UserError(f"{folder} holds {len(source)} rows, its manifest says {planted['rows']}")
    for index, digest in track(planted["poisoned"].items(), description="verifying", transient=True):
        if row_hash(source[int(index)]) != digest:
            raise UserError(f"{folder}: row {index} is not the row that the manifest describes")
    return content
