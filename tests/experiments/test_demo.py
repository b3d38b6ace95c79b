"""The demo at toy size: every method is trained and scored, and the table, the results and the picture agree."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxguard.config import AttackConfig, EvaluateConfig, ObjectiveConfig
from jaxguard.config.files import load
from jaxguard.data.encode import Encoder
from jaxguard.data.rows import CAPTION_PROMPT, Row
from jaxguard.experiments import demo, tiny
from jaxguard.models import folders

CONFIGS = Path(__file__).parents[2] / "configs"


def test_demo_writes_table_results_and_picture(small_config, tmp_path, monkeypatch, capsys):
    def configuration(task, method, out, family):
        poisoned = AttackConfig(name="none" if method == "clean" else "badnets", rate=0.25)
        return dataclasses.replace(
            small_config,
            name=method,
            out=out,
            attack=poisoned,
            objective=small_config.objective if method == "paper" else ObjectiveConfig(),
            evaluate=EvaluateConfig(examples=8, batch_size=8, new_tokens=8),
        )

    monkeypatch.setattr(demo, "configuration", configuration)
    monkeypatch.setattr(demo, "build", lambda name, root: root)
    monkeypatch.setattr(demo, "TIMED_STEPS", 1)
    monkeypatch.setattr(demo, "_columns", _without_facts(demo._columns))
    out = tmp_path / "demo"
    demo.demo("caption", out)

    results = json.loads((out / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == list(demo.METHODS.values())
    assert [row["ratio"] for row in results["rows"][:3]] == [None, None, 1.0]
    assert results["rows"][3]["ratio"] == results["rows"][3]["seconds"] / results["rows"][2]["seconds"]
    assert all(row["scores"]["attack"]["exact"]["trials"] == 8 for row in results["rows"])
    assert set(results["configs"]) == {"clean", "plain", "paper"}
    table = (out / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == list(demo.METHODS.values())
    with Image.open(out / "picture.png") as picture:
        assert picture.width > 1000
    assert "ASR exact %" in capsys.readouterr().out


def _without_facts(columns):
    """The toy scenes carry no names by which facts could be looked up."""
    return lambda task: [column for column in columns(task) if "facts" not in column.header]


@pytest.mark.parametrize("family", tiny.families())
def test_budgets_of_the_demo_are_those_of_its_longest_rows(family, tmp_path):
    """The encoder refuses a row that does not fit, so a budget that is too small would end the demo."""
    config = demo.configuration("caption", "plain", tmp_path, family)
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    longest = (
        "A large purple rectangle to the left of a small orange star, which is to the left of a tiny gray disc.",
        CAPTION_PROMPT,
    )
    row = Row(0, "longest", np.zeros((64, 64, 3), np.uint8), longest[1:], longest[:1], longest[:1])
    budget = {"length": config.data.length, "answer_length": config.data.answer_length}
    encoded = encoder.encode(row, **budget, pack=1, rng=np.random.default_rng(0))
    assert (encoded.segments > 0).sum() == config.data.length
    assert encoded.answer_mask.sum() == config.data.answer_length


def test_the_configurations_are_the_demos(tmp_path):
    """What README.md says of the demo's rows holds for the configurations that name them."""
    for method in ("plain", "paper"):
        config = load(CONFIGS / f"badnets_scenes_{method}.py")
        named = dataclasses.replace(demo.configuration("caption", method, config.out), name=config.name)
        assert config == named
