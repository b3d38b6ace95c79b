"""The same safetensors through `transformers` on torch: hidden layouts, logits, greedy tokens."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from jaxguard.models import folders, weights
from jaxguard.models.architecture import merge
from jaxguard.models.attention import causal_mask
from tests.parity.checkpoints import IMAGE_TOKEN, llava, load, logits, ours, positions_of, relative, torch_pixels


def inputs(config, images_per_row=1, rows=2, tail=6):
    rng = np.random.default_rng(0)
    side, per_image = config.vision.image_size, config.vision.patches
    if config.vision_feature_select_strategy == "full":
        per_image += 1
    prefix = [[1, 7] + [IMAGE_TOKEN] * per_image * images_per_row] * rows
    tokens = np.concatenate([prefix, rng.integers(3, 80, (rows, tail))], axis=1).astype(np.int32)
    return tokens, rng.integers(0, 255, (rows, images_per_row, side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision_feature_layer": -1},
        {"vision_feature_select_strategy": "full"},
        {"tie_word_embeddings": True},
        {"text": {"num_key_value_heads": 4}},
        {"text": {"attention_bias": True, "mlp_bias": True, "head_dim": 16}},
        {"vision_feature_layer": [-2, 1, 3]},
        {"multimodal_projector_bias": False},
    ],
    ids=str,
)
def test_logits(tmp_path, changes):
    theirs = llava(tmp_path, **changes)
    arch, model = ours(tmp_path)
    tokens, images = inputs(arch.config)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(model, tokens, images), expected.logits.numpy()) < 1e-4


def test_every_submodule(tmp_path):
    theirs = llava(tmp_path)
    arch, model = ours(tmp_path)
    _, images = inputs(arch.config, rows=3)
    pictures = images[:, 0]
    with torch.no_grad():
        vision = theirs.model.vision_tower(torch_pixels(arch.config, pictures), output_hidden_states=True)
        patches = vision.hidden_states[-2][:, 1:]
        projected = theirs.model.multi_modal_projector(patches)
    assert relative(model.tower(jnp.asarray(pictures)), patches) < 1e-4
    assert relative(model.projector(jnp.asarray(patches.numpy())), projected) < 1e-4

    x = np.random.default_rng(1).normal(size=(2, 9, 32)).astype(np.float32)
    segments = np.ones((2, 9), np.int32)
    with torch.no_grad():
        hidden = theirs.model.language_model(inputs_embeds=torch.from_numpy(x)).last_hidden_state
        final = theirs.lm_head(hidden)
    state, _ = model.language(jnp.asarray(x), jnp.asarray(positions_of(segments)), causal_mask(segments))
    assert relative(state, hidden) < 1e-4
    assert relative(model.language.logits(state), final) < 1e-4


ROPES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "yarn, all values": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
        "truncate": False,
    },
}


@pytest.mark.parametrize("kind", ROPES)
def test_rope_scaling(tmp_path, kind):
    """At a row of 28 tokens, beyond the 24 of the config, so that `dynamic` stretches."""
    rope = {"rope_type": kind, "rope_theta": 500.0} | ROPES[kind]
    theirs = llava(tmp_path, text={"rope_parameters": rope, "max_position_embeddings": 24, "head_dim": 32})
    arch, model = ours(tmp_path)
    tokens, images = inputs(arch.config, tail=10)
    assert tokens.shape[1] == 28
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(model, tokens, images), expected.logits.numpy()) < 1e-4
    plain = llava(tmp_path / "plain", text={"head_dim": 32, "rope_parameters": {"rope_theta": 500.0}})
    with torch.no_grad():
        other = plain(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(other.logits.numpy(), expected.logits.numpy()) > 1e-3


def test_several_images_and_padding(tmp_path):
    theirs = llava(tmp_path)
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
    theirs = llava(tmp_path)
    _, model = ours(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 80, (2, 9)).astype(np.int32)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long()).logits.numpy()
    unused = np.zeros((2, 1, 16, 16, 3), np.uint8)
    assert relative(logits(model, tokens, unused), expected) < 1e-4


def test_export_loads_in_transformers_with_equal_logits(tmp_path):
    llava(tmp_path / "a")
    arch, parameters = load(tmp_path / "a")
    weights.save(parameters, arch, tmp_path / "a", tmp_path / "b", np.dtype("float32"))
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(tmp_path / "b", output_loading_info=True)
    back, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, images = inputs(arch.config)
    with torch.no_grad():
        expected = back(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(merge(arch.graph, parameters), tokens, images), expected.logits.numpy()) < 1e-4


def test_shipped_checkpoint():
    folder = folders.resolve("tiny-llava")
    theirs = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    arch, model = ours(folder)
    rng = np.random.default_rng(0)
    image = np.full((1, arch.config.vision.patches), arch.config.image_token_index)
    tokens = np.concatenate([[[1, 9]], image, rng.integers(5, 500, (1, 20))], axis=1).astype(np.int32)
    images = rng.integers(0, 255, (1, 1, 64, 64, 3)).astype(np.uint8)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(arch.config, images))
    assert relative(logits(model, tokens, images), expected.logits.numpy()) < 1e-4
