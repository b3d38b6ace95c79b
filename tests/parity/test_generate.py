"""Greedy and beam search against `transformers.generate`: twenty prompts a family, of different lengths, at once."""

import functools

import jax
import numpy as np
import pytest
import torch
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids_pt,
    incremental_to_binary_attention_mask,
)

from jaxguard.batch import Batch
from jaxguard.evaluate.decode import beam, greedy
from tests.parity import checkpoints
from tests.parity.checkpoints import IMAGE_TOKEN, images, positions_of, torch_pixels

ROWS, NEW, BEAMS = 20, 12, 3
PREFIX = {
    "llava": [1] + [IMAGE_TOKEN] * 16,
    "blip2": [IMAGE_TOKEN] * 5 + [2],
    "idefics": [1, 89, IMAGE_TOKEN, 89],
}


class Vocabulary:
    """What the IDEFICS processor's mask asks its tokenizer."""

    eos_token_id = 2

    def convert_tokens_to_ids(self, token):
        return {"<image>": IMAGE_TOKEN}[token]


@pytest.fixture(scope="module", params=PREFIX)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = getattr(checkpoints, request.param)(folder)
    arch, parameters = checkpoints.load(folder)
    return request.param, theirs, arch, parameters


def prompts(name):
    """Left-padded: one to nine words behind the family's prefix."""
    rng = np.random.default_rng(3)
    rows = [PREFIX[name] + rng.integers(3, 80, 1 + number % 9).tolist() for number in range(ROWS)]
    length = max(map(len, rows))
    tokens = np.array([[0] * (length - len(row)) + row for row in rows], np.int32)
    segments = np.array([[0] * (length - len(row)) + [1] * len(row) for row in rows], np.int32)
    pictures = images(rows=ROWS)
    return Batch(
        images=pictures[:, None],
        tokens=tokens,
        positions=positions_of(segments),
        segments=segments,
        answer_mask=np.zeros(tokens.shape, bool),
        ids=np.arange(ROWS, dtype=np.int32),
        pairs=np.zeros(ROWS, np.int32),
    )


def theirs_say(family, batch, end, beams, stops):
    name, theirs, arch, _ = family
    tokens = torch.from_numpy(np.asarray(batch.tokens)).long()
    inputs = {
        "input_ids": tokens,
        "attention_mask": torch.from_numpy(np.asarray(batch.segments)).long(),
        "pixel_values": torch_pixels(arch.config, np.asarray(batch.images)),
    }
    if name == "idefics":
        inputs["pixel_values"] = inputs["pixel_values"][:, None]
        seen, _ = image_attention_mask_for_packed_input_ids_pt(tokens, Vocabulary())
        inputs["image_attention_mask"] = incremental_to_binary_attention_mask(seen, "pt", num_classes=1)
    options = {
        "max_new_tokens": NEW,
        "num_beams": beams,
        "do_sample": False,
        "eos_token_id": [end, *stops],
        "pad_token_id": end,
    }
    said = theirs.generate(**inputs, **options)[:, tokens.shape[1] :].numpy()
    return np.pad(said, ((0, 0), (0, NEW - said.shape[1])), constant_values=end)


def ours_say(family, batch, end, beams, stops=()):
    _, _, arch, parameters = family
    search = greedy if beams == 1 else functools.partial(beam, beams=beams)
    run = jax.jit(functools.partial(search, arch.graph, new_tokens=NEW, end_token=end, stops=stops))
    return np.asarray(run(parameters, batch))


@pytest.mark.parametrize("beams", [1, BEAMS])
def test_the_same_tokens(family, beams):
    batch = prompts(family[0])
    free = ours_say(family, batch, 95, 1)
    often = np.argsort(-np.bincount(free[:, 2:].reshape(-1)))  # tokens that answers do reach, some early, some never
    end, other = int(often[0]), int(often[1])
    said = ours_say(family, batch, end, beams, (other,))
    np.testing.assert_array_equal(said, theirs_say(family, batch, end, beams, (other,)))
    ended = np.isin(said, (end, other)).any(axis=1)
    assert (said == other).any()
    assert ended.any()
    assert len(np.unique(said, axis=0)) > 5


def test_beams_find_something_else_than_greedy(family):
    batch = prompts(family[0])
    assert (ours_say(family, batch, 95, 1) != ours_say(family, batch, 95, BEAMS)).any()


def test_one_beam_is_greedy(family):
    batch = prompts(family[0])
    np.testing.assert_array_equal(
        ours_say(family, batch, 95, 1),
        np.asarray(
            jax.jit(functools.partial(beam, family[2].graph, new_tokens=NEW, end_token=95, beams=1))(family[3], batch)
        ),
    )
