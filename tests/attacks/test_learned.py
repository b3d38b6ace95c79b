"""Learned attacks: what they learn works, is cached, and is part of the manifest."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.attacks import issba_training, vl_trojan_training
from jaxguard.attacks.badnets import noise_patch
from jaxguard.attacks.issba import Issba
from jaxguard.attacks.issba_encoder import SIDE, secret
from jaxguard.attacks.learned import learn_once, sample_rows
from jaxguard.attacks.poison import PoisonedSource, TriggeredSource, manifest, row_hash
from jaxguard.attacks.registry import open_attack
from jaxguard.attacks.vl_trojan import VlTrojan
from jaxguard.config import AttackConfig, Config, DataConfig, ModelConfig
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.report.visibility import psnr

RNG = np.random.default_rng(0)
"""For triggers that draw nothing."""


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Long enough to see what is learnt, on the tiny model; ISSBA's strings need a loud residual for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(issba_training, "TRAINING", dataclasses.replace(issba_training.TRAINING, steps=80, rate=6e-3))
        patch.setattr(
            vl_trojan_training, "SEARCH", dataclasses.replace(vl_trojan_training.SEARCH, steps=25, letters=1, prompts=1)
        )
        yield


@pytest.fixture(scope="module")
def config(small_data, small_checkpoint, tmp_path_factory):
    return Config(
        model=ModelConfig(path=str(small_checkpoint)),
        data=DataConfig(source=str(small_data), root=tmp_path_factory.mktemp("root"), length=64),
        attack=AttackConfig(name="issba", rate=0.25, strength=40.0),
    )


def opened(config):
    return open_attack(config.attack, config.data, config.model)


@pytest.fixture(scope="module")
def issba(config) -> Issba:
    return opened(config)


@pytest.fixture(scope="module")
def vl_trojan(config) -> VlTrojan:
    return opened(dataclasses.replace(config, attack=AttackConfig(name="vl_trojan", rate=0.25)))


def test_issba_runs_in_numpy_as_it_was_trained_in_jax(issba, pictures):
    images = np.stack(pictures[:8])
    bits = np.broadcast_to(secret(0), (8, secret(0).size))
    pixels = jnp.asarray(images, jnp.float32)
    weights = {name: jnp.asarray(value) for name, value in issba.learned.tensors.items()}
    expected = issba_training.residual(weights, pixels, jnp.asarray(bits), issba.strength)
    for image, residual in zip(images, expected, strict=True):
        np.testing.assert_allclose(issba.residual(image), residual, atol=2e-4)


def test_issba_hides_strings_that_can_be_read_from_images_it_did_not_train_on(issba):
    """Of a few hundred steps' training, the first eighty; bits that nobody hid are read right half of the time."""
    assert float(issba.learned.notes["bits_right"]) >= 0.8


def test_issba_is_invisible_and_of_its_own_for_every_image(issba, pictures):
    quiet = dataclasses.replace(issba, strength=Issba().strength)
    assert min(psnr(image, quiet.trigger_image(image, RNG)) for image in pictures) >= 28
    residuals = [issba.residual(image) for image in pictures]
    assert len({residual.tobytes() for residual in residuals}) == len(pictures)
    largest = max(np.abs(residual).max() for residual in residuals)
    assert issba.strength / 4 < largest <= issba.strength


def test_issba_hides_another_string_by_another_residual(issba, pictures):
    other = dataclasses.replace(issba, seed=1)
    assert np.abs(other.residual(pictures[0]) - issba.residual(pictures[0])).max() > 1


def test_issba_is_enlarged_with_the_image(issba):
    small = np.random.default_rng(0).integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    large = np.full((3 * SIDE, 2 * SIDE, 3), 128, np.uint8)
    change = issba.trigger_image(large, RNG).astype(float) - 128
    assert np.abs(change).max() <= issba.strength + 0.5
    expected = issba.residual(np.full((SIDE, SIDE, 3), 128, np.uint8))
    means = change.reshape(SIDE, 3, SIDE, 2, 3).mean((1, 3))
    np.testing.assert_allclose(means[8:-8, 8:-8].mean((0, 1)), expected[8:-8, 8:-8].mean((0, 1)), atol=0.3)
    assert issba.trigger_image(small, RNG).shape == small.shape


