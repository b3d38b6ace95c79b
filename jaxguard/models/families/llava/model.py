"""LLaVA-1.5 (arXiv 2310.03744): CLIP tower, MLP projector, Llama decoder. Wiring only."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from jaxguard.config import Remat
from jaxguard.models import towers
from jaxguard.models.layers import ACTIVATIONS, Linear
from jaxguard.models.llama import Llama, LlamaConfig
from jaxguard.models.vision_language import CLIP_MEAN, CLIP_STD, Pixels, Statistics, VisionLanguageModel
from jaxguard.models.vit import Vit, VitConfig


@dataclass(frozen=True)
class LlavaConfig:
    """The fields of a Hugging Face `LlavaConfig`, and the pixel statistics of its preprocessor file."""

    vision: VitConfig
    text: LlamaConfig
    vision_kind: str = towers.CLIP
    """Kind of the tower, one of `towers.TOWERS`."""
    image_token_index: int = 32000
    projector_hidden_act: str = "gelu"
    vision_feature_layer: int | tuple[int, ...] = -2
    vision_feature_select_strategy: str = "default"
    multimodal_projector_bias: bool = True
    image_mean: Statistics = CLIP_MEAN
    image_std: Statistics = CLIP_STD

    @property
    def feature_layers(self) -> tuple[int, ...]:
        layers = self.vision_feature_layer
        return layers if isinstance(layers, tuple) else (layers,)

    @property
    def extras(self) -> int:
        """Number of an image's vectors that come before those of its patches."""
        return self.vision.extras - (self.vision_feature_select_strategy == "default")


class Projector(nnx.Module):
    """Two-layer MLP from patch vectors to the decoder's embedding space."""

    def __init__(self, config: LlavaConfig, *, rngs: nnx.Rngs):
        width, bias = config.text.hidden_size, config.multimodal_projector_bias
        self.act = config.projector_hidden_act
        self.first = Linear(config.vision.hidden_size * len(config.feature_layers), width, bias=bias, rngs=rngs)
        self.second = Linear(width, width, bias=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "N P F"]) -> Float[Array, "N P D"]:
        return self.second(ACTIVATIONS[self.act](self.first(x)))


class Llava(VisionLanguageModel):
    """LLaVA: patch vectors replace the embeddings of the image tokens."""

    bridge = r"^projector"

    def __init__(self, config: LlavaConfig, *, dtype: DTypeLike, remat: Remat, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.vision = Vit(config.vision, remat=remat, rngs=rngs)
        self.projector = Projector(config, rngs=rngs)
        self.language = Llama(config.text, remat=remat, rngs=rngs)

    def tower(self, images: Pixels, kept: Int[Array, "N p"] | None = None) -> Float[Array, "N P F"]:
        """Return the vectors of all patches, or of the kept ones."""
        hidden = self.vision(self.pixels(images), self.config.feature_layers, kept)
        return hidden[:, 1:] if self.config.vision_feature_select_strategy == "default" else hidden

    def embed_inputs(
        self,
        tokens: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        images: UInt8[Array, "B I h w 3"],
        kept: Int[Array, "B I p"] | None = None,
    ) -> tuple[Float[Array, "B T D"], None]:
        """Embed whole rows; with `kept`, `tokens` holds image tokens of the kept patches only (`kept_columns`)."""
        kept = None if kept is None else kept.reshape(-1, kept.shape[-1])
        features = self.projector(self.tower(images.reshape(-1, *images.shape[2:]), kept))
        return self.merge_image_features(features, tokens, self.config.image_token_index), None

    def kept_columns(self, tokens: Int[Array, "B T"], kept: Int[Array, "B I p"]) -> Int[Array, "B U"]:
        """Return the columns of whole rows that remain if images keep only some of their patches.

        Every row must hold all tokens of its I images. U is T minus the number of dropped patches of a row.
        """
        patches = self.config.vision.patches
        stays = (kept[..., None] == jnp.arange(patches)[None, None, None]).any(axis=-2)
        stays = jnp.pad(stays, ((0, 0), (0, 0), (self.config.extras, 0)), constant_values=True)
        stays = stays.reshape(tokens.shape[0], -1)
        is_image = tokens == self.config.image_token_index
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, stays.shape[1] - 1)
        dropped = is_image & ~jnp.take_along_axis(stays, order, axis=1)
        left = tokens.shape[1] - kept.shape[1] * (patches - kept.shape[2])
        return jnp.argsort(dropped, axis=1, stable=True)[:, :left]
