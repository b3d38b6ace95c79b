"""Splash attention compiled by libtpu, in the shapes of published models."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from jaxguard.bench.hardware import COMPILE_ONLY
from jaxguard.config import MeshConfig
from jaxguard.models.attention import Causal, attention
from jaxguard.train.sharding import ROWS, make_mesh, rows_on


@pytest.fixture
def mesh(monkeypatch):
    for name, value in COMPILE_ONLY.items():
        monkeypatch.setenv(name, value)
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    return make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), list(chips))


@pytest.mark.parametrize(
    ("causal", "length", "heads", "groups", "depth"),
    [(True, 704, 32, 32, 128), (True, 640, 32, 8, 128), (False, 577, 16, 16, 64), (False, 257, 16, 16, 88)],
    ids=["LLaVA", "grouped", "CLIP", "EVA"],
)
def test_splash_attention_and_its_gradient_compile(mesh, causal, length, heads, groups, depth):
    def total(query, key, value):
        mask = Causal(jnp.ones((len(query), length, length), bool)) if causal else None
        with rows_on(mesh):
            return jnp.sum(attention(query, key, value, mask).astype(jnp.float32))

    place = NamedSharding(mesh, PartitionSpec(ROWS, None, "tensor"))
    shapes = [(8, length, count, depth) for count in (heads, groups, groups)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place) for shape in shapes]
    program = jax.jit(jax.grad(total, (0, 1, 2))).lower(*arrays).compile().as_text()
    assert program is not None
    assert program.count("tpu_custom_call") == 3, "forwards, and backwards once for queries and once for keys"
    assert not any(exchange in program for exchange in ("all-reduce", "all-gather")), "each chip has its heads' tokens"
