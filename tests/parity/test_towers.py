"""Towers and decoders that `llava` checkpoints name, each by itself against `transformers`, and back into it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from jaxguard.errors import UserError
from jaxguard.models import weights
from jaxguard.models.architecture import architecture
from jaxguard.models.attention import causal_mask
from jaxguard.models.families.registry import open_processor
from jaxguard.models.layers import ACTIVATIONS
from tests.parity.checkpoints import images, llava, load, ours, positions_of, relative, torch_pixels

STRATEGIES = {"clip": "default", "siglip": "full", "dinov2": "default", "registers": "default"}


@pytest.mark.parametrize("tower", STRATEGIES)
def test_tower_and_export(tmp_path, tower):
    layers = [-2, 0, 3] if tower == "registers" else -2
    strategy = STRATEGIES[tower]
    changes = {"vision_feature_layer": layers, "vision_feature_select_strategy": strategy}
    theirs = llava(tmp_path / "a", tower=tower, **changes)
    arch, model = ours(tmp_path / "a")
    pictures = images(rows=2)[:, 0]
    with torch.no_grad():
        found = theirs.get_image_features(torch_pixels(arch.config, pictures), return_dict=True).pooler_output
    features = model.projector(model.tower(jnp.asarray(pictures)))
    assert relative(features, torch.stack(tuple(found))) < 1e-4
    assert features.shape[1] == open_processor(tmp_path / "a").image_tokens

    _, parameters = load(tmp_path / "a")
    weights.save(parameters, arch, tmp_path / "a", tmp_path / "b", np.dtype("float32"))
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(tmp_path / "b", output_loading_info=True)
    back, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, msg=name)


def test_kept_patches_are_those_of_the_whole_image(tmp_path):
    """At their own positions, behind class token and registers."""
    llava(tmp_path, tower="registers", vision_feature_layer=0)
    _, model = ours(tmp_path)
    pictures, kept = jnp.asarray(images(rows=2)[:, 0]), jnp.array([[0, 5, 15], [1, 2, 3]])
    whole, some = model.tower(pictures), model.tower(pictures, kept)
    assert some.shape[1] == 3 + 3
    np.testing.assert_allclose(some[:, :3], whole[:, :3], atol=1e-6)
    np.testing.assert_allclose(some[:, 3:], jnp.take_along_axis(whole[:, 3:], kept[..., None], axis=1), atol=1e-6)


LONG = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.2, 1.5, 2.0],
    "long_factor": [1.5, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 12,
}


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        ("mistral", {}),
        ("mistral", {"head_dim": 16, "sliding_window": None}),
        ("qwen2", {}),
        ("llama", {"rope_parameters": LONG, "max_position_embeddings": 24}),
        ("llama", {"rope_parameters": LONG | {"factor": 4.0, "attention_factor": 1.1}}),
        ("llama", {"rope_parameters": LONG | {"original_max_position_embeddings": 40}, "max_position_embeddings": 80}),
        ("llama", {"hidden_act": "gelu_new"}),
    ],
    ids=str,
)
def test_decoder(tmp_path, decoder, text):
    theirs = llava(tmp_path, decoder=decoder, text=text)
    _, model = ours(tmp_path)
    x = np.random.default_rng(1).normal(size=(2, 20, 32)).astype(np.float32)
    segments = np.ones((2, 20), np.int32)
    with torch.no_grad():
        hidden = theirs.model.language_model(inputs_embeds=torch.from_numpy(x)).last_hidden_state
    state, _ = model.language(jnp.asarray(x), jnp.asarray(positions_of(segments)), causal_mask(segments))
    assert relative(state, hidden) < 1e-4


def test_activations():
    from transformers.activations import ACT2FN

    x = np.linspace(-12, 12, 200, dtype=np.float32)
    for name, ours_of in ACTIVATIONS.items():
        np.testing.assert_allclose(ours_of(jnp.asarray(x)), ACT2FN[name](torch.from_numpy(x)), atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({"decoder": "mistral"}, 4096),
        ({"decoder": "mistral", "text": {"sliding_window": 30}}, 30),
        ({"decoder": "mistral", "text": {"sliding_window": None}}, None),
        ({"decoder": "qwen2"}, None),
        ({"decoder": "qwen2", "text": {"use_sliding_window": True, "sliding_window": 20}}, 20),
        ({}, None),
    ],
    ids=str,
)
def test_rows_fit_the_sliding_window(tmp_path, changes, longest):
    llava(tmp_path, **changes)
    assert open_processor(tmp_path).longest == longest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tower": "siglip"}, "leaves out the class token, which a siglip_vision_model has not; use full"),
        ({"tower": "dinov2", "vision": {"use_swiglu_ffn": True}}, "use_swiglu_ffn is not supported"),
        ({"text": {"rope_parameters": LONG | {"short_factor": [1.0]}}}, "must have 4 positive numbers"),
    ],
    ids=str,
)
def test_what_is_refused(tmp_path, changes, message):
    llava(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        architecture(tmp_path, dtype="float32", remat="none")
