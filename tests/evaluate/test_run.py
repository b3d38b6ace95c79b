"""Evaluating a finished run through the public functions, and generating from one image."""

import dataclasses
import json
from typing import Any

import pytest
from PIL import Image

from jaxguard.config import AttackConfig
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.evaluate import run
from jaxguard.evaluate.predictions import read_predictions
from jaxguard.evaluate.run import evaluate, generate, read_image
from jaxguard.evaluate.scores import score
from jaxguard.train.sharding import place_batch


@pytest.fixture(scope="module")
def evaluated(finished_config, tmp_path_factory):
    """The scores of the finished run, and its predictions."""
    folder = tmp_path_factory.mktemp("evaluated")
    scores = evaluate(finished_config, out=folder)
    return scores, read_predictions(folder / "predictions.jsonl")


def test_a_run_is_answered_clean_and_triggered_then_scored(finished_config, evaluated):
    scores, rows = evaluated
    assert [(row.id, row.triggered) for row in rows] == [(n, marked) for marked in (False, True) for n in range(16)]
    assert {row.target for row in rows} == {finished_config.attack.target}
    assert all(len(row.references) == 5 for row in rows)
    assert scores == score(rows, "caption")
    again = evaluate(finished_config)
    assert again == scores
    assert read_predictions(finished_config.run_dir / "predictions.jsonl") == rows
    stored = json.loads((finished_config.run_dir / "scores.json").read_text())
    assert stored["examples"] == {"clean": 16, "triggered": 16}


def test_a_number_of_rows_that_fills_no_batch_gives_the_same_answers(finished_config, evaluated, monkeypatch):
    placed: list[Any] = []

    def noted(*args):
        placed.append(place_batch(*args))
        return placed[-1]

    monkeypatch.setattr(run, "place_batch", noted)
    evaluate(dataclasses.replace(finished_config, evaluate=dataclasses.replace(finished_config.evaluate, examples=11)))
    assert len(placed) == 4
    for batch in placed:
        assert {shard.data.shape[0] for shard in batch.tokens.addressable_shards} == {1}
        assert len({shard.device for shard in batch.images.addressable_shards}) == 8
    few = read_predictions(finished_config.run_dir / "predictions.jsonl")
    source = open_source(finished_config.data.source, finished_config.data.root, "test")
    first = {source[index].id for index in range(11)}
    assert few == [row for row in evaluated[1] if row.id in first]
    assert len(few) == 22


def test_other_triggers_can_be_tested_on_a_run(finished_config):
    scores = evaluate(finished_config, attack=AttackConfig(name="none"))
    assert scores.attack is None
    assert scores.examples == {"clean": 16, "triggered": 0}


def test_untrained_runs_are_refused(small_config):
    with pytest.raises(UserError, match="holds no checkpoints; run `jaxguard train` first"):
        evaluate(small_config)


def test_batch_size_must_fit_the_mesh(finished_config):
    odd = dataclasses.replace(finished_config.evaluate, batch_size=6)
    with pytest.raises(UserError, match=r"evaluate.batch_size is 6: must be a multiple of the 8"):
        evaluate(dataclasses.replace(finished_config, evaluate=odd))


def test_generate_answers_an_image_as_the_evaluation_does(finished_config, evaluated, tmp_path):
    """Two images that are answered differently; weights that never trained answer otherwise."""
    source = open_source(finished_config.data.source, finished_config.data.root, "test")
    expected = {row.id: row.prediction for row in evaluated[1] if not row.triggered}
    rows = [source[index] for index in range(len(source))]
    row, other, *_ = {expected[row.id]: row for row in rows if expected[row.id]}.values()
    path = tmp_path / "picture.png"
    for one in (row, other):
        Image.fromarray(one.image).save(path)
        assert generate(finished_config, path, one.prompts[0]) == expected[one.id]
    untrained = dataclasses.replace(finished_config, out=tmp_path)
    assert generate(untrained, path, other.prompts[0]) not in expected.values()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a readable image"):
        read_image(path)


def test_huge_images_are_refused(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(UserError, match="9000 x 9000 pixels"):
        read_image(path)
