"""IDEFICS through `transformers` on torch: every submodule, and the logits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import IdeficsForVisionText2Text
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids_pt,
    incremental_to_binary_attention_mask,
)

from jaxguard.models import folders, weights
from jaxguard.models.architecture import merge
from jaxguard.models.families.idefics.gated import VisionContext
from tests.parity.checkpoints import (
    IMAGE_TOKEN,
    idefics,
    images,
    load,
    logits,
    ours,
    relative,
    torch_pixels,
)

FAKE_TOKEN, END = 89, 2


class Vocabulary:
    """What the processor's mask asks its tokenizer."""

    eos_token_id = END

    def __init__(self, image_token):
        self.image_token = image_token

    def convert_tokens_to_ids(self, token):
        return {"<image>": self.image_token}[token]


def tokens_of(per_row=1, rows=2, ended=False):
    """A word, then per image the placeholder among its fake tokens and four words."""
    rng = np.random.default_rng(0)
    parts = [np.ones((rows, 1), int), rng.integers(3, 80, (rows, 1))]
    for _ in range(per_row):
        parts += [np.tile([FAKE_TOKEN, IMAGE_TOKEN, FAKE_TOKEN], (rows, 1)), rng.integers(3, 80, (rows, 4))]
        if ended:
            parts += [np.full((rows, 1), END), rng.integers(3, 80, (rows, 2))]
    return np.concatenate(parts, axis=1).astype(np.int32)


def expected(theirs, config, tokens, pictures, mask=None):
    tokens = torch.from_numpy(tokens).long()
    seen, _ = image_attention_mask_for_packed_input_ids_pt(tokens, Vocabulary(config.image_token_index))
    with torch.no_grad():
        return theirs(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens) if mask is None else torch.from_numpy(mask).long(),
            pixel_values=torch_pixels(config, pictures).unflatten(0, pictures.shape[:2]),
            image_attention_mask=incremental_to_binary_attention_mask(seen, "pt", num_classes=pictures.shape[1]),
        ).logits.numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cross_layer_interval": 1},
        {"cross_layer_interval": 4},
        {"qk_layer_norms": True},
        {"alpha_type": "vector"},
        {"use_resampler": False},
        {"perceiver": {"qk_layer_norms_perceiver": True}},
        {"additional_vocab_size": 0, "vocab_size": 96, "image_token_index": IMAGE_TOKEN},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
def test_logits(tmp_path, changes):
    theirs = idefics(tmp_path, **changes)
    arch, model = ours(tmp_path)
    tokens, pictures = tokens_of(), images()
    assert relative(logits(model, tokens, pictures), expected(theirs, arch.config, tokens, pictures)) < 1e-4


def test_several_images_end_tokens_and_padding(tmp_path):
    theirs = idefics(tmp_path)
    arch, model = ours(tmp_path)
    tokens, pictures = tokens_of(per_row=2, ended=True), images(per_row=3)
    assert relative(logits(model, tokens, pictures), expected(theirs, arch.config, tokens, pictures)) < 1e-4
    for before, behind in ((3, 0), (0, 3)):
        padded = np.pad(tokens, ((0, 0), (before, behind)))
        segments = np.pad(np.ones_like(tokens), ((0, 0), (before, behind)))
        real = np.s_[:, before : before + tokens.shape[1]]
        theirs_said = expected(theirs, arch.config, padded, pictures, segments)
        assert relative(logits(model, padded, pictures, segments)[real], theirs_said[real]) < 1e-4


def test_every_submodule(tmp_path):
    theirs = idefics(tmp_path).model
    arch, model = ours(tmp_path)
    pictures = images(rows=3)[:, 0]
    with torch.no_grad():
        vision = theirs.vision_model(torch_pixels(arch.config, pictures)).last_hidden_state
        latents = theirs.perceiver_resampler(vision)
    assert relative(model.tower(jnp.asarray(pictures)), vision) < 1e-4
    assert relative(model.resampler(jnp.asarray(vision.numpy())), latents) < 1e-4

    tokens = np.array([[1, 5, 89, 90, 91, 88, 0]], np.int32)
    with torch.no_grad():
        embedded = theirs.embed_tokens(torch.from_numpy(tokens).long())
    assert relative(model.language.embed(jnp.asarray(tokens), jnp.float32), embedded) < 1e-6

    x = np.random.default_rng(1).normal(size=(3, 6, 32)).astype(np.float32)
    visible = np.random.default_rng(2).integers(0, 2, (3, 6, 5)).astype(bool)
    visible[0, 2] = False
    hidden = np.where(visible, 0.0, np.finfo(np.float32).min).astype(np.float32)[:, None]
    with torch.no_grad():
        crossed = theirs.gated_cross_attn_layers[1](
            torch.from_numpy(x),
            image_hidden_states=latents,
            image_attention_mask=torch.from_numpy(hidden),
            cross_attention_gate=torch.from_numpy(visible.any(-1).astype(np.float32)),
        )
    graph, parameters = nnx.split(model.language.cross)
    block = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[1], parameters))
    assert (
        relative(block(jnp.asarray(x), VisionContext(jnp.asarray(latents.numpy()), jnp.asarray(visible))), crossed)
        < 1e-4
    )


def test_text_only(tmp_path):
    theirs = idefics(tmp_path)
    arch, model = ours(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 80, (2, 9)).astype(np.int32)
    assert relative(logits(model, tokens, images()), expected(theirs, arch.config, tokens, images())) < 1e-4


def test_export_loads_in_transformers_with_equal_logits(tmp_path):
    idefics(tmp_path / "a")
    arch, parameters = load(tmp_path / "a")
    weights.save(parameters, arch, tmp_path / "a", tmp_path / "b", np.dtype("float32"))
    loaded: Any = IdeficsForVisionText2Text.from_pretrained(tmp_path / "b", output_loading_info=True)
    back, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, pictures = tokens_of(), images()
    said = expected(back, arch.config, tokens, pictures)
    assert relative(logits(merge(arch.graph, parameters), tokens, pictures), said) < 1e-4


def test_shipped_checkpoint():
    folder = folders.resolve("tiny-idefics")
    theirs = IdeficsForVisionText2Text.from_pretrained(folder, dtype=torch.float32).eval()
    arch, model = ours(folder)
    rng = np.random.default_rng(0)
    around = arch.config.text.llama.vocab_size
    image = [1, 9, around, arch.config.image_token_index, around]
    tokens = np.concatenate([[image], rng.integers(5, 500, (1, 20))], axis=1).astype(np.int32)
    pictures = rng.integers(0, 255, (1, 1, 64, 64, 3)).astype(np.uint8)
    assert relative(logits(model, tokens, pictures), expected(theirs, arch.config, tokens, pictures)) < 1e-4
