"""A worker checks what a run needs before it compiles, and lists all that is missing at once."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest

from jaxguard.errors import UserError
from jaxguard.train.preflight import preflight


def test_what_is_there_is_told_and_nothing_is_left_behind(small_config):
    data, weights, folder, disk = preflight(small_config)
    assert data == f"data: {small_config.data.source}, 48 rows of train"
    assert weights == f"weights: {small_config.model.path}"
    assert folder == f"run folder: {small_config.run_dir} can be written"
    assert "checkpoints need" in disk
    assert list(small_config.run_dir.iterdir()) == []


def test_all_that_is_missing_is_listed(small_config, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(small_config.model.path, folder)
    (folder / "model.safetensors").write_bytes(b"cut short")
    (tmp_path / "file").touch()
    monkeypatch.setattr("jaxguard.train.preflight.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    config = dataclasses.replace(
        small_config,
        out=tmp_path / "file",
        model=dataclasses.replace(small_config.model, path=str(folder)),
        data=dataclasses.replace(small_config.data, train_split="none"),
    )
    with pytest.raises(UserError) as caught:
        preflight(config)
    told = str(caught.value)
    for complaint in (
        "none",
        "not a readable safetensors file",
        "cannot hold checkpoints",
        "GB free: 3 checkpoints of",
    ):
        assert complaint in told


def test_shards_that_are_missing_are_named(small_config, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small_config.model.path, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    table = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    config = dataclasses.replace(small_config, model=dataclasses.replace(small_config.model, path=str(folder)))
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors: not a readable safetensors file"):
        preflight(config)
