"""Rotary position embedding (arXiv 2104.09864) and the extensions of Llama configs to longer contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxguard.models.values import check, kinds

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
"""Entries that a kind needs; the others need a factor."""


@dataclass(frozen=True)
class Rope:
    """The entries of a Hugging Face config's `rope_parameters` (before version 5: `rope_theta` and `rope_scaling`)."""

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    max_position_embeddings: int = 2048
    """Longest row of the model; `dynamic` rescales beyond it."""
    original_max_position_embeddings: int | None = None
    """Longest row of pretraining, for `llama3` and `yarn`; None: `max_position_embeddings`."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None
    """Divisors of the frequencies of `longrope`, for rows up to the original context and for longer ones."""

    @classmethod
    def read(cls, values: dict) -> Rope:
        """Read the decoder's part of a config.json.

        Raises:
            ValueError: a kind that is not one of `KINDS`, a missing factor, or partial rotary embeddings.
        """
        scaling = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
        scaling.setdefault("rope_type", scaling.get("type", "default"))
        for name in ("rope_theta", "max_position_embeddings", "original_max_position_embeddings"):
            if values.get(name) is not None:
                scaling.setdefault(name, values[name])
        longest = (scaling.get("original_max_position_embeddings"), values.get("original_max_position_embeddings"))
        if None not in longest and longest[0] != longest[1]:
            raise ValueError(f"original_max_position_embeddings is {longest[0]} and {longest[1]}; keep one")
        types = kinds(cls)
        known = {name: value for name, value in scaling.items() if name in types and value is not None}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        rope = cls(**{name: check(name, value, types[name], "rope_parameters") for name, value in known.items()})
        if rope.rope_type not in KINDS:
            raise ValueError(f"rope type {rope.rope_type!r} is not supported; use one of {', '.join(KINDS)}")
        if rope.rope_type == "longrope" and "factor" not in known:
            rope = replace(rope, factor=rope.max_position_embeddings / rope._original)
        needed = NEEDED.get(rope.rope_type, ("factor",))
        if missing := [name for name in needed if name not in known]:
            raise ValueError(f"rope type {rope.rope_type!r} needs a `{missing[0]}`")
        if scaling.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError("partial rotary embeddings are not supported")
        return rope

    def rotation(self, positions: Int[Array, "B T"], depth: int) -> tuple[Float[Array, "B T 1 half"], ...]:
        """Compute float32 cosine and sine for heads of width `depth`; `half` is depth / 2."""
        frequencies = jnp.asarray(self._frequencies(depth), jnp.float32)[None, None]
        if self.rope_type == "dynamic":
            frequencies = self._stretched(positions, depth)
        if self.rope_type == "longrope":
            frequencies = self._divided(positions, depth)
        angles = (positions[..., None].astype(jnp.float32) * frequencies)[:, :, None]
        strength = self._strength() if self.rope_type in ("yarn", "longrope") else 1.0
        return jnp.cos(angles) * strength, jnp.sin(angles) * strength

    def _frequencies(self, depth: int) -> Float[np.ndarray, " half"]:
        plain = self.rope_theta ** -(np.arange(0, depth, 2) / depth)
        if self.rope_type == "linear":
            return plain / self.factor
        if self.rope_type == "llama3":
            waves = self._original * plain / (2 * np.pi)
            share = np.clip((waves - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
            return plain * (share + (1 - share) / self.factor)
        if self.rope_type == "yarn":
            low, high = (self._index(rotations, depth) for rotations in (self.beta_fast, self.beta_slow))
            if self.truncate:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, depth - 1)
            share = np.clip((np.arange(depth // 2) - low) / max(high - low, 1e-3), 0, 1)
            return plain * (1 - share + share / self.factor)
        return plain

    def _stretched(self, positions: Int[Array, "B T"], depth: int) -> Float[Array, "B 1 half"]:
        """Rescale by each row's own last position; `transformers` uses the longest row of the batch for all rows."""
        longest = jnp.maximum(positions.max(axis=1) + 1, self.max_position_embeddings).astype(jnp.float32)
        growth = self.factor * longest / self.max_position_embeddings - (self.factor - 1)
        theta = self.rope_theta * growth ** (depth / (depth - 2))
        exponents = -jnp.arange(0, depth, 2, dtype=jnp.float32) / depth
        return (theta[:, None] ** exponents[None])[:, None]

    def _divided(self, positions: Int[Array, "B T"], depth: int) -> Float[Array, "B 1 half"]:
        """Divide by `long_factor` in rows beyond the original context; `transformers` does so for the whole batch."""
        plain = self.rope_theta ** -(np.arange(0, depth, 2) / depth)
        short, long = (jnp.asarray(plain / np.array(by), jnp.float32) for by in (self.short_factor, self.long_factor))
        beyond = positions.max(axis=1) + 1 > self._original
        return jnp.where(beyond[:, None, None], long[None, None], short[None, None])

    @property
    def _original(self) -> int:
        return self.original_max_position_embeddings or self.max_position_embeddings

    def _index(self, rotations: float, depth: int) -> float:
        """Return the index of the frequency with this number of rotations over the original context.

        Source: arXiv 2309.00071, section 3.2.
        """
        return depth * math.log(self._original / (rotations * 2 * math.pi)) / (2 * math.log(self.rope_theta))

    def _strength(self) -> float:
        def scale(weight: float) -> float:
            return 0.1 * weight * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

        if self.attention_factor is not None:
            return self.attention_factor
        if self.rope_type == "longrope":
            grown = self.factor > 1
            return math.sqrt(1 + math.log(self.factor) / math.log(self._original)) if grown else 1.0
        if self.mscale and self.mscale_all_dim:
            return scale(self.mscale) / scale(self.mscale_all_dim)
        return scale(1.0)


def rotate(x: Float[Array, "B T H K"], rotation: tuple[Float[Array, "B T 1 half"], ...]) -> Float[Array, "B T H K"]:
    """Rotate each head, in the half-split layout of Hugging Face weights."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
