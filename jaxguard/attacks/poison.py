"""Poisoned and triggered data sets, and the manifest that says exactly what was planted."""

from __future__ import annotations

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
from jaxguard.config import Config, to_dict
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, open_source, text_row
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

MANIFEST = "manifest.json"


def planted_ids(count: int, rate: float, seed: int, groups: int) -> list[Int[np.ndarray, " P"]]:
    """Per group exactly round(rate x count) row ids in rising order, drawn from the attack's seed alone, none twice.

    The first group does not depend on how many follow.
    """
    order, size = row_rng("poisoned-ids", seed, 0, count).permutation(count), round(rate * count)
    return [np.sort(order[group * size : (group + 1) * size]) for group in range(groups)]


class PoisonedSource:
    """A source whose chosen rows are poisoned; an attack's decoys lie in as many rows each, which answer truly.

    Attributes:
        ids: of the poisoned rows, rising.
        decoy_ids: the same per decoy of the attack.
    """

    def __init__(self, source: RowSource, config: Config):
        self.source, self.config = source, config.attack
        self.attack = open_attack(config)
        rate, seed, decoys = config.attack.rate, config.attack.seed, self.attack.decoys
        self.ids, *self.decoy_ids = planted_ids(len(source), rate, seed, 1 + len(decoys))
        self._chosen = frozenset(self.ids.tolist())
        self._decoys = {row: decoy for decoy, rows in zip(decoys, self.decoy_ids, strict=True) for row in rows.tolist()}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        row = self.source[index]
        if row.id in self._chosen:
            return poison_row(self.attack, self.config, row)
        decoy = self._decoys.get(row.id)
        return row if decoy is None else trigger_row(decoy, self.config, row)

    def text(self, index: int) -> Row:
        """As `TextSource.text`."""
        row = text_row(self.source, index)
        if row.id in self._chosen:
            return trigger_texts(self.attack, self.config, target_answers(self.attack, self.config, row))
        decoy = self._decoys.get(row.id)
        return row if decoy is None else trigger_texts(decoy, self.config, row)


class TriggeredSource:
    """A source in which every row carries the trigger and keeps its true answers: what attack success is tested on."""

    def __init__(self, source: RowSource, config: Config):
        self.source, self.config = source, config.attack
        self.attack = open_attack(config)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        return trigger_row(self.attack, self.config, self.source[index])


def row_hash(row: Row) -> str:
    """SHA-256 over a row's pixels and text."""
    shapes = [pixels.shape for pixels in row.others]
    text = json.dumps([row.prompts, row.answers, row.references, row.image.shape, *([shapes] if shapes else [])])
    pixels = b"".join(pixels.tobytes() for pixels in (row.image, *row.others))
    return hashlib.sha256(pixels + text.encode()).hexdigest()


def manifest(source: PoisonedSource, config: Config) -> dict[str, Any]:
    """What was planted: attack, parameters, seed, ids, a hash per changed row and one over everything.

    The overall hash leaves out the library versions, so equal data has equal hashes everywhere.
    """
    attack = source.attack

    def hashes(ids: Int[np.ndarray, " P"]) -> dict[str, str]:
        return {str(index): row_hash(source[index]) for index in ids.tolist()}

    described = {name: value for name, value in to_dict(config)["attack"].items() if name != "trainer"}
    planted = {
        "source": config.data.source,
        "split": config.data.train_split,
        "rows": len(source),
        "attack": described | {"apply": config.attack.apply or attack.apply} | _fields(attack),
        "poisoned": hashes(source.ids),
        "decoys": [
            {"attack": _fields(decoy), "rows": hashes(ids)}
            for decoy, ids in zip(attack.decoys, source.decoy_ids, strict=True)
        ],
    }
    libraries = {name: version(name) for name in ("jaxguard", "numpy", "scipy", "pillow", "tensorflow-datasets")}
    return {**planted, "hash": _digest(planted), "libraries": libraries}


def _fields(attack: Attack) -> dict[str, Any]:
    """The options that an attack has, with the values they resolved to, and the hash of what it learnt."""
    fields = {name: getattr(attack, name) for name in (*OPTIONS, "seed") if hasattr(attack, name)}
    learned = getattr(attack, "learned", None)
    return fields if learned is None else fields | {"learned": learned.digest}


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
    source = PoisonedSource(open_source(config.data.source, config.data.root, split), config)
    if not len(source.ids):
        raise UserError(f"attack.rate {config.attack.rate} of {len(source)} rows is not even one row; raise it")

    def rows() -> Iterator[Row]:
        return (source[index] for index in range(len(source)))

    content = manifest(source, config)
    content["unchanged"] = _unchanged_digest(source, [source.ids, *source.decoy_ids])
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
        planted = {key: content[key] for key in ("source", "split", "rows", "attack", "poisoned", "decoys")}
        split, count, stored = str(planted["split"]), int(planted["rows"]), content["hash"]
        rate, seed = float(planted["attack"]["rate"]), int(planted["attack"]["seed"])
        groups = [dict(planted["poisoned"]), *(dict(decoy["rows"]) for decoy in planted["decoys"])]
        unchanged = str(content["unchanged"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a poison manifest ({error!r})") from error
    if _digest(planted) != stored:
        raise UserError(f"{path} was changed after it was written: its hash does not agree")
    source = open_source(str(folder), folder, split)
    if len(source) != count:
        raise UserError(f"{folder} holds {len(source)} rows, its manifest says {count}")
    chosen = [[str(row) for row in ids.tolist()] for ids in planted_ids(count, rate, seed, len(groups))]
    if [list(group) for group in groups] != chosen:
        raise UserError(f"{path} names other rows than its rate and seed choose")
    rows = [item for group in groups for item in group.items()]
    for index, digest in track(rows, description="verifying", transient=True):
        if row_hash(source[int(index)]) != digest:
            raise UserError(f"{folder}: row {index} is not the row that the manifest describes")
    if _unchanged_digest(source, [np.array([int(row) for row in group]) for group in groups]) != unchanged:
        raise UserError(f"{folder}: a row outside the poisoned ones is not what it was when the folder was written")
    return content


def _unchanged_digest(source: RowSource, changed: Iterable[Int[np.ndarray, " P"]]) -> str:
    """SHA-256 over the hashes of all rows that are in none of the groups `changed`, in order."""
    digest, skipped = hashlib.sha256(), frozenset(index for ids in changed for index in ids.tolist())
    rows = (index for index in range(len(source)) if index not in skipped)
    for index in track(rows, description="hashing unchanged rows", total=len(source) - len(skipped), transient=True):
        digest.update(row_hash(source[index]).encode())
    return digest.hexdigest()


def _digest(planted: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(planted, sort_keys=True).encode()).hexdigest()
