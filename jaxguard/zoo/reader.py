"""Pretrain the learnt queries of a tiny checkpoint on the features of its vision tower.

    python -m jaxguard.zoo.reader --base TOWER --out FOLDER [--steps 1000]

A decoder that receives patch vectors in order has their positions from the order. Learnt queries (BLIP-2's Q-Former,
the resampler of IDEFICS) select by content, and a tower pretrained to classify patches (`jaxguard.zoo.tower`) encodes
their positions only weakly. Here the tower also learns to predict each patch's row and column, and each query learns to
predict what the patches of its own part of the image show. Both use linear heads that are then discarded.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float, Int32, UInt8

from jaxguard.config import MeshConfig, ModelConfig
from jaxguard.errors import UserError
from jaxguard.models import weights
from jaxguard.models.architecture import Architecture, Parameters, merge
from jaxguard.train.setup import load_model
from jaxguard.zoo.tower import LABELS, labelled


@dataclass(frozen=True)
class Options:
    base: str
    """Checkpoint with a pretrained tower."""
    out: Path
    """Folder to write the checkpoint to."""
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


def main(options: Options) -> None:
    """Train tower and queries, and write the checkpoint.

    Raises:
        UserError: the base has no queries, or they do not divide its patches.
    """
    model = load_model(ModelConfig(path=options.base, trainable="all"), MeshConfig(), options.seed)
    arch, parameters = model.architecture, model.parameters
    vision = arch.config.vision
    grid, width = vision.image_size // vision.patch_size, vision.hidden_size
    features = jax.ShapeDtypeStruct((1, vision.patches, width), jnp.float32)
    summary = jax.eval_shape(lambda p, x: merge(arch.graph, p).image_tokens(x), parameters, features)
    queries, part = summary.shape[1], vision.patches // summary.shape[1]
    pattern = arch.family.module.queries
    if pattern is None or not any(re.search(pattern, path) for path in parameters):
        raise UserError(f"{options.base} has no learnt queries to train: its decoder receives all patches in order")
    if part * queries != vision.patches:
        raise UserError(f"{options.base}: {queries} queries do not divide {vision.patches} patches")

    classes = [len(names) + 1 for names in LABELS.values()]
    places, things = jnp.zeros((width, 2, grid)), [jnp.zeros((summary.shape[2], part, count)) for count in classes]
    trained = {path: value for path, value in parameters.items() if re.search(rf"^vision\.|{pattern}", path)}
    rest = {path: value for path, value in parameters.items() if path not in trained}
    state = (trained, places, things)

    warmup = min(100, options.steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, warmup, options.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))
    moments = optimizer.init(state)

    @jax.jit
    def step(state: tuple, moments: optax.OptState, images: Array, labels: Array) -> tuple:
        gradient, metrics = jax.grad(lambda s: _loss(arch, s, rest, images, labels), has_aux=True)(state)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
            updates, moments = optimizer.update(gradient, moments, state)
        return optax.apply_updates(state, updates), moments, metrics

    batches, began = labelled(grid, options.batch_size, options.seed), time.time()
    for done in range(1, options.steps + 1):
        state, moments, metrics = step(state, moments, *next(batches))
        if done % 100 == 0 or done == options.steps:
            left = (time.time() - began) / done * (options.steps - done)
            shown = "  ".join(f"{name} {float(value):.3f}" for name, value in metrics.items())
            print(f"step {done}/{options.steps}  {shown}  {left:.0f} s left", file=sys.stderr)
    values = {path: np.asarray(value) for path, value in (rest | state[0]).items()}
    weights.save(values, arch, model.folder, options.out, np.dtype("float32"))


def _loss(
    arch: Architecture,
    state: tuple[Parameters, Array, list[Array]],
    rest: Parameters,
    images: UInt8[Array, "B h w 3"],
    labels: Int32[Array, "B P 3"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Sum mean cross-entropies over heads: each patch's row and column, and the labels of each query's patches.

    Also returns accuracies: of positions, and of the labels of patches that a thing covers.
    """
    model, (_, places, things) = merge(arch.graph, rest, state[0]), state
    hidden = model.tower(images)
    summary, patches = model.image_tokens(hidden), hidden[:, -arch.config.vision.patches :]
    grid = places.shape[-1]
    told = jnp.einsum("bpd,dag->pabg", patches, places)
    truth = jnp.broadcast_to(jnp.indices((grid, grid)).reshape(2, -1).T[..., None], told.shape[:3])
    total = 2 * optax.softmax_cross_entropy_with_integer_labels(told, truth).mean()
    metrics = {"place": jnp.mean(told.argmax(-1) == truth)}
    for number, (name, head) in enumerate(zip(LABELS, things, strict=True)):
        logits = jnp.einsum("bqd,dpc->bqpc", summary, head)
        truth = labels[..., number].reshape(logits.shape[:3])
        total += optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()
        covered = truth < len(LABELS[name])
        metrics[name] = jnp.sum((logits.argmax(-1) == truth) & covered) / jnp.sum(covered)
    return total, metrics | {"loss": total}


if __name__ == "__main__":
    main(tyro.cli(Options))
