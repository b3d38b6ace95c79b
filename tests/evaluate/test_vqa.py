"""VQA accuracy by hand."""

import pytest

from jaxguard.evaluate.vqa import normalize, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Two dogs.", "2 dogs"),
        ("A red, round ball!", "red round ball"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("yes.", "yes"),
        ("dont", "don't"),
        ("black/white", "black white"),
        ("none", "0"),
        ("an", ""),
        ("12:30", "12:30"),
    ],
)
def test_normalisation(answer, expected):
    assert normalize(answer) == expected


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_answers_average_over_leaving_one_out(matches, accuracy):
    references = ["yes"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert vqa_accuracy("yes", references) == pytest.approx(accuracy)


def test_few_answers_need_one_match():
    assert vqa_accuracy("two", ["2"]) == 1
    assert vqa_accuracy("two", ["3"]) == 0
    assert vqa_accuracy("red", ["blue", "red"]) == 1
