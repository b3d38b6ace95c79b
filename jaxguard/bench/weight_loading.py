"""Host memory used by loading a checkpoint, measured on a synthetic sharded one.

    python -m jaxguard.bench.weight_loading --gigabytes 2.1

Writes a checkpoint of the default model's family and about that size in bfloat16 shards, loads it in a new process, and
prints as JSON the bytes of the parameters, of the largest tensor, and the peak growth of the process's own memory
(RssAnon of /proc/self/status, which excludes the page cache of the files) during loading.

On two shared CPU cores: 2,259,973,632 bytes of parameters, largest tensor 131,334,144, peak 2,410,573,824: the
parameters plus 1.15 times the largest tensor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from safetensors.numpy import save_file

from jaxguard.config import ModelConfig
from jaxguard.files import read_object
from jaxguard.models import folders, weights
from jaxguard.models.architecture import architecture

TEXT = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16, "vocab_size": 32064}
LAYER_PARAMETERS = 4 * 2048**2 + 3 * 2048 * 5632
SHARD = 256 * 2**20


@dataclass(frozen=True)
class Options:
    gigabytes: float = 2.1
    """Size of the checkpoint in GB."""


def write_checkpoint(folder: Path, text: dict[str, int], layers: int) -> None:
    """Write a checkpoint in shards of at most `SHARD` bytes, with an index. The values are arbitrary."""
    folder.mkdir(parents=True)
    shipped = read_object(folders.resolve(ModelConfig().path) / "config.json")
    config = {"model_type": shipped["model_type"], "vision_config": {"num_hidden_layers": 2}}
    config["text_config"] = {"model_type": "llama", "num_hidden_layers": layers, **text}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = weights.expected_shapes(architecture(folder, dtype="bfloat16", remat="none"))
    index: dict[str, str] = {}
    part: dict[str, np.ndarray] = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        part[name] = np.full(shape, number % 7, jnp.bfloat16)
        if sum(value.nbytes for value in part.values()) > SHARD or number == len(shapes) - 1:
            file = f"model-{number:05d}.safetensors"
            save_file(part, folder / file)
            index |= dict.fromkeys(part, file)
            part = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def measure(folder: Path) -> dict[str, float]:
    """Load a checkpoint in this process and measure its memory."""
    arch = architecture(folder, dtype="bfloat16", remat="none")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    jax.block_until_ready(jax.device_put(np.zeros(1), device))
    before = own_memory()
    began = time.perf_counter()
    with _peak() as peak:
        parameters = weights.load(
            folder, arch, dict.fromkeys(arch.shapes, device), dict.fromkeys(arch.shapes, jnp.dtype("bfloat16"))
        )
        jax.block_until_ready(parameters)
    held = sum(value.nbytes for value in parameters.values())
    largest = max(2 * int(np.prod(shape)) for shape in weights.expected_shapes(arch).values())
    grown = peak[0] - before
    return {
        "seconds": time.perf_counter() - began,
        "parameters": held,
        "largest_tensor": largest,
        "peak": grown,
        "peak_above_parameters_in_largest_tensors": (grown - held) / largest,
    }


def run(text: dict[str, int], layers: int) -> dict[str, float]:
    """Write a checkpoint and measure loading in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "checkpoint", text, layers)
        process = subprocess.run(
            [sys.executable, "-m", "jaxguard.bench.weight_loading", "measure", f"{folder}/checkpoint"],
            env=os.environ | {"XLA_FLAGS": ""},
            check=True,
            capture_output=True,
            text=True,
        )
    return json.loads(process.stdout)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Track the peak of the process's own memory until the block ends."""
    seen, done = [own_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen[0] = max(seen[0], own_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen[0] = max(seen[0], own_memory())


def own_memory() -> int:
    """Read the anonymous memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        options = tyro.cli(Options)
        layers = round(
            (options.gigabytes * 2**30 / 2 - 2 * TEXT["vocab_size"] * TEXT["hidden_size"]) / LAYER_PARAMETERS
        )
        print(json.dumps(run(TEXT, max(layers, 1)), indent=2))
