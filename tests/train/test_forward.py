"""Views of different lengths and of some rows only, against running every view whole and by itself."""

import dataclasses
import json
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.batch import Batch
from jaxguard.config import MeshConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.sources import open_source
from jaxguard.models.attention import causal_mask
from jaxguard.models.families import architecture, merge
from jaxguard.models.layers import scan
from jaxguard.train.forward import Viewed, answer_positions, hidden_states, token_statistics
from jaxguard.train.loop import train
from jaxguard.train.sharding import batch_sharding, make_mesh

DROP = ViewConfig(patch_size=16, shuffle_share=0.5, mask_share=0.5, mask_fill="drop")
ROWS = 8


@pytest.fixture(scope="module")
def model(small_checkpoint):
    arch = architecture(small_checkpoint, dtype="float32", remat=False)
    return merge(arch.graph, jax.jit(lambda: arch.initial(3))())


@pytest.fixture(scope="module")
def made(small_checkpoint, small_data, tmp_path_factory):
    """A batch for any view."""
    from tests.conftest import _small_config

    encoder = Encoder.from_checkpoint(small_checkpoint)
    config = _small_config(small_checkpoint, small_data, tmp_path_factory.mktemp("unused"))

    def make(view: ViewConfig, **data) -> Batch:
        changed = dataclasses.replace(config, view=view, data=dataclasses.replace(config.data, **data))
        source = open_source(str(small_data), small_data, "train")
        return next(train_batches(changed, encoder, source, batch_size=ROWS, views=2))

    return make
