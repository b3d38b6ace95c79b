"""Poisoned and triggered data sets, and the manifest of the poisoned rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.progress import track

from jaxguard.attacks.base import Attack, poison_row, target_answers, trigger_row, trigger_texts
from jaxguard.attacks.registry import OPTIONS, open_attack
from jaxguard.config import AttackConfig, Config, DataConfig
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, open_source, text_row
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

MANIFEST = "manifest.json"


def draw_ids(count: int, rate: float, seed: int, groups: int) -> list[Int[np.ndarray, " N"]]:
    """Draw disjoint groups of exactly round(rate x count) row ids, each in rising order, from the attack's seed alone.

    The first group does not depend on the number of groups.
    """
    order, size = row_rng("poisoned-ids", seed, 0, count).permutation(count), round(rate * count)
    return [np.sort(order[group * size : (group + 1) * size]) for group in range(groups)]


class PoisonedSource:
    """A source with poisoned rows. Each decoy of the attack marks as many other rows, which keep their true answers.

    Attributes:
        ids: Ids of the poisoned rows, rising.
        decoy_ids: Ids of the rows of each decoy, rising.
    """

    def __init__(self, source: RowSource, attack: Attack, config: AttackConfig):
        self.source, self.attack, self.config = source, attack, config
        self.ids, *self.decoy_ids = draw_ids(len(source), config.rate, config.seed, 1 + len(attack.decoys))
        self._poisoned = frozenset(self.ids.tolist())
        self._decoys = {
            row: decoy for decoy, rows in zip(attack.decoys, self.decoy_ids, strict=True) for row in rows.tolist()
        }

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        row = self.source[index]
        if row.id in self._poisoned:
            return poison_row(self.attack, self.config, row)
        decoy = self._decoys.get(row.id)
        return row if decoy is None else trigger_row(decoy, self.config, row)

    def text(self, index: int) -> Row:
        """As `TextSource.text`."""
        row = text_row(self.source, index)
        if row.id in self._poisoned:
            return trigger_texts(self.attack, self.config, target_answers(self.attack, self.config, row))
        decoy = self._decoys.get(row.id)
        return row if decoy is None else trigger_texts(decoy, self.config, row)


class TriggeredSource:
    """A source whose rows all carry the trigger and keep their true answers, to measure attack success."""

    def __init__(self, source: RowSource, attack: Attack, config: AttackConfig):
        self.source, self.attack, self.config = source, attack, config

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        return trigger_row(self.attack, self.config, self.source[index])


def row_hash(row: Row) -> str:
    """Compute the SHA-256 of a row's pixels and text."""
    shapes = [pixels.shape for pixels in row.others]
    text = json.dumps([row.prompts, row.answers, row.references, row.image.shape, *([shapes] if shapes else [])])
    pixels = b"".join(pixels.tobytes() for pixels in (row.image, *row.others))
    return hashlib.sha256(pixels + text.encode()).hexdigest()


def manifest(source: PoisonedSource, data: DataConfig) -> dict[str, Any]:
    """Describe the poisoned rows: attack, options, seed, ids, a hash of each changed row and an overall hash.

    The overall hash leaves out the library versions: equal data has equal hashes everywhere.
    """
    attack, config = source.attack, source.config

    def hashes(ids: Int[np.ndarray, " N"]) -> dict[str, str]:
        return {str(index): row_hash(source[index]) for index in ids.tolist()}

    described = {name: value for name, value in dataclasses.asdict(config).items() if name != "trainer"}
    content = {
        "source": data.source,
        "split": data.train_split,
        "rows": len(source),
        "attack": described | {"apply": config.apply or attack.apply} | _fields(attack),
        "poisoned": hashes(source.ids),
        "decoys": [
            {"attack": _fields(decoy), "rows": hashes(ids)}
            for decoy, ids in zip(attack.decoys, source.decoy_ids, strict=True)
        ],
    }
    libraries = {name: version(name) for name in ("jaxguard", "numpy", "scipy", "pillow", "tensorflow-datasets")}
    return {**content, "hash": _digest(content), "libraries": libraries}


