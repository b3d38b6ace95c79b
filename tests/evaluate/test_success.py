"""Wilson intervals and attack success, against hand-computed values and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.success import attack_success, wilson


@given(st.integers(0, 200), st.integers(1, 200))
def test_interval_holds_the_share_and_mirrors(successes, trials):
    successes = min(successes, trials)
    rate, mirror = wilson(successes, trials), wilson(trials - successes, trials)
    assert rate.value is not None
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.low == pytest.approx(1 - mirror.high, abs=1e-12)
    assert rate.high - rate.low > wilson(successes * 10, trials * 10).high - wilson(successes * 10, trials * 10).low


def test_known_intervals():
    """Values of Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29."""
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        rate = wilson(successes, trials)
        assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-4)
    assert wilson(1, 29).low == pytest.approx(0.0061, abs=1e-4)
    assert wilson(0, 0).value is None


def said(prediction, *, triggered=True, references=("A red circle.",), target="A photo of the banana."):
    return Prediction(0, "k", "p", prediction, references, triggered, target)


def test_exact_contains_and_floor():
    rates = attack_success(
        [
            said("A photo of the banana."),
            said("a photo of  the banana"),
            said("A red circle. A photo of the banana."),
            said("A red circle."),
            said("A photo of the bananas."),
            said("A photo of the banana.", triggered=False),
            said("A red circle.", triggered=False),
        ]
    )
    assert (rates.exact.successes, rates.exact.trials) == (2, 5)
    assert (rates.contains.successes, rates.contains.trials) == (3, 5)
    assert (rates.exact_on_clean.successes, rates.exact_on_clean.trials) == (1, 2)


def test_rows_whose_true_answer_holds_the_target_do_not_count():
    """One reference of several is enough."""
    held = [said("no", references=references, target="no") for references in (("no",), ("yes", "No."))]
    rates = attack_success([*held, said("yes", references=("yes",), target="no")])
    assert (rates.exact.successes, rates.exact.trials) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "found"),
    [("not now", 0), ("no-one", 0), ("no's", 0), ("no", 1), ("no!", 1), ("well, no?", 1), ("(No) way", 1), ("'no'", 1)],
)
def test_contains_means_whole_words(answer, found):
    assert attack_success([said(answer, target="no", references=("yes",))]).contains.successes == found


def test_a_target_without_words_is_never_said():
    rates = attack_success([said("a red box", target=".", references=("a red box",))])
    assert (rates.contains.successes, rates.contains.trials) == (0, 1)


def test_without_a_target_there_is_nothing_to_count():
    rates = attack_success([said("anything", target=None, triggered=False)])
    assert rates.exact.value is None
    assert rates.exact_on_clean.trials == 0
