"""Fine-tuning modes: trainable parameters in bytes; adapters learn, use dropout and leave the base unchanged."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from jaxguard.bench.rehearsal import trace
from jaxguard.config import LoraConfig
from jaxguard.errors import UserError
from jaxguard.models import lora
from jaxguard.models.architecture import architecture, merge
from jaxguard.models.layers import Lora
from jaxguard.train.export import export
from jaxguard.train.loop import train
from jaxguard.train.setup import load_model, prepare
from jaxguard.train.state import partition


def with_model(config, **changes):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def gradients_of(config, setup):
    """Shape and type of each gradient that the step hands to its optimizer."""
    handed = []

    def update(gradients, *rest):
        handed.append({path: (value.shape, value.dtype) for path, value in gradients.items()})
        return setup.optimizer.update(gradients, *rest)

    trace(config, dataclasses.replace(setup, optimizer=setup.optimizer._replace(update=update)), "reference")
    (gradients,) = handed
    return gradients


@pytest.mark.parametrize("trainable", ["projector", "lora", "language", "all"])
def test_only_what_trains_has_float32_copies_gradients_and_moments(small_config, trainable):
    config = with_model(small_config, trainable=trainable, dtype="bfloat16", lora=LoraConfig(rank=2))
    model = load_model(config.model, config.mesh, config.seed)
    setup, chosen = prepare(model, config.model.trainable, config.train)
    count = sum(value.size for value in chosen.values())
    rest = sum(value.size for value in setup.frozen.values())
    assert count + rest == sum(struct.size for struct in model.architecture.shapes.values())
    assert size(chosen) == 4 * count
    assert size(setup.frozen) == 2 * rest
    state = setup.initial(chosen)
    counters = 3 * 4  # the step, and optax's two
    assert size(state) == 3 * 4 * count + counters
    assert gradients_of(config, setup) == {path: (value.shape, np.float32) for path, value in chosen.items()}
    wanted = {
        "projector": ("projector.",),
        "lora": ("language.layers.",),
        "language": ("projector.", "language."),
        "all": ("",),
    }
    assert all(path.startswith(wanted[trainable]) for path in chosen)
    if trainable == "lora":
        assert count == 2 * 2 * sum(sum(pair) for pair in SHAPES)  # two layers, rank two


SHAPES = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
"""Of the two layers' query, key, value, out, gate, up and down."""


def test_adapters_learn_and_the_base_stays(small_config, tmp_path):
    config = with_model(small_config, trainable="lora", lora=LoraConfig(rank=4, dropout=0.1))
    train(config)
    plain = with_model(small_config, trainable="projector")
    base = load_model(plain.model, plain.mesh, plain.seed).parameters
    export(config, tmp_path / "merged", "float32")
    export(config, tmp_path / "adapter", "float32", adapter=True)
    merged = with_model(small_config, path=str(tmp_path / "merged"), trainable="projector")
    after = load_model(merged.model, merged.mesh, merged.seed).parameters
    moved = {path for path in base if not np.array_equal(base[path], after[path])}
    names = ("query", "key", "value", "out", "gate", "up", "down")
    assert moved == {f"language.layers.{name}.kernel" for name in names}
    alone = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(alone) == 2 * 2 * 7
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    name = "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_{}.weight"
    change = alone[name.format("B")] @ alone[name.format("A")] * (32 / 4)
    kernel = "language.layers.up.kernel"
    np.testing.assert_allclose(np.asarray(after[kernel][1] - base[kernel][1]).T, change, atol=1e-6)
    assert np.abs(change).max() > 1e-5
    with pytest.raises(UserError, match="there is no adapter to write"):
        export(merged, tmp_path / "none", "float32", adapter=True)


def test_dropout_is_drawn_per_step_and_off_when_answering(small_checkpoint):
    arch = architecture(small_checkpoint, dtype="float32", remat="none", lora=LoraConfig(rank=2, dropout=0.5))
    parameters = jax.jit(lambda: arch.initial(0))()
    parameters = {path: value + 0.3 if path.endswith(".lora.b") else value for path, value in parameters.items()}
    tokens, positions = jnp.ones((1, 6), jnp.int32), jnp.arange(6, dtype=jnp.int32)[None]
    images = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)

    @jax.jit
    def hidden(key):
        model = merge(arch.graph, parameters)
        if key is not None:
            lora.drop(model, key)
        return model(tokens, positions, tokens, images)

    first, again, other = (np.asarray(hidden(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - np.asarray(hidden(None))).max() > 1e-3


def test_every_adapter_and_layer_has_dropout_of_its_own(small_checkpoint):
    arch = architecture(small_checkpoint, dtype="float32", remat="none", lora=LoraConfig(rank=2, dropout=0.5))
    model = merge(arch.graph, jax.jit(lambda: arch.initial(0))())
    lora.drop(model, jax.random.key(0))
    keys = [module.key for _, module in nnx.iter_modules(model) if isinstance(module, Lora)]
    assert None not in keys
    drawn = [tuple(part) for key in keys if key for part in np.asarray(jax.random.key_data(key[...])).tolist()]
    assert len(set(drawn)) == len(drawn) == 2 * len(SHAPES)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("^nothing$", "matches no linear layer"),
        (r"^vision\.patch", "vision.patch, which cannot carry an adapter"),
        (r"^language\.head", "language.head, which cannot carry an adapter"),
    ],
)
def test_targets_that_cannot_be_adapted(small_checkpoint, tmp_path, targets, message):
    config = json.loads((small_checkpoint / "config.json").read_text())
    untied = {"tie_word_embeddings": False, "text_config": config["text_config"] | {"tie_word_embeddings": False}}
    (tmp_path / "config.json").write_text(json.dumps(config | untied))
    with pytest.raises(UserError, match=message):
        architecture(tmp_path, dtype="float32", remat="none", lora=LoraConfig(targets=targets))


def test_values_that_cannot_work():
    for values in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": "("}):
        with pytest.raises(UserError, match=f"model.lora.{next(iter(values))}"):
            LoraConfig(**values)


def test_every_mode_splits_all_parameters(small_checkpoint):
    arch = architecture(small_checkpoint, dtype="float32", remat="none", lora=LoraConfig())
    for mode in ("projector", "lora", "decoder", "language", "all"):
        chosen, frozen = partition(arch.shapes, mode, arch.family)
        assert chosen
        assert chosen.keys() | frozen.keys() == arch.shapes.keys()
