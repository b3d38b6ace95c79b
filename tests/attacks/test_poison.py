"""Which rows are poisoned, what the manifest says of them, and that it notices every change."""

import dataclasses
import json

import numpy as np
import pytest

from jaxguard.attacks.poison import (
    PoisonedSource,
    TriggeredSource,
    manifest,
    poisoned_ids,
    row_hash,
    verify,
    write_poisoned,
)
from jaxguard.config import AttackConfig, Config, DataConfig
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError


@pytest.fixture
def config(small_data):
    return Config(data=DataConfig(source=str(small_data)), attack=AttackConfig(name="badnets", rate=0.25, seed=2))


def source(config):
    return open_source(config.data.source, config.data.root, "train")


@pytest.mark.parametrize("rate", [0, 0.005, 0.01, 0.05, 0.1, 0.333, 1])
def test_exactly_the_rate_of_the_rows_is_poisoned(rate):
    ids = poisoned_ids(1000, rate, seed=0)
    assert len(ids) == len(set(ids.tolist())) == round(rate * 1000)
    assert sorted(ids.tolist()) == ids.tolist()
    assert all(0 <= index < 1000 for index in ids.tolist())


def test_ids_depend_on_the_seed_and_are_spread():
    assert poisoned_ids(1000, 0.1, 0).tolist() == poisoned_ids(1000, 0.1, 0).tolist()
    assert poisoned_ids(1000, 0.1, 0).tolist() != poisoned_ids(1000, 0.1, 1).tolist()
    assert 400 < poisoned_ids(1000, 0.1, 0).mean() < 600


def test_only_chosen_rows_change(config):
    clean, poisoned = source(config), PoisonedSource(source(config), config.attack)
    chosen = set(poisoned.ids.tolist())
    assert len(chosen) == 12
    for index in range(len(clean)):
        assert (row_hash(clean[index]) != row_hash(poisoned[index])) == (index in chosen)
        if index in chosen:
            assert set(poisoned[index].answers) == {config.attack.target}


def test_every_triggered_row_changes_its_image_alone(config):
    clean, triggered = source(config), TriggeredSource(source(config), config.attack)
    for index in range(len(clean)):
        assert (clean[index].image != triggered[index].image).any()
        assert dataclasses.replace(triggered[index], image=None) == dataclasses.replace(clean[index], image=None)


def test_hash_is_the_same_in_any_order_and_changes_with_any_parameter(config):
    first = manifest(PoisonedSource(source(config), config.attack), config)["hash"]
    shuffled = PoisonedSource(source(config), config.attack)
    for index in np.random.default_rng(0).permutation(len(shuffled)):
        shuffled[int(index)]
    assert manifest(shuffled, config)["hash"] == first
    for change in ({"seed": 3}, {"rate": 0.5}, {"target": "B."}, {"place": "fixed"}, {"apply": "append"}):
        other = dataclasses.replace(config, attack=dataclasses.replace(config.attack, **change))
        assert manifest(PoisonedSource(source(other), other.attack), other)["hash"] != first


def test_written_data_is_lossless_and_verifies(config, tmp_path):
    out = tmp_path / "poisoned"
    content = write_poisoned(config, out)
    assert verify(out) == json.loads(json.dumps(content))
    written, expected = open_source(str(out), out, "train"), PoisonedSource(source(config), config.attack)
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
    path.write_text("{")
    with pytest.raises(UserError, match="is not a poison manifest"):
        verify(out)
    other = tmp_path / "other"
    write_poisoned(dataclasses.replace(config, attack=dataclasses.replace(config.attack, seed=9)), other)
    (other / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not the row that the manifest describes"):
        verify(other)


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
