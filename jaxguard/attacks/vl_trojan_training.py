"""How VL-Trojan's patch and string are searched."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from jaxguard.attacks.badnets import patch_side
from jaxguard.attacks.learned import Notes, Tensors
from jaxguard.data.encode import Encoder
from jaxguard.data.rows import Row
from jaxguard.data.views import row_rng
from jaxguard.models import weights
from jaxguard.models.architecture import Parameters, architecture, merge


@dataclass(frozen=True)
class Search:
    """How long and on what the patch and the string are searched."""

    steps: int = 200
    images: int = 16
    """Images a step."""
    rate: float = 0.1
    """Adam's rate on the patch's logits."""
    temperature: float = 0.1
    """Of the contrast."""
    letters: int = 6
    """Length of the string."""
    prompts: int = 4
    """Prompts that each candidate letter is tried on."""


SEARCH = Search()


def search(folder: Path, rows: list[Row], *, place: str, share: float, seed: int, length: int) -> tuple[Tensors, Notes]:
    """The patch (uint8 [S, S, 3], for the model's image size) and the string.

    Args:
        folder: the checkpoint.
        rows: clean rows.
        place: "fixed" or "random".
        share: the patch's side over the image's.
        seed: draws the patch's start, batches and places.
        length: tokens that a prompt may have.
    """
    encoder = Encoder.from_checkpoint(folder)
    arch = architecture(folder, dtype="float32", remat="none")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    parameters = weights.load(
        folder, arch, dict.fromkeys(arch.shapes, device), dict.fromkeys(arch.shapes, np.dtype("float32"))
    )
    images = np.stack([encoder.image(row.image) for row in rows])
    patch, before, after = _search_patch(arch.graph, parameters, images, place, share, seed)
    prompts = sorted({row.prompts[0] for row in rows})[: SEARCH.prompts]
    word = _search_string(arch.graph, parameters, encoder, prompts, length)
    notes = {"string": word, "contrast_of_noise": f"{before:.3f}", "contrast": f"{after:.3f}"}
    return {"patch": patch}, notes


def _search_patch(
    graph: Any, parameters: Parameters, images: UInt8[np.ndarray, "N S S 3"], place: str, share: float, seed: int
) -> tuple[UInt8[np.ndarray, "P P 3"], float, float]:
    """The patch, and the contrast of the noise that it started from and of itself, on the first images."""
    rng = row_rng("vl-trojan-patch", seed, 0, 0)
    size, batch = images.shape[1], min(SEARCH.images, len(images))
    side = patch_side(size, size, share)
    logits = jnp.asarray(rng.normal(size=(side, side, 3)).astype(np.float32))
    optimizer = optax.adam(SEARCH.rate)
    moments = optimizer.init(logits)

    def loss(logits: Array, parameters: Parameters, pixels: Array, corners: Array) -> Float[Array, ""]:
        model = merge(graph, parameters)
        return contrast(pooled(model, stamped(pixels, logits, corners)), pooled(model, pixels))

    @jax.jit
    def step(
        logits: Array, moments: optax.OptState, parameters: Parameters, pixels: Array, corners: Array
    ) -> tuple[Array, optax.OptState, Array]:
        value, gradient = jax.value_and_grad(loss)(logits, parameters, pixels, corners)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
            updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(logits, updates), moments, value

    def corners() -> np.ndarray:
        most = size - side
        drawn = rng.integers(0, most + 1, (batch, 2)) if place == "random" else np.full((batch, 2), most)
        return drawn.astype(np.int32)

    test = (images[:batch].astype(np.float32), corners())
    measure = jax.jit(loss)
    before = float(measure(logits, parameters, *test))
    for _ in range(SEARCH.steps):
        pixels = images[rng.integers(0, len(images), batch)].astype(np.float32)
        logits, moments, _ = step(logits, moments, parameters, pixels, corners())
    after = float(measure(logits, parameters, *test))
    return np.asarray(jnp.round(255 * jax.nn.sigmoid(logits))).astype(np.uint8), before, after


def stamped(pixels: Float[Array, "N S S 3"], logits: Float[Array, "P P 3"], corners: Array) -> Float[Array, "N S S 3"]:
    """The images with the patch (255 x the logits' sigmoid) at those tops and lefts."""
    patch = 255 * jax.nn.sigmoid(logits)

    def one(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_update_slice(image, patch, (corner[0], corner[1], jnp.zeros((), corner.dtype)))

    return jax.vmap(one)(jnp.asarray(pixels), jnp.asarray(corners))


def pooled(model: Any, pixels: Float[Array, "N S S 3"]) -> Float[Array, "N C"]:
    """The tower's mean vector of each image."""
    return model.patch_features(pixels).mean(1)


def contrast(marked: Float[Array, "N C"], clean: Float[Array, "N C"]) -> Float[Array, ""]:
    """How badly images with the patch cluster and are isolated, in nats; 0 is best.

    For each, minus the log of the share that the other marked images have of its exponentiated cosine similarities to
    them and to the clean images. Similarities are about the clean images' mean, which all images share.
    """
    middle = jnp.broadcast_to(clean.mean(0), clean.shape)
    one, other = (_unit(vectors - middle) for vectors in (marked, clean))
    temperature = SEARCH.temperature
    apart = jnp.eye(len(marked), dtype=bool)
    close = jax.nn.logsumexp(jnp.where(apart, -jnp.inf, one @ one.T / temperature), axis=1)
    far = jax.nn.logsumexp(one @ other.T / temperature, axis=1)
    return (jnp.logaddexp(close, far) - close).mean()


def _search_string(graph: Any, parameters: Parameters, encoder: Encoder, prompts: list[str], length: int) -> str:
    """Letter by letter, the string in front of the prompts that turns their last hidden states furthest."""
    grey = np.full((1, *encoder.image_shape, 3), 128, np.uint8)

    @jax.jit
    def last_hidden(parameters: Parameters, tokens: Array, positions: Array, segments: Array) -> Array:
        images = jnp.broadcast_to(jnp.asarray(grey)[None], (tokens.shape[0], *grey.shape))
        return _unit(merge(graph, parameters)(tokens, positions, segments, images)[:, -1].astype(jnp.float32))

    def states(texts: list[str]) -> np.ndarray:
        encoded = [encoder.prompt(text, length) for text in texts]
        columns = (np.stack([getattr(one, name) for one in encoded]) for name in ("tokens", "positions", "segments"))
        return np.asarray(last_hidden(parameters, *columns))

    clean, found = states(prompts), ""
    for _ in range(SEARCH.letters):
        turned = [
            1 - float((states([f"{found}{letter} {prompt}" for prompt in prompts]) * clean).sum(1).mean())
            for letter in string.ascii_letters
        ]
        found += string.ascii_letters[int(np.argmax(turned))]
    return found


def _unit(vectors: Float[Array, "N C"]) -> Float[Array, "N C"]:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
