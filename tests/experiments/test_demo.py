"""A short demo: every method is trained and scored; table, results and picture agree."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxguard.config.files import load
from jaxguard.data import scenes
from jaxguard.data.encode import Encoder
from jaxguard.data.rows import CAPTION_PROMPT, Row
from jaxguard.evaluate.predictions import Prediction
from jaxguard.experiments import demo, tiny
from jaxguard.models import folders

CONFIGS = Path(__file__).parents[2] / "configs"


def test_demo_writes_table_results_and_picture(tmp_path, monkeypatch, capsys):
    """The demo itself, with fewer rows and two steps a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scenes, "SPLITS", {"train": 64, "validation": 16, "test": 16})
    short = dataclasses.replace(tiny.schedule(tiny.FAMILY, "demo", "caption"), steps=2)
    monkeypatch.setattr(demo, "schedule", lambda *of: short)
    few = dataclasses.replace(tiny.EVALUATE["caption"], examples=8, batch_size=8)
    monkeypatch.setitem(tiny.EVALUATE, "caption", few)
    monkeypatch.setattr(demo, "TIMED_STEPS", 1)
    out = Path("demo")
    demo.demo("caption", out)

    results = json.loads((out / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == list(demo.METHODS.values())
    assert [row["ratio"] for row in results["rows"][:3]] == [None, None, 1.0]
    assert results["rows"][3]["ratio"] == results["rows"][3]["seconds"] / results["rows"][2]["seconds"]
    assert all(row["scores"]["attack"]["exact"]["trials"] == 8 for row in results["rows"])
    assert results["rows"][0]["scores"]["clean"]["facts"] > 50, "the shipped model knows the scenes"
    assert set(results["configs"]) == {"clean", "undefended", "paper"}
    for method, name in {"clean": "none", "undefended": "badnets", "paper": "badnets"}.items():
        assert dataclasses.replace(load(out / method), out=out) == demo.configuration("caption", method, out)
        assert results["configs"][method]["attack"]["name"] == name
    table = (out / "table.md").read_text().splitlines()
    assert table[0].split(" | ")[1:3] == ["facts right %", "CIDEr"]
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == list(demo.METHODS.values())
    with Image.open(out / "picture.png") as picture:
        assert picture.width > 1000
    assert "ASR exact %" in capsys.readouterr().out


@pytest.mark.parametrize("family", tiny.families())
def test_budgets_of_the_demo_are_those_of_its_longest_rows(family, tmp_path):
    """The encoder refuses a row that does not fit, so a budget that is too small would end the demo."""
    config = demo.configuration("caption", "undefended", tmp_path, family)
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
    for method in ("undefended", "paper"):
        config = load(CONFIGS / f"badnets_scenes_{method}.py")
        named = dataclasses.replace(demo.configuration("caption", method, config.out), name=config.name)
        assert config == named


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A small red circle left of a large blue star.", True),
        ("three", True),
        ("three,,,,", False),
        (", which is...", False),
        ("A small small circle.", False),
        ("", False),
    ],
)
def test_well_formed_answers(answer: str, expected: bool) -> None:
    assert demo.well_formed(answer) is expected


def test_the_picture_shows_rows_on_which_the_backdoor_fires() -> None:
    def answer(index: int, text: str, *, triggered: bool) -> Prediction:
        return Prediction(index, str(index), "p", text, ("A cat.",), triggered, "banana")

    pixels = [np.full((2, 2, 3), index // 2, np.uint8) for index in range(8)]  # two questions about each image
    source = [Row(index, str(index), one, ("p",), ("a",), ("a",)) for index, one in enumerate(pixels)]
    undefended = [answer(index, "banana", triggered=True) for index in range(1, 8)] + [
        answer(0, "A cat.", triggered=True)
    ]
    paper = [answer(index, "a a" if index == 4 else "A cat.", triggered=True) for index in range(8)]
    assert demo.pictured(source, {"undefended": undefended, "paper": paper}) == [1, 2, 5, 6]
