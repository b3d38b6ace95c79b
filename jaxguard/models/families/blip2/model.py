"""BLIP-2 (arXiv 2301.12597): EVA tower, Q-Former, linear projection, OPT decoder. Wiring only."""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from jaxguard.config import Remat
from jaxguard.models.families.blip2.qformer import QFormer, QFormerConfig
from jaxguard.models.layers import Linear
from jaxguard.models.opt import Opt, OptConfig
from jaxguard.models.vision_language import CLIP_MEAN, CLIP_STD, Pixels, Statistics, VisionLanguageModel
from jaxguard.models.vit import Vit, VitConfig


@dataclass(frozen=True)
class Blip2Config:
    """The fields of a Hugging Face `Blip2Config`, and the pixel statistics of its preprocessor file."""

    vision: VitConfig
    qformer: QFormerConfig
    text: OptConfig
    num_query_tokens: int = 32
    image_token_index: int = 50265
    image_mean: Statistics = CLIP_MEAN
    image_std: Statistics = CLIP_STD


class Blip2(VisionLanguageModel):
    """BLIP-2: a fixed number of query vectors per image replace the embeddings of the image tokens."""

    bridge = r"^(projector|qformer)"
    queries = r"^qformer"

    def __init__(self, config: Blip2Config, *, dtype: DTypeLike, remat: Remat, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.vision = Vit(config.vision, remat=remat, rngs=rngs)
        self.qformer = QFormer(config.qformer, queries=config.num_query_tokens, remat=remat, rngs=rngs)
        self.projector = Linear(config.qformer.hidden_size, config.text.hidden_size, bias=True, rngs=rngs)
        self.language = Opt(config.text, remat=remat, rngs=rngs)

    def tower(self, images: Pixels) -> Float[Array, "N P F"]:
        return self.vision(self.pixels(images))

    def image_tokens(self, features: Float[Array, "N P F"]) -> Float[Array, "N Q D"]:
        return self.qformer(features)

    def embed_inputs(
        self, tokens: Int[Array, "B T"], segments: Int[Array, "B T"], images: UInt8[Array, "B I h w 3"]
    ) -> tuple[Float[Array, "B T D"], None]:
        queries = self.image_tokens(self.tower(images.reshape(-1, *images.shape[2:]))).astype(self.dtype)
        return self.merge_image_features(self.projector(queries), tokens, self.config.image_token_index), None
