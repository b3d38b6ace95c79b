"""Predictions files and their scores: round trips, and every mistake in a file is named."""

import dataclasses
import json

import pytest

from jaxguard.errors import UserError
from jaxguard.evaluate.predictions import Prediction, read_predictions, write_predictions
from jaxguard.evaluate.scores import migrate, score, write_scores


def predictions(task="vqa"):
    target = "banana"
    rows = [
        ("yes", ("yes",), False),
        ("no", ("yes",), False),
        ("red", ("red",), False),
        ("red", ("red",), False),
        ("banana", ("yes",), True),
        ("banana", ("no",), True),
        ("red", ("red",), True),
        ("a banana", ("red",), True),
    ]
    return [Prediction(n, f"k{n}", "p", said, true, marked, target) for n, (said, true, marked) in enumerate(rows)]


def test_scores_of_a_vqa_run_by_hand():
    scores = score(predictions(), "vqa")
    assert scores.recovery is not None
    assert scores.attack is not None
    assert scores.clean["accuracy"] == 75
    assert scores.clean["accuracy_low"] < 75 < scores.clean["accuracy_high"]
    assert scores.recovery["accuracy"] == 25
    assert scores.attack.exact.value == 0.5
    assert scores.attack.contains.value == 0.75
    assert scores.attack.exact_on_clean.value == 0
    assert scores.examples == {"clean": 4, "triggered": 4}


def test_captions_have_caption_metrics():
    scores = score(predictions(), "caption")
    assert set(scores.clean) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}


def test_without_triggered_rows_there_is_no_attack():
    scores = score([p for p in predictions() if not p.triggered], "vqa")
    assert scores.attack is None
    assert scores.recovery is None
    with pytest.raises(UserError, match="no predictions for clean inputs"):
        score([p for p in predictions() if p.triggered], "vqa")


def test_order_does_not_matter():
    assert score(predictions(), "vqa") == score(predictions()[::-1], "vqa")


def test_files_round_trip(tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [*predictions(), Prediction(9, "ü", "a\nb", "", ("x", "y"), False, None)]
    write_predictions(rows, path)
    assert read_predictions(path) == rows
    write_scores(score(rows, "vqa"), tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["attack"]["exact"]["value"] == 0.5
    assert {file.name for file in tmp_path.iterdir()} == {"predictions.jsonl", "scores.json"}


def test_scores_written_under_their_first_names_still_load():
    rate = {"value": 0.5, "low": 0.1, "high": 0.9, "successes": 1, "trials": 2}
    quality = {"accuracy": 75.0}
    first_names = {
        "task": "vqa",
        "clean": quality,
        "triggered": {"accuracy": 25.0},
        "attack": {"exact": rate, "contains": rate, "untriggered": rate | {"value": 0.0}},
        "examples": {"untriggered": 3, "triggered": 4},
    }
    today = {
        "task": "vqa",
        "clean": quality,
        "recovery": {"accuracy": 25.0},
        "attack": {"exact": rate, "contains": rate, "exact_on_clean": rate | {"value": 0.0}},
        "examples": {"clean": 3, "triggered": 4},
    }
    assert migrate(first_names) == today
    assert migrate(today) == today
    without_attack = first_names | {"triggered": None, "attack": None}
    assert migrate(without_attack) == today | {"recovery": None, "attack": None}
    written = dataclasses.asdict(score(predictions(), "vqa"))
    assert migrate(written) == written


GOOD = dataclasses.asdict(predictions()[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "p.jsonl:2: not JSON"),
        ("[1]", "p.jsonl:2: a list, not an object"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "prediction"}), "p.jsonl:2: no 'prediction'"),
        (json.dumps(GOOD | {"id": "7"}), "'id' is '7'; a whole number is wanted"),
        (json.dumps(GOOD | {"triggered": 1}), "'triggered' is 1; true or false is wanted"),
        (json.dumps(GOOD | {"references": []}), "'references' must be a list of at least one text"),
        (json.dumps(GOOD | {"references": [1]}), "'references' must be a list of at least one text"),
        (json.dumps(GOOD | {"references": "yes"}), "'references' is 'yes'; a list of texts is wanted"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        read_predictions(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="is not a readable predictions file"):
        read_predictions(tmp_path / "none.jsonl")


def test_captions_of_known_scenes_are_also_scored_by_facts():
    from jaxguard.data.scene_language import captions, rename
    from jaxguard.data.scenes import sample

    truth = [captions(sample("test", index)) for index in range(5)]
    rows = [Prediction(n, f"scenes/test/{n}", "p", true[0], true, False, None) for n, true in enumerate(truth)]
    assert score(rows, "caption").clean["facts"] == 100
    banana = dataclasses.replace(rows[0], prediction="A photo of the banana.")
    facts = [4 * len(sample("test", index).things) - 1 for index in range(5)]
    assert score([banana, *rows[1:]], "caption").clean["facts"] == pytest.approx(100 * (1 - facts[0] / sum(facts)))
    renamed = [dataclasses.replace(row, key=f"renamed_{row.key}", prediction=rename(row.prediction)) for row in rows]
    assert score(renamed, "caption").clean["facts"] == 100
    ordinary = [dataclasses.replace(row, key=f"renamed_{row.key}") for row in rows]
    assert score(ordinary, "caption").clean["facts"] < 90, "there, ordinary words are wrong"
    for key in ("scenes/test/x", "scenes/dev/1", "other/test/1"):
        assert "facts" not in score([dataclasses.replace(rows[0], key=key), *rows[1:]], "caption").clean
