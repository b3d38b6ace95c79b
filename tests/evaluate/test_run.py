"""Evaluating a finished run through the public functions, and generating from one image."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxguard.attacks.poison import TriggeredSource
from jaxguard.attacks.registry import build_attack, open_attack
from jaxguard.config import AttackConfig, from_dict
from jaxguard.data.rows import Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.evaluate import canaries, run
from jaxguard.evaluate.canaries import canary_attacks, try_canaries
from jaxguard.evaluate.digest import parameters_digest
from jaxguard.evaluate.identity import chosen, evaluations, of_the_same_model
from jaxguard.evaluate.predictions import read_predictions
from jaxguard.evaluate.run import Evaluator, check_triggers, evaluate, generate, read_image
from jaxguard.evaluate.scores import read_scores, score
from jaxguard.report.canary_table import canary_rows
from jaxguard.train.export import checkpoint_step, run_parameters
from jaxguard.train.setup import load_model
from jaxguard.train.sharding import place_batch


@pytest.fixture(scope="module")
def evaluator(finished_config):
    return Evaluator(finished_config)


@pytest.fixture(scope="module")
def evaluated(evaluator, tmp_path_factory):
    """The scores of the finished run, and its predictions."""
    folder = tmp_path_factory.mktemp("evaluated")
    scores, _ = evaluator.test(out=folder)
    return scores, read_predictions(folder / "predictions.jsonl")


def test_a_run_is_answered_clean_and_triggered_then_scored(finished_config, evaluated):
    scores, rows = evaluated
    assert [(row.id, row.triggered) for row in rows] == [(n, marked) for marked in (False, True) for n in range(16)]
    assert {row.target for row in rows} == {finished_config.attack.target}
    assert all(len(row.references) == 5 for row in rows)
    assert scores == score(rows, "caption")


def test_evaluations_know_what_they_are_and_overwrite_nothing(evaluator, finished_config, evaluated):
    """The run's own triggers twice, then others on the same weights."""
    scores, rows = evaluated
    (first, own), (_, again) = evaluator.test(), evaluator.test()
    _, other = evaluator.test(AttackConfig(name="blended", target="a cat"))
    alone, clean = evaluator.test(AttackConfig(name="none"))
    assert alone.attack is None
    assert alone.examples == {"clean": 16, "triggered": 0}
    assert first == scores == read_scores(own.path.parent / "scores.json")
    assert own.predictions() == again.predictions() == rows
    assert len({one.path for one in (own, again, other, clean)}) == 4
    assert {one.path.parent.parent for one in (own, again, other, clean)} == {finished_config.run_dir / "evaluations"}
    assert not list(finished_config.run_dir.rglob("*.partial"))

    found = [own.identity, again.identity, other.identity, clean.identity]
    assert [one and one.name for one in found] == [one.path.parent.name for one in (own, again, other, clean)]
    assert len({one and one.parameters for one in found}) == 1
    assert [one and one.own for one in found] == [True, True, False, False]
    assert [one and one.attack and one.attack["name"] for one in found] == ["badnets", "badnets", "blended", None]
    assert own.identity
    assert (own.identity.step, own.identity.steps, own.identity.newest, own.identity.rows) == (40, 40, 40, 16)
    assert own.identity.unfinished is None
    assert all(json.loads(line)["evaluation"] == own.identity.name for line in own.path.read_text().splitlines())
    assert "triggers of blended (not the run's own), 16 rows of" in str(other)

    newest = chosen(finished_config.run_dir)
    assert newest is not None
    assert newest.path in (own.path, again.path), "the run's own triggers stand for it, whatever was tested last"
    tried = of_the_same_model(finished_config.run_dir, newest)
    assert sorted(str(one.identity and one.identity.triggers) for one in tried) == [
        "clean inputs alone",
        "triggers of badnets",
        "triggers of blended (not the run's own)",
    ]


def test_canaries_try_every_attack_and_say_which_could_not_be(evaluator, finished_config, monkeypatch):
    def opened(attack, *_):
        if attack.name == "issba":
            raise UserError("its encoder is missing")
        return open_attack(attack, finished_config.data, finished_config.model)

    monkeypatch.setattr(run, "open_attack", opened)
    monkeypatch.setattr(canaries, "ATTACKS", ["sig", "issba", "badnets"])
    own = dataclasses.replace(finished_config.attack, strength=0.3)
    found = try_canaries(evaluator, own)
    assert [one.name for one in found] == ["badnets", "sig", "issba"], "the run's own first"
    assert [one.skipped for one in found] == [None, None, "its encoder is missing"]
    assert found[0].evaluation is not None
    assert found[0].evaluation.identity is not None
    assert found[0].evaluation.identity.attack_config == dataclasses.replace(own, rate=0.05)
    rows = canary_rows(found)
    assert [row["triggers"] for row in rows] == ["none (clean inputs)", "badnets", "sig", "issba"]
    assert rows[-1]["evaluation"] == "not tried: its encoder is missing"
    assert rows[0]["exact"].startswith("0.0 [0.0, ")
    assert len({row["evaluation"] for row in rows}) == 4
    assert {attack.target for attack in canary_attacks(own).values()} == {own.target}


def test_other_steps_and_other_parameters_are_told_apart(finished_config, evaluator):
    _, last = evaluator.test()
    run = finished_config.run_dir
    assert checkpoint_step(run, "newest") == 40
    model = load_model(finished_config.model, finished_config.mesh, finished_config.seed)
    steps = {step: parameters_digest(run_parameters(run, step, model, "language")) for step in (35, 40)}
    assert last.identity
    assert steps[40] == last.identity.parameters != steps[35]
    alone = {path: jax.device_put(value, jax.devices()[0]) for path, value in model.parameters.items()}
    assert parameters_digest(alone) == parameters_digest(model.parameters), "the mesh does not matter"


def test_an_unfinished_run_is_said_to_be_one(finished_config, evaluator, monkeypatch):
    stored = json.loads((finished_config.run_dir / "config.json").read_text())
    stored["train"]["steps"] = 200
    monkeypatch.setattr(run, "load", lambda _: from_dict(stored))
    _, found = evaluator.test(AttackConfig(name="none"))
    assert found.identity
    assert found.identity.unfinished == (
        f"{finished_config.run_dir} is not trained to its end: its newest checkpoint is step 40 of 200"
    )


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
    (found,) = (one for one in evaluations(finished_config.run_dir) if one.identity and one.identity.rows == 11)
    few = found.predictions()
    source = open_source(finished_config.data.source, finished_config.data.root, "test")
    first = {source[index].id for index in range(11)}
    assert few == [row for row in evaluated[1] if row.id in first]
    assert len(few) == 22


def test_triggers_that_change_nothing_are_refused():
    """Images alone carry this one; one row with an image is enough."""
    image, none = np.zeros((32, 32, 3), np.uint8), np.zeros((0, 0, 3), np.uint8)
    rows = [Row(n, f"row {n}", none, ("what?",), ("x",), ("x",)) for n in range(9)]
    attack = AttackConfig(name="badnets")
    with pytest.raises(UserError, match="badnets change none of the first 8 test rows"):
        check_triggers(rows, TriggeredSource(rows, build_attack(attack), attack), "badnets")
    seen = [dataclasses.replace(rows[0], image=image), *rows]
    check_triggers(seen, TriggeredSource(seen, build_attack(attack), attack), "badnets")
    text = AttackConfig(name="badnl")
    check_triggers(rows, TriggeredSource(rows, build_attack(text), text), "badnl")


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
