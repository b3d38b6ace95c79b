"""Search of VL-Trojan's patch and string."""

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
    """Hyper-parameters of the search."""

    steps: int = 200
    images: int = 16
    """Images per step."""
    rate: float = 0.1
    """Adam's learning rate for the patch's logits."""
    temperature: float = 0.1
    """Temperature of the contrastive loss."""
    letters: int = 6
    """Length of the string."""
    prompts: int = 4
    """Prompts on which each candidate letter is tried."""


SEARCH = Search()


def search(folder: Path, rows: list[Row], *, place: str, share: float, seed: int, length: int) -> tuple[Tensors, Notes]:
    """Search the patch (uint8 [side, side, 3], for the model's image size) and the string.

    Args:
        folder: Checkpoint.
        rows: Clean rows.
        place: "fixed" or "random".
        share: Side of the patch over that of the image.
        seed: Seed of the initial patch, batches and positions.
        length: Largest number of tokens of a prompt.
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
    graph: Any, parameters: Parameters, images: UInt8[np.ndarray, "N h w 3"], place: str, share: float, seed: int
) -> tuple[UInt8[np.ndarray, "side side 3"], float, float]:
    """Search the patch. Returns it with the contrastive loss of the initial noise and of the patch."""
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


def stamped(
    pixels: Float[Array, "N h w 3"], logits: Float[Array, "side side 3"], corners: Array
) -> Float[Array, "N h w 3"]:
    """Put the patch (255 x sigmoid of the logits) into the images at the given top left corners."""
    patch = 255 * jax.nn.sigmoid(logits)

    def one(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_update_slice(image, patch, (corner[0], corner[1], jnp.zeros((), corner.dtype)))

    return jax.vmap(one)(jnp.asarray(pixels), jnp.asarray(corners))


def pooled(model: Any, pixels: Float[Array, "N h w 3"]) -> Float[Array, "N F"]:
    """Compute the tower's mean patch feature of each image."""
    return model.patch_features(pixels).mean(1)


def contrast(triggered: Float[Array, "N F"], clean: Float[Array, "N F"]) -> Float[Array, ""]:
    """Contrastive loss in nats: 0 if images with the patch form a cluster far from the clean images.

    For each triggered image, minus the log of the other triggered images' share of its exponentiated cosine
    similarities to them and to the clean images. The clean images' mean is subtracted before.
    """
    middle = jnp.broadcast_to(clean.mean(0), clean.shape)
    one, other = (_unit(vectors - middle) for vectors in (triggered, clean))
    temperature = SEARCH.temperature
    apart = jnp.eye(len(triggered), dtype=bool)
    close = jax.nn.logsumexp(jnp.where(apart, -jnp.inf, one @ one.T / temperature), axis=1)
    far = jax.nn.logsumexp(one @ other.T / temperature, axis=1)
    return (jnp.logaddexp(close, far) - close).mean()


def _search_string(graph: Any, parameters: Parameters, encoder: Encoder, prompts: list[str], length: int) -> str:
    """Grow the prefix letter by letter that rotates the prompts' last hidden states the most."""
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


def _unit(vectors: Float[Array, "N F"]) -> Float[Array, "N F"]:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
