"""A family registered from outside the package, used for training, decoding, export and rehearsal.

Its images are not square, its positions have two axes, and the tokens through its last image token attend to each other
in both directions.
"""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.bench.hardware import CHIPS, COMPILE_ONLY, Hardware
from jaxguard.bench.rehearsal_table import rehearse_runs
from jaxguard.bench.step import first_batch, flops
from jaxguard.config import MeshConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import eval_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.evaluate.decode import greedy
from jaxguard.evaluate.identity import evaluations
from jaxguard.evaluate.run import evaluate
from jaxguard.experiments.configurations import validate
from jaxguard.models import folders, weights
from jaxguard.models.architecture import architecture, merge
from jaxguard.models.families import registry
from jaxguard.train.export import export
from jaxguard.train.forward import Viewed, answer_positions, hidden_states
from jaxguard.train.loop import train
from jaxguard.train.setup import load_model
from jaxguard.train.sharding import make_mesh, parameter_shardings

SHAPE = (24, 40)
CONFIG = {
    "model_type": "toy",
    "image_token_index": 4,
    "vision_config": {"image_size": SHAPE, "patch_size": 8, "hidden_size": 16},
    "text_config": {
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    },
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights, the shipped tokenizer; the family is known while the tests of this module run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        patch.setattr(registry, "PACKAGES", dict(registry.PACKAGES))
        registry.register("toy", "toy")
        draft = tmp_path_factory.mktemp("toy") / "draft"
        shutil.copytree(folders.resolve("tiny-llava"), draft, ignore=shutil.ignore_patterns("*.safetensors"))
        (draft / "config.json").write_text(json.dumps(CONFIG))
        (draft / "preprocessor_config.json").write_text('{"size": {"height": 24, "width": 40}}')
        arch = architecture(draft, dtype="float32", remat="none")
        parameters = {path: np.asarray(value) for path, value in jax.jit(lambda: arch.initial(0))().items()}
        weights.save(parameters, arch, draft, draft.parent / "checkpoint", np.dtype("float32"))
        yield draft.parent / "checkpoint"


@pytest.fixture
def config(checkpoint, small_config):
    model = dataclasses.replace(small_config.model, path=str(checkpoint), trainable="all")
    few = dataclasses.replace(small_config.evaluate, examples=8, new_tokens=6)
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    return dataclasses.replace(small_config, model=model, mesh=mesh, evaluate=few, view=ViewConfig(patch_size=4))


def losses(config):
    return [json.loads(line)["loss"] for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_trains_answers_and_exports(config, tmp_path):
    validate(config)
    train(config)
    curve = losses(config)
    assert len(curve) == 8
    assert np.isfinite(curve).all()
    assert curve[-1] < curve[0]
    evaluate(config)
    (found,) = evaluations(config.run_dir)
    assert len(found.predictions()) == 2 * config.evaluate.examples

    export(config, tmp_path / "out", "float32")
    written = dataclasses.replace(config.model, path=str(tmp_path / "out"))
    again = load_model(written, config.mesh, config.seed)
    before = load_model(config.model, config.mesh, config.seed).parameters
    assert set(again.parameters) == set(before)
    assert not [path for path in before if np.array_equal(before[path], again.parameters[path])]


def test_a_view_that_drops_patches_is_the_view_without_them(config):
    """Packed behind the first view, with its own mask and positions, as if its row had never held the others."""
    view = ViewConfig(patch_size=8, shuffle_share=0.5, mask_share=0.4, mask_fill="drop")
    config = dataclasses.replace(config, view=view, mesh=MeshConfig())
    validate(config)
    model = load_model(config.model, config.mesh, config.seed)
    batch, arch = first_batch(config, Encoder.from_checkpoint(model.folder)), model.architecture
    batch = jax.tree.map(jnp.asarray, batch)
    assert batch.kept is not None
    assert batch.kept.shape == (8, 1, 9)
    parameters = jax.device_put(model.parameters, jax.devices()[0])
    at = answer_positions(batch.answer_mask, 16)

    @jax.jit
    def both(parameters):
        module = merge(arch.graph, parameters)
        first = module(batch.tokens, batch.positions, batch.segments, batch.images[:, 0])
        return hidden_states(module, batch, at, Viewed(1, 1)), jnp.take_along_axis(first, at[..., None], axis=1)

    (first, second), expected = both(parameters)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    is_image = np.asarray(batch.tokens) == CONFIG["image_token_index"]
    order = np.clip(np.cumsum(is_image, axis=1) - 1, 0, 14)
    stays = (np.asarray(batch.kept)[:, 0, :, None] == np.arange(15)).any(1)
    left = [np.flatnonzero(~row | own[places]) for row, own, places in zip(is_image, stays, order, strict=True)]
    columns = np.stack(left)
    tokens, segments = (jnp.take_along_axis(leaf, columns, 1) for leaf in (batch.tokens, batch.segments))
    positions = jnp.take_along_axis(batch.positions, columns[..., None], 1)

    @jax.jit
    def alone(parameters):
        module = merge(arch.graph, parameters)
        x, context = module.embed_inputs(tokens, segments, batch.images[:, 1], batch.kept)
        return module.decode(x, positions, module.attention_mask(tokens, segments), context)[0]

    whole = np.zeros((*batch.tokens.shape, 32), np.float32)
    np.put_along_axis(whole, columns[..., None], np.asarray(alone(parameters)), 1)
    where = np.take_along_axis(batch.answer_mask[:, 1:], np.asarray(at), 1)
    found = np.take_along_axis(whole, np.asarray(at)[..., None], 1)
    np.testing.assert_allclose(np.asarray(second)[where], found[where], atol=1e-5)
    assert np.abs(np.asarray(second) - np.asarray(first))[where].max() > 1e-3


def test_is_rehearsed(config, tmp_path, monkeypatch):
    for name in ("XLA_FLAGS", *COMPILE_ONLY):
        monkeypatch.setenv(name, "cpu" if name == "JAX_PLATFORMS" else "")
    step, decoding = rehearse_runs([(config, Hardware("8xH100", CHIPS["H100"], 8))], tmp_path, decode=True)
    assert step.fits
    assert decoding.fits
    assert step.inputs >= 2 * 3 * 24 * 40 * 8 / 4, "two views of eight rows over four devices"
    model = load_model(config.model, config.mesh, config.seed)
    batch = first_batch(config, Encoder.from_checkpoint(model.folder))
    assert flops(config, model, batch) == step.useful_flops * 8
    assert model.architecture.family.shallow(CONFIG, 1)["text_config"]["num_hidden_layers"] == 1


def test_where_parameters_lie_is_its_own_rule(checkpoint):
    arch = architecture(checkpoint, dtype="float32", remat="none")
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert tuple(parameter_shardings(arch.shapes, mesh, arch.family.axes)["projector.kernel"].spec) == (
        "fsdp",
        "tensor",
    )


def test_positions_have_two_axes(checkpoint):
    encoder = Encoder.from_checkpoint(checkpoint)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert encoder.image(pixels).shape == (*SHAPE, 3)
    row = Row(0, "a", pixels, ("What is it?", "how many?"), ("red", "one"), ("red",))
    size: dict[str, Any] = {"length": 96, "answer_length": 20, "rng": np.random.default_rng(0)}
    encoded, packed = (encoder.encode(row, pack=pack, **size) for pack in (1, 2))
    image = np.flatnonzero(encoded.tokens == encoder.image_id)
    start, behind = encoded.positions[image[0]], encoded.positions[image[-1] + 1]
    assert (encoded.positions[image] - start).tolist() == [[row, column] for row in range(3) for column in range(5)]
    assert behind.tolist() == (start + 5).tolist()
    for segment in (2, 3):
        assert packed.positions[(packed.segments == segment).argmax()].tolist() == behind.tolist()
    prompt = encoder.prompt("What is it?", 96)
    assert prompt.positions.shape == (96, 2)
    assert prompt.positions[-1].tolist() == [(prompt.segments > 0).sum() - 15 + 5 - 1] * 2


def test_the_prefix_sees_itself_both_ways(checkpoint, config):
    arch = architecture(checkpoint, dtype="float32", remat="none")
    parameters = load_model(config.model, MeshConfig(), config.seed).parameters
    encoder, source = Encoder.from_checkpoint(checkpoint), open_source(config.data.source, config.data.root, "test")
    batch, _ = next(iter(eval_batches(source, 1, encoder, 1, 64)))
    images = batch.images[:, 0].copy()
    images[:, :, -8:, -8:] ^= 255

    @jax.jit
    def hidden(parameters, tokens, images):
        positions, segments = jnp.asarray(batch.positions), jnp.asarray(batch.segments)
        return merge(arch.graph, parameters)(tokens, positions, segments, images)

    first = int((batch.tokens[0] == encoder.image_id).argmax())
    parameters = jax.device_put(parameters, jax.devices()[0])
    before = np.asarray(hidden(parameters, batch.tokens, batch.images[:, 0]))
    patched = np.asarray(hidden(parameters, batch.tokens, images))
    assert np.abs(before - patched)[0, first].max() > 1e-3, "the first patch sees the last one"
    tokens = batch.tokens.copy()
    tokens[:, -1] += 1
    asked = np.asarray(hidden(parameters, tokens, batch.images[:, 0]))
    np.testing.assert_array_equal(before[:, :-1], asked[:, :-1])


def test_cache_changes_nothing(config):
    """Token by token against a cache, and over whole rows, with its mask and its positions."""
    model = load_model(config.model, MeshConfig(), config.seed)
    arch, encoder = model.architecture, Encoder.from_checkpoint(model.folder)
    source = open_source(config.data.source, config.data.root, "test")
    rows = [dataclasses.replace(source[n], prompts=(said,)) for n, said in enumerate(("what is it?", "a", "how many?"))]
    batch, _ = next(iter(eval_batches(rows, len(rows), encoder, len(rows), 48)))
    parameters = jax.device_put(model.parameters, jax.devices()[0])
    answers = np.asarray(jax.jit(functools.partial(greedy, arch.graph, new_tokens=5, end_token=-1))(parameters, batch))

    @jax.jit
    def most_likely(tokens, positions, segments, images, last):
        module = merge(arch.graph, parameters)
        return module.language.logits(module(tokens, positions, segments, images)[:, last]).argmax(-1)

    tokens, segments = (np.pad(leaf, ((0, 0), (0, 5))) for leaf in (batch.tokens, batch.segments))
    positions = np.pad(batch.positions, ((0, 0), (0, 5), (0, 0)))
    for place in range(48, 53):
        token = most_likely(tokens, positions, segments, batch.images[:, 0], place - 1)
        np.testing.assert_array_equal(token, answers[:, place - 48])
        tokens[:, place], segments[:, place], positions[:, place] = token, 1, positions[:, place - 1] + 1


def test_what_nobody_registered_is_refused_everywhere(tmp_path, small_config):
    (tmp_path / "config.json").write_text('{"model_type": "toyish"}')
    message = r"config\.json: model_type 'toyish' is not supported; use llava, blip-2, idefics"
    config = dataclasses.replace(small_config, model=dataclasses.replace(small_config.model, path=str(tmp_path)))
    for call in (
        lambda: validate(config),
        lambda: Encoder.from_checkpoint(tmp_path),
        lambda: architecture(tmp_path, dtype="float32", remat="none"),
    ):
        with pytest.raises(UserError, match=message):
            call()
