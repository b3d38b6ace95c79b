"""Training of ISSBA's encoder, jointly with a decoder that reads random bit strings from the encoded images."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from jaxguard.attacks.issba_encoder import BITS, LAYERS, SECRET_CHANNELS, SECRET_GRID, SIDE
from jaxguard.attacks.learned import Notes, Tensors
from jaxguard.data.views import row_rng

Weights = dict[str, Array]


@dataclass(frozen=True)
class Training:
    """Hyper-parameters of the encoder's training."""

    steps: int = 400
    strings: int = 8
    """Bit strings per step."""
    images: int = 2
    """Images per bit string."""
    rate: float = 3e-3
    """Peak learning rate of Adam."""
    size: float = 0.1
    """Weight of the residual's magnitude."""
    shared: float = 0.3
    """Weight of the component that residuals of different images share."""
    decoder: tuple[int, ...] = (16, 32, 32)
    """Channels of the decoder's convolutions, each with stride 2."""


TRAINING = Training()
RAMP = (0.35, 0.65)
"""Shares of the steps between which the two weights rise from 0: the decoder must read bits first."""
HELD_OUT = 64
"""Number of images on which the decoder is tested."""


def train_encoder(images: UInt8[np.ndarray, "N 64 64 3"], *, strength: float, seed: int) -> tuple[Tensors, Notes]:
    """Train the encoder. Returns its weights for `issba_encoder.residual` and the decoder's bit accuracy.

    Args:
        images: Clean images.
        strength: Bound of the residual in grey levels.
        seed: Seed of weights, batches and bit strings.
    """
    weights = initial(jax.random.key(seed))
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, TRAINING.rate, TRAINING.steps // 20, TRAINING.steps))
    moments = optimizer.init(weights)
    held_out = max(1, min(HELD_OUT, len(images) // 4))

    @jax.jit
    def step(
        weights: Weights, moments: optax.OptState, ramp: Array, pixels: Array, bits: Array, noise: Array
    ) -> tuple[Weights, optax.OptState, Array]:
        value, gradients = jax.value_and_grad(_loss)(weights, pixels, bits, noise, ramp, strength)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
            updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(weights, updates), moments, value

    def draw(number: int, strings: int, each: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = row_rng("issba-batch", seed, 0, number)
        chosen = images[rng.integers(first, last, strings * each)].astype(np.float32)
        bits = rng.integers(0, 2, (strings, BITS)).astype(np.float32).repeat(each, axis=0)
        return chosen, bits, rng.uniform(-0.5, 0.5, chosen.shape).astype(np.float32)

    for number in range(TRAINING.steps):
        batch = draw(number, TRAINING.strings, TRAINING.images, held_out, max(held_out + 1, len(images)))
        ramp = np.float32(np.clip((number / TRAINING.steps - RAMP[0]) / (RAMP[1] - RAMP[0]), 0, 1))
        weights, moments, _ = step(weights, moments, ramp, *batch)
    drawn, bits, _ = draw(TRAINING.steps, 4 * held_out, 1, 0, held_out)
    pixels = jnp.asarray(drawn)
    right = float(jax.jit(_bits_right)(weights, pixels, jnp.asarray(bits), strength))
    encoder = {name: np.asarray(value) for name, value in weights.items() if not name.startswith("reader")}
    return encoder, {"bits_right": f"{right:.3f}"}


def initial(key: Array) -> Weights:
    """Draw initial weights of encoder and decoder (He initialisation; half of it for the encoder's last layer)."""
    shapes: dict[str, tuple[int, ...]] = {"secret": (BITS, SECRET_GRID * SECRET_GRID * SECRET_CHANNELS)}
    inputs = 3 + SECRET_CHANNELS
    for layer, (channels, _) in enumerate(LAYERS):
        shapes[f"layer{layer}"] = (3, 3, inputs, channels)
        inputs = channels
    inputs = 3
    for layer, channels in enumerate(TRAINING.decoder):
        shapes[f"reader{layer}"] = (3, 3, inputs, channels)
        inputs = channels
    shapes["reader"] = ((SIDE // 2 ** len(TRAINING.decoder)) ** 2 * inputs, BITS)
    weights = {}
    for name, own in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        shape = shapes[name]
        scale = (2 / np.prod(shape[:-1])) ** 0.5 * (0.5 if name == f"layer{len(LAYERS) - 1}" else 1.0)
        weights[f"{name}.kernel"] = scale * jax.random.normal(own, shape)
        weights[f"{name}.bias"] = jnp.zeros(shape[-1])
    return weights


def residual(
    weights: Weights,
    pixels: Float[Array, "N 64 64 3"],
    bits: Float[Array, "N bits"],
    strength: float | Float[Array, ""],
) -> Float[Array, "N 64 64 3"]:
    """Apply the encoder: the residual that hides each bit string in its image, in grey levels."""
    cells = jax.nn.relu(_add(bits @ weights["secret.kernel"], weights["secret.bias"]))
    cells = cells.reshape(-1, SECRET_GRID, SECRET_GRID, SECRET_CHANNELS)
    scale = SIDE // SECRET_GRID
    cells = jnp.repeat(jnp.repeat(cells, scale, axis=1), scale, axis=2)
    x = jnp.concatenate([jnp.asarray(pixels) / 255 - 0.5, cells], axis=-1)
    for layer, (_, dilation) in enumerate(LAYERS):
        x = _convolve(x, weights, f"layer{layer}", dilation=dilation)
        x = x if layer == len(LAYERS) - 1 else jax.nn.relu(x)
    return strength * jnp.tanh(x)


def read(weights: Weights, pixels: Float[Array, "N 64 64 3"]) -> Float[Array, "N bits"]:
    """Apply the decoder: log-odds that each bit is 1."""
    x = pixels / 255 - 0.5
    for layer in range(len(TRAINING.decoder)):
        x = jax.nn.relu(_convolve(x, weights, f"reader{layer}", stride=2))
    return _add(x.reshape(x.shape[0], -1) @ weights["reader.kernel"], weights["reader.bias"])


def _loss(weights: Weights, pixels: Array, bits: Array, noise: Array, ramp: Array, strength: float) -> Float[Array, ""]:
    """Cross-entropy of the bits (nats) plus `ramp` times the residual's magnitude and its component shared over images.

    Both are mean squares, relative to the bound and to the magnitude. Noise models the rounding to 8 bits.
    """
    change = residual(weights, pixels, bits, strength)
    marked = jnp.clip(pixels + change + noise, 0, 255)
    misread = optax.sigmoid_binary_cross_entropy(read(weights, marked), bits).mean()
    common = change.reshape(-1, TRAINING.images, *change.shape[1:]).mean(1)
    size = jnp.square(change / strength).mean()
    shared = jnp.square(common / strength).mean() / (size + 1e-6)
    return misread + ramp * (TRAINING.size * size + TRAINING.shared * shared)


def _bits_right(weights: Weights, pixels: Array, bits: Array, strength: Float[Array, ""]) -> Float[Array, ""]:
    """Compute the decoder's bit accuracy on rounded images."""
    marked = jnp.round(jnp.clip(pixels + residual(weights, pixels, bits, strength), 0, 255))
    return jnp.mean((read(weights, marked) > 0) == (bits > 0.5))


def _convolve(x: Array, weights: Weights, name: str, *, stride: int = 1, dilation: int = 1) -> Array:
    y = jax.lax.conv_general_dilated(
        x,
        weights[f"{name}.kernel"],
        (stride, stride),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return _add(y, weights[f"{name}.bias"])


def _add(x: Array, bias: Array) -> Array:
    return x + jnp.broadcast_to(bias, x.shape)
