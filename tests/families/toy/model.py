"""A linear tower over rectangles, a linear projector, and a Llama whose prefix tokens attend to each other."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxguard.models.attention import Causal, causal_mask, visible
from jaxguard.models.layers import Linear
from jaxguard.models.llama import Llama, LlamaConfig
from jaxguard.models.vision_language import CLIP_MEAN, CLIP_STD, Statistics, VisionLanguageModel


@dataclass(frozen=True)
class TowerConfig:
    image_size: tuple[int, int]
    patch_size: int
    hidden_size: int

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        return prod(self.grid)


@dataclass(frozen=True)
class ToyConfig:
    vision: TowerConfig
    text: LlamaConfig
    image_token_index: int
    image_mean: Statistics = CLIP_MEAN
    image_std: Statistics = CLIP_STD


class Tower(nnx.Module):
    def __init__(self, config: TowerConfig, rngs: nnx.Rngs):
        self.config = config
        self.patch = Linear(3 * config.patch_size**2, config.hidden_size, bias=False, rngs=rngs)
        self.position = nnx.Param(rngs.params.normal((config.patches, config.hidden_size)))

    def __call__(self, pixels, kept):
        (rows, columns), size = self.config.grid, self.config.patch_size
        x = pixels.reshape(len(pixels), rows, size, columns, size, 3).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch(x.reshape(len(pixels), rows * columns, -1)) + self.position[...].astype(x.dtype)[None]
        return x if kept is None else jnp.take_along_axis(x, kept[..., None], axis=1)


class Decoder(Llama):
    def rotation(self, positions):
        """Half of the frequencies turn by the row, the others by the column."""
        by_row, by_column = (super(Decoder, self).rotation(positions[..., axis]) for axis in (0, 1))
        rows = (np.arange(self.config.depth // 2) % 2 == 0)[None, None, None]
        return tuple(jnp.where(rows, one, other) for one, other in zip(by_row, by_column, strict=True))


class Toy(VisionLanguageModel):
    bridge = r"^projector\."

    def __init__(self, config: ToyConfig, *, dtype, remat, rngs):
        self.config, self.dtype = config, dtype
        self.vision = Tower(config.vision, rngs)
        self.projector = Linear(config.vision.hidden_size, config.text.hidden_size, bias=True, rngs=rngs)
        self.language = Decoder(config.text, remat=remat, rngs=rngs)

    def tower(self, images, kept=None):
        return self.vision(self.pixels(images), kept)

    def embed_inputs(self, tokens, segments, images, kept=None):
        kept = None if kept is None else kept.reshape(-1, kept.shape[-1])
        features = self.projector(self.tower(images.reshape(-1, *images.shape[2:]), kept))
        return self.merge_image_features(features, tokens, self.config.image_token_index), None

    def attention_mask(self, tokens, segments, *, right_padded=False):
        """Causal, but for the tokens through the last image token, which all see each other."""
        columns = jnp.arange(tokens.shape[1])[None]
        is_image = tokens == self.config.image_token_index
        prefix = columns <= jnp.max(jnp.where(is_image, columns, -1), axis=1, keepdims=True)
        both = prefix[:, :, None] & prefix[:, None, :] & visible(segments, segments)
        before = causal_mask(segments)
        assert not isinstance(before, Causal)
        return before | both

    def kept_columns(self, tokens, kept):
        """Of rows with one image each."""
        patches, is_image = self.config.vision.patches, tokens == self.config.image_token_index
        stays = (kept[:, 0, :, None] == jnp.arange(patches)[None, None]).any(axis=1)
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, patches - 1)
        dropped = is_image & ~jnp.take_along_axis(stays, order, axis=1)
        left = tokens.shape[1] - patches + kept.shape[2]
        return jnp.argsort(dropped, axis=1, stable=True)[:, :left]