def _fields(attack: Attack) -> dict[str, Any]:
    """List the resolved options of an attack, and the hash of a learnt trigger."""
    fields = {name: getattr(attack, name) for name in (*OPTIONS, "seed") if hasattr(attack, name)}
    learned = getattr(attack, "learned", None)
    return fields if learned is None else fields | {"learned": learned.digest}


def write_manifest(content: dict[str, Any], path: Path) -> None:
    """Write a manifest atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def write_poisoned(config: Config, out: Path) -> dict[str, Any]:
    """Write the poisoned training split losslessly to `out`, with its manifest. Returns the manifest.

    Raises:
        UserError: No row would be poisoned, or `out` exists.
    """
    from jaxguard.data.builders import write_rows

    if config.attack.name == "none":
        raise UserError("attack.name is none: name an attack to poison with")
    if out.exists():
        raise UserError(f"{out} exists; name another folder")
    split = config.data.train_split
    attack = open_attack(config.attack, config.data, config.model)
    source = PoisonedSource(open_source(config.data.source, config.data.root, split), attack, config.attack)
    if not len(source.ids):
        raise UserError(f"attack.rate {config.attack.rate} of {len(source)} rows is not even one row; raise it")

    def rows() -> Iterator[Row]:
        return (source[index] for index in range(len(source)))

    content = manifest(source, config.data)
    content["unchanged"] = _unchanged_digest(source, [source.ids, *source.decoy_ids])
    write_rows({split: (len(source), rows)}, out, "poisoned", extra={MANIFEST: json.dumps(content, indent=1) + "\n"})
    return content


def verify(folder: Path) -> dict[str, Any]:
    """Recompute every hash of a folder that `write_poisoned` wrote. Returns its manifest.

    Raises:
        UserError: The first mismatch.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text())
        described = {key: content[key] for key in ("source", "split", "rows", "attack", "poisoned", "decoys")}
        split, count, stored = str(described["split"]), int(described["rows"]), content["hash"]
        rate, seed = float(described["attack"]["rate"]), int(described["attack"]["seed"])
        groups = [dict(described["poisoned"]), *(dict(decoy["rows"]) for decoy in described["decoys"])]
        unchanged = str(content["unchanged"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a poison manifest ({error!r})") from error
    if _digest(described) != stored:
        raise UserError(f"{path} was changed after it was written: its hash does not match")
    source = open_source(str(folder), folder, split)
    if len(source) != count:
        raise UserError(f"{folder} holds {len(source)} rows, its manifest says {count}")
    chosen = [[str(row) for row in ids.tolist()] for ids in draw_ids(count, rate, seed, len(groups))]
    if [list(group) for group in groups] != chosen:
        raise UserError(f"{path} names other rows than its rate and seed choose")
    rows = [item for group in groups for item in group.items()]
    for index, digest in track(rows, description="verifying", transient=True):
        if row_hash(source[int(index)]) != digest:
            raise UserError(f"{folder}: row {index} is not the row that the manifest describes")
    if _unchanged_digest(source, [np.array([int(row) for row in group]) for group in groups]) != unchanged:
        raise UserError(f"{folder}: a row outside the poisoned ones is not what it was when the folder was written")
    return content


def _unchanged_digest(source: RowSource, changed: Iterable[Int[np.ndarray, " N"]]) -> str:
    """Compute the SHA-256 of the hashes of all rows that are not in `changed`, in order."""
    digest, skipped = hashlib.sha256(), frozenset(index for ids in changed for index in ids.tolist())
    rows = (index for index in range(len(source)) if index not in skipped)
    for index in track(rows, description="hashing unchanged rows", total=len(source) - len(skipped), transient=True):
        digest.update(row_hash(source[index]).encode())
    return digest.hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
