"""Evaluating a finished run through the public functions, and generating from one image."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxguard.config import AttackConfig
from jaxguard.errors import UserError
from jaxguard.evaluate import run
from jaxguard.evaluate.predictions import read_predictions
from jaxguard.evaluate.run import evaluate, generate, read_image
from jaxguard.evaluate.scores import score
from jaxguard.train.sharding import place_batch


def test_a_run_is_answered_clean_and_triggered_then_scored(finished_config):
    scores = evaluate(finished_config)
    rows = read_predictions(finished_config.run_dir / "predictions.jsonl")
    assert [(row.id, row.triggered) for row in rows] == [(n, marked) for marked in (False, True) for n in range(16)]
    assert {row.target for row in rows} == {finished_config.attack.target}
    assert all(len(row.references) == 5 for row in rows)
    assert scores == score(rows, "caption")
    stored = json.loads((finished_config.run_dir / "scores.json").read_text())
    assert stored["examples"] == {"clean": 16, "triggered": 16}
    again = evaluate(finished_config)
    assert again == scores


def test_a_number_of_rows_that_fills_no_batch_gives_the_same_answers(finished_config, monkeypatch):
    placed = []
    monkeypatch.setattr(run, "place_batch", lambda *args: placed.append(place_batch(*args)) or placed[-1])
    evaluate(finished_config)
    assert len(placed) == 4
    for batch in placed:
        assert {shard.data.shape[0] for shard in batch.tokens.addressable_shards} == {1}
        assert len({shard.device for shard in batch.images.addressable_shards}) == 8
    path = finished_config.run_dir / "predictions.jsonl"
    whole = read_predictions(path)
    evaluate(dataclasses.replace(finished_config, evaluate=dataclasses.replace(finished_config.evaluate, examples=11)))
    few = read_predictions(path)
    assert few == [row for row in whole if row.id < 11]
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


def test_generate_answers_one_image(finished_config, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((80, 100, 3), 90, np.uint8)).save(path)
    assert isinstance(generate(finished_config, path, "what is it?"), str)


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
