"""Tokens, image masks and pixels of BLIP-2 and IDEFICS against the output of their own processors."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Blip2Processor, IdeficsProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

from jaxguard.data.encode import Encoder
from jaxguard.data.rows import Row
from jaxguard.models.architecture import architecture
from jaxguard.models.families.idefics.model import Idefics
from jaxguard.zoo.drafts import write_draft

QUESTION, ANSWER = "What is it?", "A small red circle."
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A draft of each family, and of an IDEFICS whose tokenizer knows no end of utterance."""
    made = {name: tmp_path_factory.mktemp(name) / "draft" for name in ("blip-2", "idefics")}
    for name, folder in made.items():
        write_draft(name, folder)
    made["idefics-base"] = tmp_path_factory.mktemp("base") / "draft"
    write_draft("idefics", made["idefics-base"])
    for file in made["idefics-base"].iterdir():
        file.write_text(file.read_text().replace("<end_of_utterance>", "<nothing>"))
    return made


def encoded(folder):
    row = Row(0, "a", PIXELS, (QUESTION,), (ANSWER,), ())
    encoder = Encoder.from_checkpoint(folder)
    return encoder, encoder.encode(row, length=100, answer_length=40, pack=1, rng=np.random.default_rng(0))


def real(row):
    return row.tokens[row.segments > 0].tolist()


def test_blip2(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["blip-2"])
    images = BlipImageProcessorPil.from_pretrained(folders["blip-2"])
    processor = Blip2Processor(images, tokenizer, num_query_tokens=32)
    encoder, row = encoded(folders["blip-2"])
    theirs = processor(images=Image.fromarray(PIXELS), text=f"Question: {QUESTION} Answer:")
    prompt = encoder.prompt(QUESTION, 100)
    assert real(prompt) == theirs["input_ids"][0]
    whole = processor(images=Image.fromarray(PIXELS), text=f"Question: {QUESTION} Answer: {ANSWER}")["input_ids"][0]
    assert real(row) == [*whole, tokenizer.eos_token_id]
    learnt = row.answer_mask[row.segments > 0]
    assert learnt.tolist() == [False] * len(real(prompt)) + [True] * (len(whole) + 1 - len(real(prompt)))
    _same_pixels(encoder, folders["blip-2"], theirs["pixel_values"][0])


@pytest.mark.parametrize(("name", "closing"), [("idefics", "<end_of_utterance>"), ("idefics-base", "")])
def test_idefics(folders, name, closing):
    folder = folders[name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = IdeficsProcessor(IdeficsImageProcessorPil.from_pretrained(folder, image_size=64), tokenizer)
    encoder, row = encoded(folder)
    picture = Image.fromarray(PIXELS)
    theirs = processor(text=["User:", picture, f"{QUESTION}{closing}\nAssistant:"])
    prompt = encoder.prompt(QUESTION, 100)
    assert real(prompt) == theirs["input_ids"][0].tolist()
    end = closing or tokenizer.eos_token
    whole = processor(text=["User:", picture, f"{QUESTION}{closing}\nAssistant: {ANSWER}{end}"])
    assert real(row) == whole["input_ids"][0].tolist()
    learnt = row.answer_mask[row.segments > 0]
    assert learnt.tolist() == [False] * len(real(prompt)) + [True] * (len(real(row)) - len(real(prompt)))
    arch = architecture(folder, dtype="float32", remat="none")
    assert arch.config.image_token_index == encoder.image_id
    seen = seen_images(arch.config, row.tokens[None], row.segments[None], 1)[0][row.segments > 0]
    assert np.asarray(seen).tolist() == whole["image_attention_mask"][0].bool().tolist()
    _same_pixels(encoder, folder, theirs["pixel_values"][0, 0])


def test_images_behind_an_end_and_several_of_them(folders):
    """What each token may look at, where the processor puts three images and two ends into one row."""
    tokenizer = AutoTokenizer.from_pretrained(folders["idefics"])
    processor = IdeficsProcessor(IdeficsImageProcessorPil.from_pretrained(folders["idefics"]), tokenizer)
    picture = Image.fromarray(PIXELS)
    theirs = processor(text=["User:", picture, "one</s>two", picture, picture, "three</s>", "four"])
    tokens = theirs["input_ids"].numpy().astype(np.int32)
    config = architecture(folders["idefics"], dtype="float32", remat="none").config
    seen = seen_images(config, tokens, np.ones_like(tokens), 3)
    assert np.asarray(seen).tolist() == theirs["image_attention_mask"].bool().tolist()
    assert torch.unique(theirs["image_attention_mask"].sum(-1)).tolist() == [0, 1]


def seen_images(config, tokens, segments, count):
    """`Idefics.seen`, which asks nothing of its model but the configuration."""
    model: Any = SimpleNamespace(config=config)
    return Idefics.seen(model, jnp.asarray(tokens), jnp.asarray(segments), count)


def _same_pixels(encoder, folder, expected):
    config = architecture(folder, dtype="float32", remat="none").config
    pixels = encoder.image(PIXELS).astype(np.float32) / 255
    ours = (pixels - np.float32(config.image_mean)) / np.float32(config.image_std)
    assert np.abs(ours.transpose(2, 0, 1) - np.asarray(expected)).max() < 2 / 255 / min(config.image_std)
