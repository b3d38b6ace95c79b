"""What the model families have in common, and all that training and decoding know of them."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from jaxguard.config import Remat
from jaxguard.models.attention import Cache, Mask, Masks, causal_mask
from jaxguard.models.placement import rows

Statistics = tuple[float, float, float]

CLIP_MEAN: Statistics = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Statistics = (0.26862954, 0.26130258, 0.27577711)


class VisionLanguageModel(nnx.Module):
    """A vision tower (`vision`) and a decoder (`language`), and how the one reaches the other.

    A family says how rows are read (`embed_inputs`) and, where the decoder looks at images on its own, how it goes on
    (`decode`). `language.embed` and `language.logits` stand at its two ends. Where each image token stands for one
    patch, a family can also read images that keep only some of their patches: it then has a method
    `kept_columns(tokens, kept)`, and `embed_inputs` takes `kept`.
    """

    bridge: ClassVar[str]
    """Pattern of the paths of all parameters that join tower and decoder."""
    queries: ClassVar[str | None] = None
    """Pattern of those among them that read the tower with learnt queries; None where there are none."""

    config: Any
    """Its `vision`, `image_mean` and `image_std` are read here."""
    dtype: jnp.dtype
    """Compute type."""
    vision: Any
    language: Any

    @abc.abstractmethod
    def __init__(self, config: Any, *, dtype: jnp.dtype, remat: Remat, rngs: nnx.Rngs):
        """With fresh weights.

        Args:
            config: as the family's `read_config` made it.
            dtype: compute type of the activations.
            remat: what of the layers the backward pass computes again.
            rngs: what the weights are drawn from.
        """

    @abc.abstractmethod
    def tower(self, images: UInt8[Array, "N h w 3"]) -> Float[Array, "N P F"]:
        """What the family takes from its vision tower for each image: all patches, behind them nothing else."""

    def image_tokens(self, features: Float[Array, "N P F"]) -> Float[Array, "N Q D"]:
        """What the decoder is given of each image: where learnt queries read the tower, one vector of each."""
        return features

    @abc.abstractmethod
    def embed_inputs(
        self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], images: UInt8[Array, "B I h w 3"]
    ) -> tuple[Float[Array, "B T D"], Any]:
        """The decoder's input for whole rows, and what its tokens can look at (None for most families)."""

    def decode(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T *axes"],
        mask: Masks,
        context: Any,
        cache: Cache | None = None,
        column: Int[Array, ""] | int = 0,
        *,
        keep_cache: bool = False,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Hidden states behind the decoder; keys and values where `cache` is given or `keep_cache` asks for them."""
        return self.language(x, positions, mask, cache, column, keep_cache=keep_cache)

    def attention_mask(
        self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], *, right_padded: bool = False
    ) -> Mask:
        """Which tokens of whole rows the decoder lets see each other: causal unless a family says otherwise."""
        return causal_mask(segments, right_padded=right_padded)

    def next_context(self, context: Any) -> Any:
        """What the token behind the row's last one can look at."""
        return context

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T *axes"],
        segments: Int[Array, "B T"],
        images: UInt8[Array, "B I h w 3"],
        *,
        right_padded: bool = False,
    ) -> Float[Array, "B T D"]:
        """Hidden states of whole rows (`Batch`), one view at a time or views stacked along B."""
        x, context = self.embed_inputs(tokens, segments, images)
        return self.decode(x, positions, self.attention_mask(tokens, segments, right_padded=right_padded), context)[0]

    def patch_features(self, images: UInt8[Array, "N h w 3"]) -> Float[Array, "N P F"]:
        """The tower's vectors of the patches alone."""
        return self.tower(images)[:, -self.config.vision.patches :]

    def pixels(self, images: UInt8[Array, "N h w 3"]) -> Float[Array, "N h w 3"]:
        """Raw pixels, normalised on the device."""
        mean, std = (np.asarray(v, np.float32) for v in (self.config.image_mean, self.config.image_std))
        scale, shift = (np.broadcast_to(v, images.shape) for v in (1 / (255 * std), -mean / std))
        return (images.astype(jnp.float32) * scale + shift).astype(self.dtype)

    def merge_image_features(
        self, features: Float[Array, "N P D"], tokens: Int[Array, "B T"], image_token: int
    ) -> Float[Array, "B T D"]:
        """Token vectors, with the row's image vectors laid in order over its image tokens.

        A row without image tokens is plain text; its images are then ignored.
        """
        features = features.reshape(tokens.shape[0], -1, features.shape[-1])
        is_image = tokens == image_token
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
        laid = jnp.take_along_axis(features, order[..., None], axis=1)
        return rows(jnp.where(is_image[..., None], laid, self.language.embed(tokens, self.dtype)))
