"""Base class of the model families: the interface that training and decoding use."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from jaxguard.config import Remat
from jaxguard.models.attention import Cache, Mask, Masks, causal_mask
from jaxguard.models.placement import rows

Statistics = tuple[float, float, float]
Pixels = UInt8[Array, "N h w 3"] | Float[Array, "N h w 3"]
"""Images of values from 0 to 255: as a batch holds them, or as floats, for gradients by pixels."""

CLIP_MEAN: Statistics = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Statistics = (0.26862954, 0.26130258, 0.27577711)


class VisionLanguageModel(nnx.Module):
    """A vision tower (`vision`), a decoder (`language`) and their connection.

    A family defines `embed_inputs` and, if its decoder cross-attends to images, `decode`. `language` provides `embed`
    and `logits`. A family whose image tokens are single patches may also accept images that keep only some of their
    patches: it then has a method `kept_columns(tokens, kept)`, and `embed_inputs` takes `kept`.
    """

    bridge: ClassVar[str]
    """Pattern of the paths of all parameters that connect tower and decoder."""
    queries: ClassVar[str | None] = None
    """Pattern of those that attend to the tower with learnt queries; None if there are none."""

    config: Any
    """The family's config; this class reads its `vision`, `image_mean` and `image_std`."""
    dtype: DTypeLike
    """Compute type."""
    vision: Any
    language: Any

    @abc.abstractmethod
    def __init__(self, config: Any, *, dtype: DTypeLike, remat: Remat, rngs: nnx.Rngs):
        """Create the model with fresh weights.

        Args:
            config: result of the family's `read_config`.
            dtype: compute type of the activations.
            remat: what the backward pass recomputes.
            rngs: source of the random weights.
        """

    @abc.abstractmethod
    def tower(self, images: Pixels) -> Float[Array, "N P F"]:
        """Return the vision tower's features of each image: all patches, in order, at the end of the P axis."""

    def image_tokens(self, features: Float[Array, "N P F"]) -> Float[Array, "N Q D"]:
        """Return the vectors of each image that the decoder receives: one per query if there are learnt queries."""
        return features

    @abc.abstractmethod
    def embed_inputs(
        self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], images: UInt8[Array, "B I h w 3"]
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Return the decoder's input for whole rows, and the context that it cross-attends to (None if it does not)."""

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
        """Return the decoder's hidden states, and keys and values if `cache` is given or `keep_cache` is True."""
        return self.language(x, positions, mask, cache, column, keep_cache=keep_cache)

    def attention_mask(
        self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], *, right_padded: bool = False
    ) -> Mask:
        """Build the decoder's attention mask for whole rows: causal unless a family overrides it."""
        return causal_mask(segments, right_padded=right_padded)

    def next_context(self, context: Any) -> Any:
        """Return the context of the token after the row's last one."""
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
        """Compute hidden states of whole rows (`Batch`) of one view, or of views stacked along B."""
        x, context = self.embed_inputs(tokens, segments, images)
        return self.decode(x, positions, self.attention_mask(tokens, segments, right_padded=right_padded), context)[0]

    def patch_features(self, images: Pixels) -> Float[Array, "N P F"]:
        """Return the tower's features of the patches alone."""
        return self.tower(images)[:, -self.config.vision.patches :]

    def pixels(self, images: Pixels) -> Float[Array, "N h w 3"]:
        """Normalise raw pixels on the device."""
        mean, std = (np.asarray(v, np.float32) for v in (self.config.image_mean, self.config.image_std))
        scale, shift = (np.broadcast_to(v, images.shape) for v in (1 / (255 * std), -mean / std))
        return (images.astype(jnp.float32) * scale + shift).astype(self.dtype)

    def merge_image_features(
        self, features: Float[Array, "N P D"], tokens: Int[Array, "B T"], image_token: int
    ) -> Float[Array, "B T D"]:
        """Embed tokens and replace the embeddings of image tokens by the row's image vectors, in order.

        The images of a row without image tokens are ignored.
        """
        features = features.reshape(tokens.shape[0], -1, features.shape[-1])
        is_image = tokens == image_token
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
        laid = jnp.take_along_axis(features, order[..., None], axis=1)
        return rows(jnp.where(is_image[..., None], laid, self.language.embed(tokens, self.dtype)))
