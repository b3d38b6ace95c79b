"""Benchmark of the data loader on photographs at a real model's size, against a torch DataLoader with the same rows.

    python -m jaxguard.bench.data_loader --rows 100000

runs one epoch of that number of rows and prints the memory of the process over time and the throughput as JSON.
"""

from __future__ import annotations

import atexit
import dataclasses
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from jaxguard.bench.timing import Timing
from jaxguard.bench.weight_loading import own_memory
from jaxguard.config import Config, DataConfig, ModelConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.order import Index
from jaxguard.data.pipeline import Example, train_batches
from jaxguard.data.rows import CAPTION_PROMPT
from jaxguard.data.shards import Split, schema, write
from jaxguard.data.sources import RowSource, open_source
from jaxguard.models import folders

PHOTOGRAPHS = 64
"""Number of distinct images."""
PATCHES = 24
"""Patches of the model along each side of an image: 336 px in patches of 14."""
LENGTH = PATCHES**2 + 64
TURNS = 3


@contextmanager
def photographs(rows: int, side: int, width: int, height: int) -> Iterator[tuple[Encoder, RowSource]]:
    """Make a data set of JPEG photographs with captions, and the encoder of a model for images of `side` px."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = Split(rows, lambda start: _rows(range(start, rows), width, height))
        write(folder / "rows", "photographs", schema(), {"train": split}, extra={})
        yield Encoder(_checkpoint(folder / "model", side)), open_source(str(folder / "rows"), folder, "train")


def settings(config: Config, side: int) -> Config:
    """Adapt the configuration's rows and views to images of `side` px."""
    view = dataclasses.replace(config.view, patch_size=side // PATCHES, mask_fill="mean", window=0)
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, length=LENGTH, bucket=0, pack=1), view=view
    )


def compare(config: Config, rounds: int, side: int) -> list[dict[str, Any]]:
    """Time the loader and, if torch is installed, a torch DataLoader with one worker per thread. Returns table rows.

    Both read, decode, resize, perturb and tokenise the same rows with the same code: only the loader differs. They
    alternate, `rounds` batches each in total, after batches that empty their buffers.
    """
    config, size = settings(config, side), config.train.batch_size
    with photographs(max(512, 2 * size), side, 640, 480) as (encoder, source):
        example = Example(config.data, config.second_view, config.seed, encoder, source)
        ours = train_batches(config.data, config.seed, encoder, source, batch_size=size, view=config.second_view)
        loaders = {f"loader alone, {side} px": ours}
        if find_spec("torch"):
            workers = max(1, config.data.threads)
            theirs = iter(_torch_loader(example, len(source), size, workers))
            loaders[f"torch DataLoader, {workers} workers, {side} px"] = theirs
        seconds: dict[str, list[float]] = {case: [] for case in loaders}
        for _ in range(TURNS):
            for case, batches in loaders.items():
                for done in range(-(-rounds // TURNS) + 5):
                    began = time.perf_counter()
                    next(batches)
                    if done >= 5:
                        seconds[case].append(time.perf_counter() - began)
    return [
        {"case": case, "time": Timing.of(found), "rows_per_second": size * len(found) / sum(found)}
        for case, found in seconds.items()
    ]


class TorchRows:
    """The loader's examples as a torch data set."""

    def __init__(self, example: Example, rows: int):
        self.example, self.rows = example, rows

    def __len__(self) -> int:
        return 2**31  # the rows repeat

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        place = Index(index // self.rows, index % self.rows, self.example.data.length)
        made = vars(self.example(place))
        return {name: value for name, value in made.items() if value is not None}


def _torch_loader(example: Example, rows: int, batch_size: int, workers: int) -> Any:
    """Make a DataLoader whose workers are spawned: forking is not safe with JAX's threads."""
    from torch.utils.data import DataLoader

    data: Any = TorchRows(example, rows)
    return DataLoader(
        data,
        batch_size,
        num_workers=workers,
        multiprocessing_context="spawn",
        prefetch_factor=2,
        worker_init_fn=_leave_quietly,
    )


def _leave_quietly(worker: int) -> None:
    """Make a worker exit without interpreter shutdown, which aborts on threads of open ArrayRecord files."""
    atexit.register(os._exit, 0)


def _rows(places: range, width: int, height: int) -> Iterator[dict]:
    pictures = [_jpeg(seed, width, height) for seed in range(PHOTOGRAPHS)]
    for index in places:
        caption = f"A small red circle left of a large blue square, number {index}."
        yield {
            "id": index,
            "key": f"photographs/{index}",
            "images": [pictures[index % PHOTOGRAPHS]],
            "prompts": [CAPTION_PROMPT],
            "answers": [caption],
            "references": [caption],
            "chained": False,
            "system": "",
        }


def _jpeg(seed: int, width: int, height: int) -> bytes:
    """Draw an image that compresses like a photograph: blurred noise with some grain."""
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    Image.fromarray((smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _checkpoint(folder: Path, side: int) -> Path:
    """Copy the default model's files without its weights, for images of another size."""
    shutil.copytree(folders.resolve(ModelConfig().path), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config, preprocessor = folder / "config.json", folder / "preprocessor_config.json"
    values = json.loads(config.read_text())
    values["vision_config"] |= {"image_size": side, "patch_size": side // PATCHES}
    config.write_text(json.dumps(values))
    values = json.loads(preprocessor.read_text())
    values |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    preprocessor.write_text(json.dumps(values))
    return folder


@dataclass(frozen=True)
class Options:
    rows: int = 100_000
    """Number of rows."""
    side: int = 48
    """Side of the model's images in pixels."""
    batch_size: int = 32
    threads: int = 2


def epoch(options: Options) -> dict[str, Any]:
    """Measure memory (RssAnon, bytes) at each tenth of an epoch of two-view batches, and rows per second."""
    data, view = DataConfig(length=LENGTH, threads=options.threads), ViewConfig(patch_size=options.side // PATCHES)
    with photographs(options.rows, options.side, 96, 64) as (encoder, source):
        batches, count = train_batches(data, 0, encoder, source, batch_size=options.batch_size, view=view), 0
        memory, seen, began = [own_memory()], set(), time.perf_counter()
        while count < options.rows - options.batch_size:
            seen.update(next(batches).ids.tolist())
            count += options.batch_size
            if count * 10 // options.rows >= len(memory):
                memory.append(own_memory())
        seconds = time.perf_counter() - began
    return {"rows": len(seen), "seconds": seconds, "rows_per_second": count / seconds, "memory": memory}


if __name__ == "__main__":
    print(json.dumps(epoch(tyro.cli(Options)), indent=2), file=sys.stdout)
