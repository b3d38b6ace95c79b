"""A pretrained English language model through the usual conversion: its answers, and its logits in torch."""

import functools

import jax
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from jaxguard.batch import Batch
from jaxguard.evaluate.decode import greedy
from jaxguard.models.architecture import merge
from tests.parity.checkpoints import load, logits, relative
from tests.parity.smollm import gguf_file, write_llava

SAID = {
    "The capital of France is": " Paris",
    "Monday, Tuesday, Wednesday,": " Thursday",
    "def square(x):\n    return": " x",
    "The opposite of hot is": " cold",
}
"""What each answer holds."""
NEW = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm")
    write_llava(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def prompts(folder):
    """Left-padded rows of text, with an image beside each that no token stands for."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(text)["input_ids"] for text in SAID]
    length = max(map(len, rows))
    tokens, segments = (
        np.array([[0] * (length - len(row)) + values for row, values in pairs], np.int32)
        for pairs in ([(row, row) for row in rows], [(row, [1] * len(row)) for row in rows])
    )
    positions = np.maximum(np.cumsum(segments, axis=1) - 1, 0).astype(np.int32)
    images = np.zeros((len(rows), 1, 1, 28, 28, 3), np.uint8)
    ids = np.arange(len(rows), dtype=np.int32)
    return Batch(images, tokens, positions, segments, np.zeros(tokens.shape, bool), ids, np.zeros_like(ids))


def test_it_speaks_english(folder, model, prompts):
    arch, parameters = model
    assert arch.config.text.num_key_value_heads < arch.config.text.num_attention_heads
    assert "language.head.kernel" not in parameters
    answer = jax.jit(functools.partial(greedy, arch.graph, new_tokens=NEW, end_token=2))(parameters, prompts)
    said = AutoTokenizer.from_pretrained(folder).batch_decode(np.asarray(answer), skip_special_tokens=True)
    assert not [text for expected, text in zip(SAID.values(), said, strict=True) if expected not in text]


def test_the_same_logits_in_torch(model, prompts):
    """`transformers` reads the same file by its own code."""
    path = gguf_file()
    theirs = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    row = np.argmax(prompts.segments.sum(axis=1))
    tokens = prompts.tokens[row : row + 1]
    assert prompts.segments[row].all()
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long()).logits
    arch, parameters = model
    assert relative(logits(merge(arch.graph, parameters), tokens, prompts.images[:1, 0]), expected.numpy()) < 1e-4
