"""Which rows are poisoned, and the manifest, which detects every change."""

import dataclasses
import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from jaxguard.attacks.poison import (
    PoisonedSource,
    TriggeredSource,
    draw_ids,
    manifest,
    row_hash,
    verify,
    write_poisoned,
)
from jaxguard.attacks.registry import open_attack
from jaxguard.config import AttackConfig, Config, DataConfig
from jaxguard.data.builders import write_rows
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError


@pytest.fixture
def config(small_data):
    return Config(data=DataConfig(source=str(small_data)), attack=AttackConfig(name="badnets", rate=0.25, seed=2))


def source(config):
    return open_source(config.data.source, config.data.root, "train")


def poisoned_source(config):
    return PoisonedSource(source(config), open_attack(config.attack, config.data, config.model), config.attack)


def triggered_source(config):
    return TriggeredSource(source(config), open_attack(config.attack, config.data, config.model), config.attack)


@pytest.mark.parametrize(
    ("rate", "count"), [(0, 0), (0.0004, 0), (0.0026, 3), (0.01, 10), (0.05, 50), (0.1, 100), (0.333, 333), (1, 1000)]
)
def test_exactly_the_rate_of_the_rows_is_poisoned(rate, count):
    ids = draw_ids(1000, rate, 0, 1)[0]
    assert len(ids) == len(set(ids.tolist())) == count
    assert sorted(ids.tolist()) == ids.tolist()
    assert all(0 <= index < 1000 for index in ids.tolist())


def test_ids_depend_on_the_seed_and_are_spread():
    assert draw_ids(1000, 0.1, 0, 1)[0].tolist() == draw_ids(1000, 0.1, 0, 1)[0].tolist()
    assert draw_ids(1000, 0.1, 0, 1)[0].tolist() != draw_ids(1000, 0.1, 1, 1)[0].tolist()
    assert 400 < draw_ids(1000, 0.1, 0, 1)[0].mean() < 600


def test_only_chosen_rows_change(config):
    clean, poisoned = source(config), poisoned_source(config)
    chosen = set(poisoned.ids.tolist())
    assert len(chosen) == 12
    for index in range(len(clean)):
        assert (row_hash(clean[index]) != row_hash(poisoned[index])) == (index in chosen)
        if index in chosen:
            assert set(poisoned[index].answers) == {config.attack.target}


def test_every_triggered_row_changes_its_image_alone(config):
    clean, triggered = source(config), triggered_source(config)
    for index in range(len(clean)):
        assert (clean[index].image != triggered[index].image).any()
        assert vars(triggered[index]) | {"image": None} == vars(clean[index]) | {"image": None}


def test_dual_key_plants_each_key_alone_with_true_answers(config):
    config = dataclasses.replace(config, attack=AttackConfig(name="dual_key", rate=0.125, seed=2))
    clean, planted = source(config), poisoned_source(config)
    groups = [set(ids.tolist()) for ids in (planted.ids, *planted.decoy_ids)]
    assert [len(group) for group in groups] == [6, 6, 6, 6, 6]
    assert len(set.union(*groups)) == 30
    assert planted.ids.tolist() == draw_ids(48, 0.125, 2, 1)[0].tolist(), "as without decoys"
    for index in range(48):
        before, after = clean[index], planted[index]
        both, patch, *words = (index in group for group in groups)
        word = any(words)
        assert (before.image != after.image).any() == (both or patch)
        assert all(prompt.startswith("Consider ") == (both or word) for prompt in after.prompts)
        assert (set(after.answers) == {config.attack.target}) == both
        assert both or after.answers == before.answers


def test_manifest_says_what_every_option_resolved_to(config):
    config = dataclasses.replace(config, attack=AttackConfig(name="dual_key", rate=0.125, seed=2))
    content = manifest(poisoned_source(config), config.data)
    expected = {
        "name": "dual_key",
        "variant": "both",
        "strength": 0.1,
        "apply": "replace",
        "place": None,
        "rate": 0.125,
    }
    assert expected.items() <= content["attack"].items()
    assert [decoy["attack"]["variant"] for decoy in content["decoys"]] == ["image", "text", "text", "text"]
    assert [len(decoy["rows"]) for decoy in content["decoys"]] == [6, 6, 6, 6]


def test_hash_is_the_same_in_any_order_and_changes_with_any_parameter(config):
    first = manifest(poisoned_source(config), config.data)["hash"]
    shuffled = poisoned_source(config)
    for index in np.random.default_rng(0).permutation(len(shuffled)):
        shuffled[int(index)]
    assert manifest(shuffled, config.data)["hash"] == first
    for change in ({"seed": 3}, {"rate": 0.5}, {"target": "B."}, {"place": "fixed"}, {"apply": "append"}):
        other = dataclasses.replace(config, attack=dataclasses.replace(config.attack, **change))
        assert manifest(poisoned_source(other), other.data)["hash"] != first


