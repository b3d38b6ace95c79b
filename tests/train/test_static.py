"""The compiled step of LLaVA-1.5-7B, from its published shapes: its memory and collectives on 16 and on 256 devices.

It is compiled for CPU devices, whose partitioning into per-device programs is the same as for TPUs; tests/slices checks
only that a small step compiles for a TPU slice.
"""

import dataclasses
import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

from jaxguard.bench.rehearsal import head_kind, trace
from jaxguard.config import MeshConfig
from jaxguard.config.files import load
from jaxguard.models import folders
from jaxguard.train.setup import describe_model, prepare

CONFIG = Path(__file__).parents[2] / "configs" / "llava_7b_lora_v5e16.py"
ROWS, TOKENS, VOCABULARY = 8, 704, 32064
"""Rows of a device, and the tokens of each."""

PROGRAM = """
import dataclasses, json, sys
from pathlib import Path
import jax
from jaxguard.bench import hlo
from jaxguard.bench.rehearsal import trace
from jaxguard.config import MeshConfig
from jaxguard.config.files import load
from jaxguard.models import folders
from jaxguard.train.setup import describe_model, prepare

config = load(Path(sys.argv[1]))
found = {}
for count in (16, 256):
    sized = dataclasses.replace(
        config,
        mesh=MeshConfig(data=1, fsdp=count),
        train=dataclasses.replace(config.train, batch_size=int(sys.argv[2]) * count, accumulate=1),
    )
    model = describe_model(sized.model, sized.mesh, folders.describe(sized.model.path), jax.devices()[:count])
    traced = trace(sized, prepare(model, sized.model.trainable, sized.train)[0], "fused")
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    text = traced.lower().compile(quick).as_text()
    found[count] = {
        "sent": hlo.moved(hlo.collectives(text)),
        "gathered": [(one.result, one.times) for one in hlo.collectives(text) if one.kind == "all-gather"],
        "arrays": sorted({(array.dtype, array.shape) for array in hlo.arrays(text)}),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compiled():
    """By the number of devices: bytes sent by kind, what is gathered how often, and every array of one device."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(CONFIG), str(ROWS)],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=256"},
        check=True,
        capture_output=True,
        text=True,
    )
    return {int(count): values for count, values in json.loads(done.stdout).items()}


def test_no_device_holds_the_logits_of_all_answers(compiled):
    answers = 2 * ROWS * load(CONFIG).data.answer_length
    for values in compiled.values():
        wide = [shape for _, shape in values["arrays"] if VOCABULARY in shape]
        assert [4096, VOCABULARY] in wide, "the head's own weights"
        logits = [prod(shape) // VOCABULARY for shape in wide if 4096 not in shape]
        assert 1 < max(logits) < answers, "chunks of them"


def test_exchanges_do_not_grow_with_the_slice(compiled):
    small, large = (sum(compiled[count]["sent"].values()) for count in (16, 256))
    assert small > 1e9
    assert large <= 1.1 * small


def test_no_device_gathers_the_model(compiled):
    """At most the head at once (float32, as CPUs multiply), and the model as often as passes need it."""
    head, model = 4 * 4096 * VOCABULARY, 4 * 7.1e9
    for values in compiled.values():
        assert max(size for size, _ in values["gathered"]) <= head
        assert sum(size * times for size, times in values["gathered"]) <= 3 * model


def test_hidden_states_stay_with_their_rows(compiled):
    """No device holds those of another's rows, which is what XLA makes of the weights' placement if left alone."""
    for count, values in compiled.items():
        rows = [shape[0] for _, shape in values["arrays"] if shape[1:] == [TOKENS, 4096]]
        assert rows
        assert max(rows) <= 2 * ROWS, f"{count} devices"


@pytest.mark.parametrize("trainable", ["lora", "projector", "all"])
def test_what_is_frozen_has_no_gradient(trainable):
    """A gradient of a matrix is a matrix product of its shape, summed over layers into a stack of its shape."""
    config = load(CONFIG)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, trainable=trainable),
        mesh=MeshConfig(data=1, fsdp=8),
        train=dataclasses.replace(config.train, batch_size=16, accumulate=1),
    )
    model = describe_model(config.model, config.mesh, folders.describe(config.model.path))
    setup, _ = prepare(model, config.model.trainable, config.train)
    products = {sides(shape) for shape in shapes_of_products(trace(config, setup, head_kind(config, model)).jaxpr)}
    frozen = {sides(leaf.shape) for path, leaf in setup.frozen.items() if path.endswith(".kernel")}
    trained = {
        sides(leaf.shape) for path, leaf in setup.abstract.parameters.items() if path.endswith((".kernel", ".a", ".b"))
    }
    assert trained <= products, "what trains has its gradient"
    assert not (frozen - trained) & products
    assert bool(frozen - trained) == (trainable != "all")


def sides(shape):
    """Of the last two axes, in any order."""
    return tuple(sorted(shape[-2:]))


def shapes_of_products(jaxpr):
    """Of all matrix products, inside loops too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.outvars[0].aval.shape
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from shapes_of_products(inner)
