"""The same safetensors through `transformers` on torch: hidden layouts, logits, greedy tokens."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from jaxguard.config import MeshConfig
from jaxguard.models import weights, zoo
from jaxguard.models.families import architecture, merge
from jaxguard.train.sharding import make_mesh, parameter_shardings

IMAGE_TOKEN = 90


def tiny(folder, **changes):
    """A random checkpoint as `transformers` saves it."""
    torch.manual_seed(0)
    text = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": changes.pop("groups", 2),
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 16,
        "patch_size": 4,
        "projection_dim": 8,
    }
    tied = changes.pop("tie_word_embeddings", False)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=LlamaConfig(**text, tie_word_embeddings=tied),
        image_token_index=IMAGE_TOKEN,
        tie_word_embeddings=tied,
        **changes,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def load(folder):
    arch = architecture(folder, dtype="float32", remat=False)
    shardings = parameter_shardings(arch.shapes, make_mesh(MeshConfig()))
    return arch, weights.load(folder, arch, shardings, dict.fromkeys(arch.shapes, np.dtype("float32")))


def ours(folder):
    arch, parameters = load(folder)
    return arch, merge(arch.graph, parameters)


def inputs(config, images_per_row=1, rows=2, tail=6):
    rng = np.random.default_rng(0)
    side, per_image = config.vision.image_size, config.vision.patches
    if config.vision_feature_select_strategy == "full":
        per_image += 1
    prefix = [[1, 7] + [IMAGE_TOKEN] * per_image * images_per_row] * rows
    tokens = np.concatenate([prefix, rng.integers(3, 80, (rows, tail))], axis=1).astype(np.int32)
    return tokens, rng.integers(0, 255, (rows, images_per_row, side, side, 3)).astype(np.uint8)


def torch_pixels(config, images):
    pixels = (images.astype(np.float32) / 255 - np.float32(config.image_mean)) / np.float32(config.image_std)
    return torch.from_numpy(pixels.reshape(-1, *images.shape[2:]).transpose(0, 3, 1, 2).copy())


def logits(model, tokens, images, segments=None):
    segments = np.ones_like(tokens) if segments is None else segments
    positions = np.maximum(np.cumsum(segments > 0, axis=1) - 1, 0).astype(np.int32)
    return np.asarray(model.language.logits(model(tokens, positions, segments, jnp.asarray(images))))


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision_feature_layer": -1},
        {"vision_feature_select_strategy": "full"},
        {"tie_word_embeddings": True},
        {"groups": 4},
        {"multimodal_projector_bias": False},
    ],
    ids=lambda changes: next(iter(changes), "default"),
)
def test_logits(tmp_path, changes):
    theirs = tiny(tmp_path, **changes)
    arch, model = ours(tmp_path)
    tokens, images = inputs(arch.config)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(model, tokens, images), expected.logits.numpy()) < 1e-4


def test_several_images_and_padding(tmp_path):
    theirs = tiny(tmp_path)
    arch, model = ours(tmp_path)
    tokens, images = inputs(arch.config, images_per_row=2)
    padded = np.pad(tokens, ((0, 0), (3, 0)))
    segments = np.pad(np.ones_like(tokens), ((0, 0), (3, 0)))
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.from_numpy(padded).long(),
            attention_mask=torch.from_numpy(segments).long(),
            pixel_values=torch_pixels(arch.config, images),
        ).logits.numpy()
    assert relative(logits(model, padded, images, segments)[:, 3:], expected[:, 3:]) < 1e-4


def test_text_only(tmp_path):
    theirs = tiny(tmp_path)
    _, model = ours(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 80, (2, 9)).astype(np.int32)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long()).logits.numpy()
    unused = np.zeros((2, 1, 16, 16, 3), np.uint8)
    assert relative(logits(model, tokens, unused), expected) < 1e-4


def test_export_loads_in_transformers_with_equal_logits(tmp_path):
    tiny(tmp_path / "a")
    arch, parameters = load(tmp_path / "a")
    weights.save(parameters, arch, tmp_path / "a", tmp_path / "b", np.dtype("float32"))
    back, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, images = inputs(arch.config)
    with torch.no_grad():
        expected = back(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(merge(arch.graph, parameters), tokens, images), expected.logits.numpy()) < 1e-4


def test_shipped_checkpoint():
    folder = zoo.resolve("tiny-llava")
    theirs = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    arch, model = ours(folder)
    rng = np.random.default_rng(0)
    image = np.full((1, arch.config.vision.patches), arch.config.image_token_index)
    tokens = np.concatenate([[[1, 9]], image, rng.integers(5, 500, (1, 20))], axis=1).astype(np.int32)
    images = rng.integers(0, 255, (1, 1, 64, 64, 3)).astype(np.uint8)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(model, tokens, images), expected.logits.numpy()) < 1e-4
