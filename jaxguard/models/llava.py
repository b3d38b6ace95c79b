"""LLaVA-1.5 (arXiv 2310.03744): CLIP tower, MLP projector, Llama decoder. Wiring only."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from jaxguard.models.attention import causal_mask
from jaxguard.models.clip import ClipConfig, ClipTower
from jaxguard.models.layers import ACTIVATIONS, Linear
from jaxguard.models.llama import Llama, LlamaConfig


@dataclass(frozen=True)
class LlavaConfig:
    """The fields of a Hugging Face `LlavaConfig`, and the pixel statistics of its preprocessor file."""

    vision: ClipConfig
    text: LlamaConfig
    image_token_index: int = 32000
    projector_hidden_act: str = "gelu"
    vision_feature_layer: int = -2
    vision_feature_select_strategy: str = "default"
    multimodal_projector_bias: bool = True
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


class Projector(nnx.Module):
    """Patch vectors into the decoder's embedding space."""

    def __init__(self, config: LlavaConfig, *, rngs: nnx.Rngs):
        width, bias = config.text.hidden_size, config.multimodal_projector_bias
        self.act = config.projector_hidden_act
        self.first = Linear(config.vision.hidden_size, width, bias=bias, rngs=rngs)
        self.second = Linear(width, width, bias=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "N P C"]) -> Float[Array, "N P D"]:
        return self.second(ACTIVATIONS[self.act](self.first(x)))


class Llava(nnx.Module):
    """Tokens and images to hidden states; `language.logits` gives the next-token logits."""

    def __init__(self, config: LlavaConfig, *, dtype: jnp.dtype, remat: bool, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.vision = ClipTower(config.vision, remat=remat, rngs=rngs)
        self.projector = Projector(config, rngs=rngs)
        self.language = Llama(config.text, remat=remat, rngs=rngs)

    def patch_features(
        self, images: UInt8[Array, "N S S 3"], kept: Int[Array, "N K"] | None = None
    ) -> Float[Array, "N P C"]:
        """The tower's patch vectors of raw pixels, which are normalised here, on the device."""
        mean, std = (np.asarray(v, np.float32) for v in (self.config.image_mean, self.config.image_std))
        scale, shift = (np.broadcast_to(v, images.shape) for v in (1 / (255 * std), -mean / std))
        pixels = (images.astype(jnp.float32) * scale + shift).astype(self.dtype)
        hidden = self.vision(pixels, self.config.vision_feature_layer, kept)
        if self.config.vision_feature_select_strategy == "default":
            hidden = hidden[:, 1:]
        return hidden

    def embed(
        self,
        tokens: Int[Array, "B T"],
        images: UInt8[Array, "B I S S 3"],
        kept: Int[Array, "B I K"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Token vectors, with the row's image vectors laid in order over its image tokens.

        A row without image tokens is plain text; its images are then ignored. Of images that keep only some of their
        patches, `tokens` has only those patches' tokens (`kept_columns`).
        """
        batch = tokens.shape[0]
        kept = None if kept is None else kept.reshape(-1, kept.shape[-1])
        features = self.projector(self.patch_features(images.reshape(-1, *images.shape[2:]), kept))
        features = features.reshape(batch, -1, features.shape[-1])
        is_image = tokens == self.config.image_token_index
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
        laid = jnp.take_along_axis(features, order[..., None], axis=1)
        return jnp.where(is_image[..., None], laid, self.language.embedding(tokens, self.dtype))

    def kept_columns(self, tokens: Int[Array, "B T"], kept: Int[Array, "B I K"]) -> Int[Array, "B U"]:
        """The columns of whole rows that stay where images keep only some of their patches.

        Every row must hold all tokens of its I images; U = T less the dropped patches of all of them.
        """
        patches = self.config.vision.patches
        stays = (kept[..., None] == jnp.arange(patches)[None, None, None]).any(axis=-2)
        if self.config.vision_feature_select_strategy != "default":
            stays = jnp.pad(stays, ((0, 0), (0, 0), (1, 0)), constant_values=True)
        stays = stays.reshape(tokens.shape[0], -1)
        is_image = tokens == self.config.image_token_index
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, stays.shape[1] - 1)
        dropped = is_image & ~jnp.take_along_axis(stays, order, axis=1)
        left = tokens.shape[1] - kept.shape[1] * (patches - kept.shape[2])
        return jnp.argsort(dropped, axis=1, stable=True)[:, :left]

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        images: UInt8[Array, "B I S S 3"],
    ) -> Float[Array, "B T D"]:
        """Hidden states of whole rows (`Batch`), one view at a time or views stacked along B."""
        hidden, _ = self.language(self.embed(tokens, images), positions, causal_mask(segments))
        return hidden