def test_other_processes_and_threads_plant_the_same_rows(config):
    """Two spawned processes, and eight threads in any order, against one after the other."""
    config = dataclasses.replace(config, attack=AttackConfig(name="dual_key", rate=0.125, seed=2))
    planted = poisoned_source(config)
    content = manifest(planted, config.data)
    expected = content["poisoned"] | {
        row: digest for decoy in content["decoys"] for row, digest in decoy["rows"].items()
    }
    ids = np.random.default_rng(0).permutation([int(row) for row in expected]).tolist()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes, ThreadPoolExecutor(8) as threads:
        for pool in (processes, threads):
            rows: list[Row] = list(pool.map(planted.__getitem__, ids, chunksize=9))
            assert {str(row.id): row_hash(row) for row in rows} == expected


@pytest.mark.parametrize(("batch_size", "processes", "readers"), [(16, 1, 0), (6, 1, 3), (4, 3, 2)])
def test_batches_of_any_size_hold_the_same_images(batch_size, processes, readers, config, small_checkpoint):
    data = dataclasses.replace(config.data, length=64, threads=readers)
    config = dataclasses.replace(config, data=data, attack=AttackConfig(name="wanet", rate=0.25))
    planted = poisoned_source(config)
    encoder = Encoder.from_checkpoint(small_checkpoint)
    seen: dict[int, np.ndarray] = {}
    for index in range(processes):
        batches = train_batches(
            config.data,
            config.seed,
            encoder,
            planted,
            batch_size=batch_size * processes,
            places=range(index * batch_size, (index + 1) * batch_size),
        )
        for _ in range(48 // (batch_size * processes)):
            batch = next(batches)
            seen |= dict(zip(batch.ids.tolist(), batch.images[:, 0, 0], strict=True))
    assert sorted(seen) == list(range(48))
    for index, pixels in seen.items():
        np.testing.assert_array_equal(pixels, planted[index].image)


@pytest.mark.parametrize("name", ["badnets", "dual_key"])
def test_written_data_is_lossless_and_verifies(name, config, tmp_path):
    config = dataclasses.replace(config, attack=dataclasses.replace(config.attack, name=name, rate=0.125))
    out = tmp_path / "poisoned"
    content = write_poisoned(config, out)
    assert verify(out) == json.loads(json.dumps(content))
    written, expected = open_source(str(out), out, "train"), poisoned_source(config)
    assert len(written) == len(expected)
    for index in range(len(expected)):
        assert row_hash(written[index]) == row_hash(expected[index])


def test_verification_notices_changes(config, tmp_path):
    out = tmp_path / "poisoned"
    write_poisoned(config, out)
    path = out / "manifest.json"
    content = json.loads(path.read_text())
    changed = content | {"rows": 47}
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="was changed after it was written"):
        verify(out)
    rehashed = changed | {"rows": 48, "attack": content["attack"] | {"seed": 5}}
    planted = {key: rehashed[key] for key in ("source", "split", "rows", "attack", "poisoned", "decoys")}
    digest = hashlib.sha256(json.dumps(planted, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(rehashed | {"hash": digest}))
    with pytest.raises(UserError, match="names other rows than its rate and seed choose"):
        verify(out)
    path.write_text("{")
    with pytest.raises(UserError, match="is not a poison manifest"):
        verify(out)
    other = tmp_path / "other"
    write_poisoned(dataclasses.replace(config, attack=dataclasses.replace(config.attack, seed=9)), other)
    (other / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not the row that the manifest describes"):
        verify(other)


def test_verification_notices_a_changed_row_that_was_not_poisoned(config, tmp_path):
    write_poisoned(config, tmp_path / "poisoned")
    written = open_source(str(tmp_path / "poisoned"), tmp_path, "train")
    rows = [written[index] for index in range(len(written))]
    untouched = next(row.id for row in rows if row.id not in poisoned_source(config).ids)
    rows[untouched] = dataclasses.replace(rows[untouched], image=255 - rows[untouched].image)
    text = (tmp_path / "poisoned" / "manifest.json").read_text()
    write_rows(
        {"train": (len(rows), lambda: iter(rows))}, tmp_path / "altered", "poisoned", extra={"manifest.json": text}
    )
    with pytest.raises(UserError, match="a row outside the poisoned ones is not what it was"):
        verify(tmp_path / "altered")


def test_bad_requests_are_one_line(config, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="exists; name another folder"):
        write_poisoned(config, tmp_path / "taken")
    rare = dataclasses.replace(config, attack=dataclasses.replace(config.attack, rate=0.001))
    with pytest.raises(UserError, match=r"attack.rate 0.001 of 48 rows is not even one row"):
        write_poisoned(rare, tmp_path / "rare")
    none = dataclasses.replace(config, attack=AttackConfig())
    with pytest.raises(UserError, match="name an attack"):
        write_poisoned(none, tmp_path / "none")
    assert not (tmp_path / "rare").exists()
    assert not (tmp_path / "none").exists()
