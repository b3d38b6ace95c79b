"""Old option names: run folders and tables with them load; on the command line they are errors with the new name."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxguard.cli.main import main
from jaxguard.config import Config, ObjectiveConfig, TrainConfig, from_dict, keys, to_dict
from jaxguard.config.migrations import RENAMED, first_names, migrate
from jaxguard.errors import UserError

TABLES = sorted((Path(__file__).parents[2] / "docs").rglob("*.json"))


def test_old_names_become_todays() -> None:
    old = {
        "objective": {"cross": 0.3, "entropy": 0.5, "entropy_max": 0.5, "cross_warmup": 7, "cross_schedule": "linear"},
        "train": {"final": 0.2, "clip": 2.0, "steps": 9},
        "model": {"remat": True},
    }
    config = from_dict(old)
    objective = ObjectiveConfig(
        cross_view_weight=0.3,
        entropy_weight=0.5,
        entropy_max=0.5,
        cross_view_warmup=7,
        cross_view_schedule="linear",
    )
    assert config.objective == objective
    assert config.train == TrainConfig(final_lr_ratio=0.2, max_grad_norm=2.0, steps=9)
    assert config.model.remat == "full"
    assert from_dict(to_dict(config)) == config
    assert first_names(migrate(old))["train"] == old["train"]


def test_every_new_name_is_an_option_and_no_old_one_is() -> None:
    assert set(RENAMED.values()) <= set(keys())
    assert not set(RENAMED) & set(keys())


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"train.clip and train.max_grad_norm are one option"):
        from_dict({"train": {"clip": 1.0, "max_grad_norm": 2.0}})


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_every_configuration_in_the_tables_of_the_documents_loads(path: Path) -> None:
    def configs(value: object) -> list[dict]:
        if isinstance(value, list):
            return [found for one in value for found in configs(one)]
        if not isinstance(value, dict):
            return []
        if {"model", "data", "objective", "train"} <= value.keys():
            return [value]
        return [found for one in value.values() for found in configs(one)]

    found = configs(json.loads(path.read_text()))
    assert found
    for values in found:
        config = from_dict(values)
        stored = values["objective"].get("cross", values["objective"].get("cross_view_weight"))
        assert config.objective.cross_view_weight == stored


def test_a_run_folder_written_before_is_found_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(name="old", out=tmp_path, train=TrainConfig(max_grad_norm=3.0))
    values = to_dict(config)
    for old, new in RENAMED.items():
        section, name = old.split(".")
        values[section][name] = values[section].pop(new.split(".")[1])
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(values))
    assert main(["config", str(tmp_path / "old")]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["max_grad_norm"] == 3.0
    from jaxguard.train.loop import check_run

    check_run(tmp_path / "old", config)
    with pytest.raises(UserError, match=r"holds a run with other values of train.max_grad_norm"):
        check_run(tmp_path / "old", dataclasses.replace(config, train=TrainConfig()))


@pytest.mark.parametrize(
    "words", [["--train.clip", "2"], ["--objective.cross", "1"]], ids=["train.clip", "objective.cross"]
)
def test_who_types_an_old_name_is_told_the_new_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[2] / "configs"
    assert main(["config", str(folder / "finetune_easy_vqa.py"), *words]) == 2
    assert f"; it is now called {RENAMED[words[0].lstrip('-')]}" in capsys.readouterr().err


def test_a_file_with_an_old_name_is_told_the_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.py"
    path.write_text("from jaxguard.config import *\nconfig = Config(objective=ObjectiveConfig(cross=1.0))\n")
    assert main(["config", str(path)]) == 2
    assert "; it is now called objective.cross_view_weight" in capsys.readouterr().err
