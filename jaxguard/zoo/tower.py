"""Pretrain the vision tower of a tiny checkpoint on labelled patches of scenes.

    python -m jaxguard.zoo.tower --out FOLDER [--base tiny-llava] [--steps 2500]

Trained end to end on captions, a tower learns colours and positions within a few hundred steps, but hardly any shapes.
Here linear heads, which are then discarded, predict for every patch of a scene the shape, colour and size of the thing
that covers it. FOLDER is a checkpoint in Hugging Face layout whose tower is trained and whose other weights are random;
`configs/pretrain_tiny_llava.py` continues from it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float, Int32, UInt8

from jaxguard.data import scenes
from jaxguard.models import folders, weights
from jaxguard.models.architecture import Architecture, Parameters, architecture, merge

LABELS = {"shape": list(scenes.SHAPES), "colour": list(scenes.COLOURS), "size": list(scenes.SIZES)}
"""Classes of each head; one further class is the background."""
COVERED = 0.25
"""Smallest share of a patch that a thing's bounding box covers if it is the patch's label."""


@dataclass(frozen=True)
class Options:
    out: Path
    """Folder to write the checkpoint to."""
    base: str = "tiny-llava"
    """Checkpoint of the architecture, tokenizer and preprocessor."""
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


def patch_labels(scene: scenes.Scene, grid: int) -> Int32[np.ndarray, "P 3"]:
    """Return the class of each patch of a grid x grid image, per head in the order of `LABELS`."""
    side = scenes.SIDE / grid
    starts = np.arange(grid) * side
    labels = np.tile(np.array([len(names) for names in LABELS.values()], np.int32), (grid * grid, 1))
    for thing in scene.things:
        across, down = (
            np.clip(np.minimum(starts + side, middle + half) - np.maximum(starts, middle - half), 0, None)
            for middle, half in ((thing.x, thing.half_width), (thing.y, thing.half_height))
        )
        covered = (np.outer(down, across) >= COVERED * side * side).reshape(-1)
        words = (thing.shape, thing.colour, thing.size)
        labels[covered] = [names.index(word) for names, word in zip(LABELS.values(), words, strict=True)]
    return labels


def main(options: Options) -> None:
    """Train the tower and write the checkpoint."""
    base = folders.resolve(options.base)
    arch = architecture(base, dtype="float32", remat="none")
    parameters = jax.jit(lambda: arch.initial(options.seed))()
    width = arch.config.vision.hidden_size
    heads = {name: jnp.zeros((width, len(names) + 1)) for name, names in LABELS.items()}
    tower = {path: value for path, value in parameters.items() if path.startswith("vision.")}
    rest = {path: value for path, value in parameters.items() if path not in tower}

    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, 100, options.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))
    state = (tower, heads)
    moments = optimizer.init(state)

    @jax.jit
    def step(
        state: tuple[Parameters, Parameters], moments: optax.OptState, images: Array, labels: Array
    ) -> tuple[tuple[Parameters, Parameters], optax.OptState, dict[str, Array]]:
        gradient, accuracies = jax.grad(lambda s: _loss(arch, s, rest, images, labels), has_aux=True)(state)
        updates, moments = optimizer.update(gradient, moments, state)
        return optax.apply_updates(state, updates), moments, accuracies

    vision = arch.config.vision
    batches, began = labelled(vision.image_size // vision.patch_size, options.batch_size, options.seed), time.time()
    for done in range(1, options.steps + 1):
        state, moments, accuracies = step(state, moments, *next(batches))
        if done % 100 == 0 or done == options.steps:
            left = (time.time() - began) / done * (options.steps - done)
            shown = "  ".join(f"{name} {float(value):.3f}" for name, value in accuracies.items())
            print(f"step {done}/{options.steps}  covered patches right: {shown}  {left:.0f} s left", file=sys.stderr)
    trained = {path: np.asarray(value) for path, value in (rest | state[0]).items()}
    weights.save(trained, arch, base, options.out, np.dtype("float32"))


def _loss(
    arch: Architecture,
    state: tuple[Parameters, Parameters],
    rest: Parameters,
    images: UInt8[Array, "B h w 3"],
    labels: Int32[Array, "B P 3"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Sum mean cross-entropies over heads; return them with the accuracies on patches that a thing covers."""
    model = merge(arch.graph, rest, state[0])
    hidden = model.patch_features(images)
    total, accuracies = jnp.zeros(()), {}
    for number, name in enumerate(LABELS):
        logits, truth = hidden @ state[1][name], labels[..., number]
        total += optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()
        covered = truth < len(LABELS[name])
        accuracies[name] = jnp.sum((logits.argmax(-1) == truth) & covered) / jnp.sum(covered)
    return total, accuracies | {"loss": total}


def labelled(grid: int, batch_size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return endless batches of training scenes: images uint8 [B, h, w, 3], labels int32 [B, P, 3]."""

    def example(index: int) -> tuple[np.ndarray, np.ndarray]:
        scene = scenes.sample("train", index)
        return scenes.render(scene), patch_labels(scene, grid)

    order = grain.MapDataset.range(scenes.SPLITS["train"]).shuffle(seed=seed).repeat()
    return iter(order.map(example).batch(batch_size).to_iter_dataset(grain.ReadOptions(num_threads=2)))


if __name__ == "__main__":
    main(tyro.cli(Options))