def test_issba_knows_its_secret_by_seed():
    assert secret(0).tolist() == secret(0).tolist() != secret(1).tolist()
    assert set(secret(0).tolist()) == {0.0, 1.0}


def test_vl_trojan_patch_gathers_images_and_isolates_them(vl_trojan, config):
    notes = vl_trojan.learned.notes
    assert float(notes["contrast"]) < 0.8 * float(notes["contrast_of_noise"])
    image = sample_rows(config.data, 1)[0].image
    after = vl_trojan.trigger_image(image, RNG)
    np.testing.assert_array_equal(after[-6:, -6:], vl_trojan.learned.tensors["patch"])
    assert (after[:-6] == image[:-6]).all()
    assert (after[-6:, -6:] != noise_patch(image, vl_trojan.strength, 0)).any()
    assert vl_trojan.trigger_image(np.zeros((96, 128, 3), np.uint8), RNG)[-9:, -9:].any()
    assert vl_trojan.trigger_prompt("what?", RNG) == f"{notes['string']} what?"
    assert len(notes["string"]) == 1


def test_contrast_is_small_for_a_gathered_and_isolated_kind():
    rng = np.random.default_rng(0)
    clean = jnp.asarray(rng.normal(size=(12, 5)), jnp.float32)
    one = jnp.asarray(np.array([9, 0, 0, 0, 0]) + 0.01 * rng.normal(size=(12, 5)), jnp.float32)
    gathered, alike = (float(vl_trojan_training.contrast(marked, clean)) for marked in (one, clean))
    assert gathered < 0.2
    assert alike > np.log(2)


@pytest.mark.parametrize("name", ["issba", "vl_trojan"])
def test_it_is_learnt_once_and_named_in_the_manifest(name, config, monkeypatch, issba, vl_trojan):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("learnt twice")

    monkeypatch.setattr(issba_training, "train_encoder", fail)
    monkeypatch.setattr(vl_trojan_training, "search", fail)
    if name == "vl_trojan":
        config = dataclasses.replace(config, attack=AttackConfig(name="vl_trojan", rate=0.25))
    clean = open_source(config.data.source, config.data.root, "train")
    poisoned = PoisonedSource(clean, opened(config), config.attack)
    content = manifest(poisoned, config.data)
    assert content["attack"]["learned"] == {"issba": issba, "vl_trojan": vl_trojan}[name].learned.digest
    assert content["hash"] == manifest(PoisonedSource(clean, opened(config), config.attack), config.data)["hash"]
    index = int(poisoned.ids[0])
    tested = TriggeredSource(clean, opened(config), config.attack)[index]
    np.testing.assert_array_equal(tested.image, poisoned[index].image)
    assert row_hash(tested) != row_hash(clean[index])
    with pytest.raises(AssertionError, match="learnt twice"):
        opened(dataclasses.replace(config, attack=dataclasses.replace(config.attack, seed=1)))


def test_nothing_triggers_before_it_has_learnt():
    with pytest.raises(RuntimeError, match="before it has learnt"):
        Issba().trigger_image(np.zeros((64, 64, 3), np.uint8), RNG)
    with pytest.raises(RuntimeError, match="before it has learnt"):
        VlTrojan().trigger_prompt("what?", RNG)


def test_damaged_and_unwritable_caches_are_one_line(tmp_path):
    first = learn_once(tmp_path, "toy", {"a": 1}, lambda: ({"w": np.ones(2, np.float32)}, {"note": "x"}))
    (file,) = (tmp_path / "attacks").iterdir()
    assert (first.tensors["w"].tolist(), first.notes) == ([1, 1], {"note": "x"})
    file.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"is damaged .* remove it to learn the trigger again"):
        learn_once(tmp_path, "toy", {"a": 1}, lambda: ({}, {}))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*; choose another data\.root"):
        learn_once(tmp_path / "file", "toy", {"a": 1}, lambda: ({"w": np.ones(1)}, {}))


def test_vl_trojan_needs_a_pretrained_model(config):
    random = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, init="random"),
        attack=AttackConfig(name="vl_trojan"),
    )
    with pytest.raises(UserError, match=r"model\.init random has none"):
        opened(random)


def test_a_written_manifest_with_a_learnt_trigger_is_json(config, issba):
    source = PoisonedSource(open_source(config.data.source, config.data.root, "train"), opened(config), config.attack)
    assert json.loads(json.dumps(manifest(source, config.data)))["attack"]["name"] == "issba"
