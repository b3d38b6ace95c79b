"""Every family against results of `transformers` on torch (tests/parity/goldens.py), without importing either."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxguard.batch import Batch
from jaxguard.evaluate.decode import beam, greedy
from jaxguard.models import weights
from jaxguard.models.architecture import architecture, merge

FOLDER = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("family", ["llava", "blip2", "idefics"])
def test_tower_logits_and_tokens(family):
    arch = architecture(FOLDER / family, dtype="float32", remat="none")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    parameters = weights.load(
        FOLDER / family, arch, dict.fromkeys(arch.shapes, device), dict.fromkeys(arch.shapes, np.dtype("float32"))
    )
    expected = load_file(FOLDER / family / "expected.safetensors")
    tokens, segments, images = (jnp.asarray(expected[name]) for name in ("tokens", "segments", "images"))
    positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)

    @jax.jit
    def run(parameters, images):
        model = merge(arch.graph, parameters)
        hidden = model(tokens, positions, segments, images)
        return model.tower(images.reshape(-1, *images.shape[2:])), model.language.logits(hidden)

    tower, logits = run(parameters, images)
    real = segments > 0
    for ours, theirs in ((tower, expected["tower"]), (logits[real], expected["logits"][real])):
        assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 1e-4

    ids = jnp.arange(3, dtype=jnp.int32)
    batch = Batch(images[:, None], tokens, positions, segments, jnp.zeros(tokens.shape, bool), ids, ids * 0)
    for name, search in (("greedy", greedy), ("beam", functools.partial(beam, beams=3))):
        decode = functools.partial(search, arch.graph, new_tokens=8, end_token=int(expected["end"][0]))
        np.testing.assert_array_equal(jax.jit(decode)(parameters, batch), expected[name])
