"""What a worker checks before it compiles: data, weights, run folder and free disk."""

from __future__ import annotations

import contextlib
import math
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from jaxguard.config import Config
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.models import folders, weights
from jaxguard.models.architecture import architecture
from jaxguard.train.state import partition

GB = 1e9
BYTES = 12
"""Bytes of a checkpoint for each trained parameter: itself and two moments, in float32."""


def preflight(config: Config) -> list[str]:
    """Check that a run finds what it needs on this machine; returns what was found, in one line each.

    Raises:
        UserError: Something is missing; all of it is listed.
    """
    found, missing, run = [], [], config.run_dir
    new = [folder for folder in (run, *run.parents) if not folder.exists()]
    checks: tuple[Callable[[Config], str], ...] = (_data, _weights, _folder, _disk)
    for check in checks:
        try:
            found.append(check(config))
        except UserError as error:
            missing.append(str(error))
    if missing:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise UserError("; ".join(missing))
    return found


def _data(config: Config) -> str:
    data = config.data
    splits = [data.train_split] + ([data.validation_split] if config.train.validation else [])
    counts = []
    for split in splits:
        source = open_source(data.source, data.root, split)
        if not len(source):
            raise UserError(f"{data.source}, {split}: holds no rows; build it again")
        _ = source[len(source) - 1]  # the last row of the last file: a copy that was cut short lacks it
        counts.append(f"{len(source)} rows of {split}")
    return f"data: {data.source}, {', '.join(counts)}"


def _weights(config: Config) -> str:
    folder = folders.resolve(config.model.path)
    if config.model.init == "pretrained":
        weights.check_files(folder)
    return f"weights: {folder}"


def _folder(config: Config) -> str:
    """Write and rename a folder, as a checkpoint is: a bucket without hierarchical namespace cannot."""
    run = config.run_dir
    before, after = (run / f".preflight-{uuid.uuid4().hex}" for _ in range(2))  # others may try at the same time
    try:
        before.mkdir(parents=True)
        (before / "probe").write_text("probe")
        before.rename(after)
        if (after / "probe").read_text() != "probe":
            raise OSError("what was written reads otherwise")
    except OSError as error:
        raise UserError(f"{run} cannot hold checkpoints ({error.strerror or error}); choose another --out") from error
    finally:
        for folder in (before, after):
            shutil.rmtree(folder, ignore_errors=True)
    return f"run folder: {run} can be written"


def _disk(config: Config) -> str:
    model, train = config.model, config.train
    lora = model.lora if model.trainable == "lora" else None
    arch = architecture(folders.resolve(model.path), dtype=model.dtype, remat=model.remat, lora=lora)
    trained, _ = partition(arch.shapes, model.trainable, arch.family)
    one = BYTES * sum(math.prod(shape.shape) for shape in trained.values())
    needed = one * (train.keep + train.keep_best + 1)  # the one that is being written
    free = shutil.disk_usage(_nearest(config.run_dir)).free
    if free < needed:
        raise UserError(
            f"{config.run_dir} has {free / GB:.1f} GB free: {train.keep + train.keep_best + 1} checkpoints of "
            f"{one / GB:.1f} GB need {needed / GB:.1f} GB; make room, or lower train.keep"
        )
    return f"disk: {free / GB:.1f} GB free, checkpoints need {needed / GB:.1f} GB"


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
