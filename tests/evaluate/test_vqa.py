"""VQA accuracy against hand-computed values."""

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


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("3.", "3"),
        (".5", ".5"),
        ("u.s.", "us"),
        ("1,000 dogs/cats", "1000 dogscats"),
        ("dogs, cats", "dogs cats"),
        ("dogs,cats", "dogs cats"),
        ("a-b", "b"),
        ("black -white", "black white"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("its", "its"),
        ("Im", "im"),
        ("the A an", ""),
        ("it's: 3:2", "it's: 3:2"),
        ("." * 40, "." * 8),
    ],
)
def test_quirks_of_the_official_normalisation(answer, expected):
    assert normalize(answer) == expected


def test_answers_on_which_all_agree_are_compared_as_they_are():
    assert vqa_accuracy("two", ["2"] * 10) == 0
    assert vqa_accuracy(" 2\n", ["2"] * 10) == 1
    assert vqa_accuracy("two", ["2"] * 9 + ["3"]) == 1
    assert vqa_accuracy("Yes!", ["yes"] * 5 + ["Yes"] * 5) == 1


def test_annotators_by_hand():
    """Three of ten say red: leaving out one of them leaves two, two thirds; any other leaves three, one."""
    references = ["red", "a red", "Red.", *["blue"] * 5, "green", "dark red"]
    assert vqa_accuracy("the red", references) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("dark red", references) == pytest.approx((0 + 9 * 1 / 3) / 10)
    assert vqa_accuracy("purple", references) == 0
