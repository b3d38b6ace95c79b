"""Tiny random checkpoints of every family, made and saved by `transformers`, and the same files through jaxguard."""

import jax
import numpy as np
import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from jaxguard.models import weights
from jaxguard.models.architecture import architecture, merge

SIDE = 16
IMAGE_TOKEN = 90


def _saved(model, folder):
    """With every parameter moved off its initial value, so that norms, gates and biases count."""
    model = model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


TOWERS: dict[str, tuple[type, dict]] = {
    "clip": (CLIPVisionConfig, {"intermediate_size": 40, "projection_dim": 8}),
    "siglip": (SiglipVisionConfig, {"intermediate_size": 40}),
    "dinov2": (Dinov2Config, {"mlp_ratio": 2}),
    "registers": (Dinov2WithRegistersConfig, {"mlp_ratio": 2, "num_register_tokens": 3}),
}
DECODERS: dict[str, type] = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}


def llava(folder, *, text=(), vision=(), tie_word_embeddings=False, tower="clip", decoder="llama", **changes):
    torch.manual_seed(0)
    kind, sizes = TOWERS[tower]
    config = LlavaConfig(
        vision_config=kind(
            **{
                "hidden_size": 24,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": SIDE,
                "patch_size": 4,
                **sizes,
                **dict(vision),
            }
        ),
        text_config=DECODERS[decoder](
            **{
                "vocab_size": 96,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "tie_word_embeddings": tie_word_embeddings,
                **dict(text),
            }
        ),
        image_token_index=IMAGE_TOKEN,
        tie_word_embeddings=tie_word_embeddings,
        **changes,
    )
    return _saved(LlavaForConditionalGeneration(config), folder)


def blip2(folder, *, text=(), vision=(), qformer=(), **changes):
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            **{
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": SIDE,
                "patch_size": 4,
                **dict(vision),
            }
        ),
        qformer_config=Blip2QFormerConfig(
            **{
                "hidden_size": 20,
                "intermediate_size": 36,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                **dict(qformer),
            }
        ),
        text_config=OPTConfig(
            **{
                "vocab_size": 96,
                "hidden_size": 32,
                "ffn_dim": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 64,
                **dict(text),
            }
        ),
        num_query_tokens=5,
        image_token_index=IMAGE_TOKEN,
        **changes,
    )
    return _saved(Blip2ForConditionalGeneration(config), folder)


def idefics(folder, *, vision=(), perceiver=(), **changes):
    torch.manual_seed(0)
    config = IdeficsConfig(
        **{
            "vocab_size": 89,
            "additional_vocab_size": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "cross_layer_interval": 2,
            "use_resampler": True,
            "alpha_initializer": "ones",
            "vision_config": {
                "embed_dim": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "image_size": SIDE,
                "patch_size": 4,
                **dict(vision),
            },
            "perceiver_config": {
                "resampler_n_latents": 5,
                "resampler_depth": 2,
                "resampler_n_heads": 2,
                "resampler_head_dim": 12,
                **dict(perceiver),
            },
            **changes,
        }
    )
    return _saved(IdeficsForVisionText2Text(config), folder)


def load(folder):
    """(architecture, parameters) of a folder, on one device: on eight, each would compute the same."""
    arch = architecture(folder, dtype="float32", remat="none")
    shardings = dict.fromkeys(arch.shapes, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    return arch, weights.load(folder, arch, shardings, dict.fromkeys(arch.shapes, np.dtype("float32")))


def ours(folder):
    """(architecture, module) of a folder."""
    arch, parameters = load(folder)
    return arch, merge(arch.graph, parameters)


def images(rows=2, per_row=1):
    return np.random.default_rng(7).integers(0, 255, (rows, per_row, SIDE, SIDE, 3)).astype(np.uint8)


def torch_pixels(config, images):
    """[N, 3, S, S] of uint8 images [..., S, S, 3], normalised as the processors do it."""
    pixels = (images.astype(np.float32) / 255 - np.float32(config.image_mean)) / np.float32(config.image_std)
    return torch.from_numpy(pixels.reshape(-1, *images.shape[-3:]).transpose(0, 3, 1, 2).copy())


def positions_of(segments):
    return np.maximum(np.cumsum(segments > 0, axis=1) - 1, 0).astype(np.int32)


def logits(model, tokens, images, segments=None):
    """Through the module, whole rows at once."""
    segments = np.ones_like(tokens) if segments is None else segments

    def run(tokens, positions, segments, images):
        return model.language.logits(model(tokens, positions, segments, images))

    return np.asarray(jax.jit(run)(tokens, positions_of(segments), segments, images))


def relative(a, b):
    """Largest difference, over the largest value expected."""
    b = b.detach().numpy() if isinstance(b, torch.Tensor) else b
    return np.abs(np.asarray(a) - b).max() / np.abs(b).max()
