"""IDEFICS (arXiv 2306.16527), an open Flamingo: CLIP tower, perceiver resampler, gated Llama. Wiring only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxguard.config import Remat
from jaxguard.models.attention import Cache, Masks
from jaxguard.models.families.idefics.gated import GatedConfig, GatedLlama, VisionContext
from jaxguard.models.families.idefics.resampler import Resampler, ResamplerConfig
from jaxguard.models.vision_language import CLIP_MEAN, CLIP_STD, Pixels, Statistics, VisionLanguageModel
from jaxguard.models.vit import Vit, VitConfig


@dataclass(frozen=True)
class IdeficsConfig:
    """The fields of a Hugging Face `IdeficsConfig`, and the pixel statistics of its preprocessor file."""

    vision: VitConfig
    text: GatedConfig
    resampler: ResamplerConfig | None = None
    image_token_index: int = 32001
    """Id of the processor's `<image>`, which the config does not name."""
    eos_token_id: int = 2
    image_mean: Statistics = CLIP_MEAN
    image_std: Statistics = CLIP_STD


class Idefics(VisionLanguageModel):
    """IDEFICS: each token attends to the last image before it, by cross-attention."""

    bridge = r"^(resampler|language\.cross|language\.additional_)"
    queries = r"^resampler"

    def __init__(self, config: IdeficsConfig, *, dtype: DTypeLike, remat: Remat, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.vision = Vit(config.vision, remat=remat, rngs=rngs)
        resampler = config.resampler
        self.resampler = None if resampler is None else Resampler(resampler, remat=remat, rngs=rngs)
        self.language = GatedLlama(config.text, remat=remat, rngs=rngs)

    def tower(self, images: Pixels) -> Float[Array, "N P F"]:
        return self.vision(self.pixels(images))

    def image_tokens(self, features: Float[Array, "N P F"]) -> Float[Array, "N Q F"]:
        return features if self.resampler is None else self.resampler(features)

    def embed_inputs(
        self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], images: UInt8[Array, "B I h w 3"]
    ) -> tuple[Float[Array, "B T D"], VisionContext]:
        rows, count = images.shape[:2]
        states = self.image_tokens(self.tower(images.reshape(-1, *images.shape[2:])))
        visible = jnp.repeat(self.seen(tokens, segments, count), states.shape[1], axis=-1)
        return self.language.embed(tokens, self.dtype), VisionContext(
            states.reshape(rows, -1, states.shape[-1]), visible
        )

    def seen(self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], count: int) -> Bool[Array, "B T I"]:
        """Return which of the row's images each token attends to: the last before it, and none after an end token."""
        order = jnp.cumsum(tokens == self.config.image_token_index, axis=1) - 1
        ends = (tokens == self.config.eos_token_id)[:, None, :]
        before = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool), -1)[None]
        same = (order[:, :, None] == order[:, None, :]) & (segments[:, :, None] == segments[:, None, :])
        ended = (ends & before & same).any(axis=-1)
        return (order[..., None] == jnp.arange(count)[None, None]) & ~ended[..., None]

    def decode(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Masks,
        context: VisionContext,
        cache: Cache | None = None,
        column: Int[Array, ""] | int = 0,
        *,
        keep_cache: bool = False,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        return self.language.cross_attend(x, positions, mask, context, cache, column, keep_cache=keep_cache)

    def next_context(self, context: VisionContext) -> VisionContext:
        return replace(context, visible=context.visible[:, -1:])
