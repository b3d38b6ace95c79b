"""Comparison of two systems on the same rows."""

import dataclasses

import pytest

from jaxguard.errors import UserError
from jaxguard.evaluate.compare import compare, paired
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.scores import score

TARGET = "banana"


def system(right, caught, task="vqa"):
    """Forty answers to clean and forty to triggered inputs; the first ones right, or with the target."""
    truth = ["yes" if task == "vqa" else f"a dog number {n} runs" for n in range(40)]
    said = [text if n < right else "no" for n, text in enumerate(truth)]
    plain = [Prediction(n, f"k{n}", "p", said[n], (truth[n],), False, TARGET) for n in range(40)]
    answers = [TARGET if n < caught else said[n] for n in range(40)]
    return plain + [dataclasses.replace(plain[n], prediction=answers[n], triggered=True) for n in range(40)]


def test_differences_are_those_of_the_scores():
    first, second = system(30, 38), system(35, 2)
    found = {(one.part, one.metric): one for one in compare(first, second, "vqa", resamples=1000)}
    before, after = score(first, "vqa"), score(second, "vqa")
    quality = found["clean", "accuracy"]
    assert (quality.first, quality.second) == (before.clean["accuracy"], after.clean["accuracy"]) == (75, 87.5)
    assert quality.change.value == 12.5
    assert 0 < quality.change.low < 12.5 < quality.change.high
    exact = found["attack", "exact"]
    assert before.attack is not None
    assert after.attack is not None
    assert before.attack.exact.value is not None
    assert after.attack.exact.value is not None
    assert (exact.first, exact.second) == (100 * before.attack.exact.value, 100 * after.attack.exact.value)
    assert exact.change.p < 0.01
    assert exact.change.high < -70
    assert found["attack", "exact_on_clean"].change.p == 1
    assert set(found) == {
        ("clean", "accuracy"),
        ("recovery", "accuracy"),
        ("attack", "exact"),
        ("attack", "contains"),
        ("attack", "exact_on_clean"),
        ("attack", "contains_on_clean"),
    }


def test_captions_compare_by_every_metric():
    found = compare(system(30, 0, "caption"), system(20, 0, "caption"), "caption", resamples=100)
    assert [one.metric for one in found if one.part == "clean"] == [
        *("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
    ]
    values = score(system(30, 0, "caption"), "caption").clean
    assert {one.metric: one.first for one in found if one.part == "clean"} == values
    assert all(one.change.value < 0 for one in found if one.part == "clean")


def test_order_does_not_matter_and_lone_rows_are_left_out(capsys):
    first, second = system(30, 38), system(35, 2)
    assert paired(first[::-1], second)[0] == first
    ours, theirs = paired(first[:50], second[10:])
    assert [(p.id, p.triggered) for p in ours] == [(p.id, p.triggered) for p in theirs]
    assert len(ours) == 40
    assert "left out 40 predictions" in capsys.readouterr().err
    clean = [p for p in second if not p.triggered]
    assert {one.part for one in compare(first, clean, "vqa", resamples=100)} == {"clean"}


def test_other_rows_are_refused():
    first = system(30, 38)
    with pytest.raises(UserError, match="no id in common"):
        paired(first, [dataclasses.replace(p, id=p.id + 100) for p in first])
    with pytest.raises(UserError, match="id 0 has different references"):
        paired(first, [dataclasses.replace(p, references=("maybe",)) for p in first])
    with pytest.raises(UserError, match="id 0 has different targets"):
        paired(first, [dataclasses.replace(p, target="apple") for p in first])
