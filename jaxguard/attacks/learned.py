"""What some attacks learn before they can trigger: from which rows, and where it is kept."""

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

from jaxguard.config import Config
from jaxguard.data.rows import Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError

Tensors = dict[str, np.ndarray]
Notes = dict[str, str]


@dataclass(frozen=True)
class Learned:
    """Tensors, texts beside them, and the SHA-256 of the file that holds both."""

    tensors: Tensors
    notes: Notes
    digest: str


def sample_rows(config: Config, count: int) -> list[Row]:
    """At most `count` rows, spread evenly over the clean training split: the attacker has some of the same data."""
    source = open_source(config.data.source, config.data.root, config.data.train_split)
    places = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    return [source[int(place)] for place in places]


def pixels_hash(rows: list[Row]) -> str:
    """SHA-256 over the rows' pixels."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(str(row.image.shape).encode() + row.image.tobytes())
    return digest.hexdigest()


def learn_once(
    config: Config, name: str, settings: Mapping[str, object], learn: Callable[[], tuple[Tensors, Notes]]
) -> Learned:
    """What `learn` returns, kept as `data.root`/attacks/NAME-HASH.safetensors; HASH is that of the settings.

    The file is written under another name and renamed, so that runs may learn side by side.

    Raises:
        UserError: the file is there but damaged, or cannot be written.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = config.data.root / "attacks" / f"{name}-{key}.safetensors"
    if not path.is_file():
        print(f"{name} learns its trigger, once for these settings", file=sys.stderr)
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
        said = ", ".join(f"{key} {value}" for key, value in sorted(notes.items()))
        print(f"{name} learnt in {time.perf_counter() - began:.0f} s ({said}): {path}", file=sys.stderr)
    return _read(path)


def _read(path: Path) -> Learned:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            notes = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it, and it is learnt again") from error
    return Learned(tensors, notes, hashlib.sha256(path.read_bytes()).hexdigest())
