"""BLIP-2 through `transformers` on torch: every submodule, and the logits."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import Blip2ForConditionalGeneration

from jaxguard.models import folders, weights
from jaxguard.models.architecture import merge
from jaxguard.models.attention import causal_mask
from tests.parity.checkpoints import (
    IMAGE_TOKEN,
    blip2,
    images,
    load,
    logits,
    ours,
    positions_of,
    relative,
    torch_pixels,
)

QUERIES = 5


def tokens_of(rows=2, tail=6):
    prefix = [[IMAGE_TOKEN] * QUERIES + [2]] * rows
    return np.concatenate([prefix, np.random.default_rng(0).integers(3, 80, (rows, tail))], axis=1).astype(np.int32)


def expected(theirs, config, tokens, pictures, mask=None):
    mask = torch.ones(tokens.shape) if mask is None else torch.from_numpy(mask)
    with torch.no_grad():
        return theirs(
            input_ids=torch.from_numpy(tokens).long(),
            attention_mask=mask.long(),
            pixel_values=torch_pixels(config, pictures),
        ).logits.numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision": {"qkv_bias": False}},
        {"qformer": {"cross_attention_frequency": 1}},
        {"qformer": {"cross_attention_frequency": 4}},
        {"text": {"tie_word_embeddings": False}},
        {"text": {"do_layer_norm_before": False}},
        {"text": {"enable_bias": False, "layer_norm_elementwise_affine": False}},
        {"text": {"activation_function": "gelu"}},
    ],
    ids=str,
)
def test_logits(tmp_path, changes):
    theirs = blip2(tmp_path, **changes)
    arch, model = ours(tmp_path)
    tokens, pictures = tokens_of(), images()
    assert relative(logits(model, tokens, pictures), expected(theirs, arch.config, tokens, pictures)) < 1e-4


def test_every_submodule(tmp_path):
    theirs = blip2(tmp_path)
    arch, model = ours(tmp_path)
    pictures = images(rows=3)[:, 0]
    with torch.no_grad():
        vision = theirs.vision_model(torch_pixels(arch.config, pictures)).last_hidden_state
        queries = theirs.qformer(theirs.query_tokens.expand(3, -1, -1), encoder_hidden_states=vision).last_hidden_state
        projected = theirs.language_projection(queries)
    assert relative(model.tower(jnp.asarray(pictures)), vision) < 1e-4
    assert relative(model.qformer(jnp.asarray(vision.numpy())), queries) < 1e-4
    assert relative(model.projector(jnp.asarray(queries.numpy())), projected) < 1e-4

    x = np.random.default_rng(1).normal(size=(2, 9, 32)).astype(np.float32)
    segments = np.ones((2, 9), np.int32)
    with torch.no_grad():
        hidden = theirs.language_model.model.decoder(inputs_embeds=torch.from_numpy(x)).last_hidden_state
        final = theirs.language_model.lm_head(hidden)
    state, _ = model.language(jnp.asarray(x), jnp.asarray(positions_of(segments)), causal_mask(segments))
    assert relative(state, hidden) < 1e-4
    assert relative(model.language.logits(state), final) < 1e-4


def test_padding(tmp_path):
    theirs = blip2(tmp_path)
    arch, model = ours(tmp_path)
    tokens, pictures = tokens_of(), images()
    for before, behind in ((3, 0), (0, 3)):
        padded = np.pad(tokens, ((0, 0), (before, behind)), constant_values=1)
        segments = np.pad(np.ones_like(tokens), ((0, 0), (before, behind)))
        real = np.s_[:, before : before + tokens.shape[1]]
        theirs_said = expected(theirs, arch.config, padded, pictures, segments)
        assert relative(logits(model, padded, pictures, segments)[real], theirs_said[real]) < 1e-4


def test_text_only(tmp_path):
    theirs = blip2(tmp_path)
    _, model = ours(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 80, (2, 9)).astype(np.int32)
    with torch.no_grad():
        said = theirs.language_model(torch.from_numpy(tokens).long()).logits
    assert relative(logits(model, tokens, images()), said) < 1e-4


def test_export_loads_in_transformers_with_equal_logits(tmp_path):
    blip2(tmp_path / "a")
    arch, parameters = load(tmp_path / "a")
    weights.save(parameters, arch, tmp_path / "a", tmp_path / "b", np.dtype("float32"))
    loaded: Any = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "b", output_loading_info=True)
    back, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, pictures = tokens_of(), images()
    said = expected(back, arch.config, tokens, pictures)
    assert relative(logits(merge(arch.graph, parameters), tokens, pictures), said) < 1e-4


def test_shipped_checkpoint():
    folder = folders.resolve("tiny-blip2")
    theirs = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    arch, model = ours(folder)
    rng = np.random.default_rng(0)
    image = np.full((1, arch.config.num_query_tokens), arch.config.image_token_index)
    tokens = np.concatenate([image, [[1]], rng.integers(5, 500, (1, 20))], axis=1).astype(np.int32)
    pictures = rng.integers(0, 255, (1, 1, 64, 64, 3)).astype(np.uint8)
    assert relative(logits(model, tokens, pictures), expected(theirs, arch.config, tokens, pictures)) < 1e-4
