"""Caption scores: BLEU against its formula, and all scores against those of the COCO evaluation."""

import json
import math
from pathlib import Path

import pytest

from jaxguard.evaluate.captions import caption_scores


def test_perfect_captions():
    truth = [["A red circle over a box.", "a disc"], ["A small dog runs on the green grass."]]
    scores = caption_scores([texts[0] for texts in truth], truth)
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"):
        assert scores[name] == pytest.approx(100, abs=1e-3)
    assert scores["cider"] > 100


def test_bleu_by_hand():
    """Three of four words match, two of three pairs, and the candidate is shorter than its reference by one word."""
    scores = caption_scores(["a red box here"], [["a red box over there"]])
    brevity = math.exp(1 - 5 / 4)
    assert scores["bleu_1"] == pytest.approx(100 * brevity * 3 / 4, rel=1e-4)
    assert scores["bleu_2"] == pytest.approx(100 * brevity * math.sqrt(3 / 4 * 2 / 3), rel=1e-4)


def test_brevity_is_against_the_closest_reference():
    """Of two, four and seven words, seven is the closest to six; every word is in one of them."""
    scores = caption_scores(["a red box over there now"], [["a red", "a red box here", "a red box over there now too"]])
    assert scores["bleu_1"] == pytest.approx(100 * math.exp(1 - 7 / 6), rel=1e-4)


def test_order_of_rows_does_not_matter():
    said = ["a red box", "two dogs run", "a man"]
    true = [["a red box is here"], ["two dogs are running", "dogs run"], ["a woman"]]
    forward, backward = caption_scores(said, true), caption_scores(said[::-1], true[::-1])
    assert forward == pytest.approx(backward)


def test_nothing_in_common_scores_nothing():
    scores = caption_scores(["x y z w", "x y z w"], [["a b c d"], ["e f g h"]])
    assert scores["cider"] == pytest.approx(0)
    assert scores["bleu_4"] < 0.1


def test_an_empty_caption_counts_as_missing_words():
    """The one word of two captions is right, and they are shorter than their references by two of three words."""
    scores = caption_scores(["", "a"], [["a b"], ["a"]])
    assert scores["bleu_1"] == pytest.approx(100 * math.exp(1 - 3 / 1), rel=1e-4)
    assert scores["rouge_l"] == pytest.approx(50)


def test_nothing_is_printed(capsys):
    caption_scores(["a red box"], [["a red box"]])
    assert capsys.readouterr() == ("", "")


def test_scores_are_those_of_the_coco_evaluation_with_its_java():
    folder = Path(__file__).parents[1] / "golden" / "captions"
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    expected = json.loads((folder / "expected.json").read_text())
    del expected["meteor"]  # Java's alone
    scores = caption_scores([row["prediction"] for row in rows], [row["references"] for row in rows])
    assert scores == pytest.approx(expected, rel=1e-12)
