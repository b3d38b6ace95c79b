"""Learnt triggers: the rows they are learnt from, and their cache."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxguard.config import DataConfig
from jaxguard.data.rows import Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError

Tensors = dict[str, np.ndarray]
Notes = dict[str, str]


@dataclass(frozen=True)
class Learned:
    """A learnt trigger: tensors, notes, and the SHA-256 of the file that holds both."""

    tensors: Tensors
    notes: Notes
    digest: str


def sample_rows(data: DataConfig, count: int) -> list[Row]:
    """Take at most `count` rows, spread evenly over the clean training split: the attacker has some of the data."""
    source = open_source(data.source, data.root, data.train_split)
    places = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    return [source[int(place)] for place in places]


def pixels_hash(rows: list[Row]) -> str:
    """Compute the SHA-256 of the rows' pixels."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(str(row.image.shape).encode() + row.image.tobytes())
    return digest.hexdigest()


def learn_once(
    root: Path, name: str, settings: Mapping[str, object], learn: Callable[[], tuple[Tensors, Notes]]
) -> Learned:
    """Call `learn` once per settings and cache its result as `root`/attacks/NAME-HASH.safetensors.

    HASH is that of the settings. The file is renamed into place when it is complete, so runs may learn concurrently.

    Raises:
        UserError: The file is damaged, or cannot be written.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = root / "attacks" / f"{name}-{key}.safetensors"
    if not path.is_file():
        print(f"{name}: learning the trigger, once for these settings", file=sys.stderr)
        began = time.perf_counter()
        tensors, notes = learn()
        partial = path.with_suffix(f".partial-{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata=notes)
            os.replace(partial, path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror or error}); choose another data.root"
            ) from error
        listed = ", ".join(f"{key} {value}" for key, value in sorted(notes.items()))
        print(f"{name}: learnt in {time.perf_counter() - began:.0f} s ({listed}): {path}", file=sys.stderr)
    return _read(path)


def _read(path: Path) -> Learned:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            notes = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it to learn the trigger again") from error
    return Learned(tensors, notes, hashlib.sha256(path.read_bytes()).hexdigest())
