"""The bootstrap against known distributions."""

import numpy as np
import pytest

from jaxguard.evaluate.measures import bootstrap, mean, ratio


def test_a_mean_has_the_interval_of_the_normal_law():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    spread = bootstrap({"m": mean(values)}, resamples=4000)["m"]
    assert spread.value == pytest.approx(100 * values.mean())
    error = 100 * values.std() / 20
    assert spread.low == pytest.approx(spread.value - 1.96 * error, abs=0.1 * error)
    assert spread.high == pytest.approx(spread.value + 1.96 * error, abs=0.1 * error)


def test_p_is_that_of_the_normal_law_on_both_sides():
    """A mean of exactly two standard errors: 0.0455."""
    values = np.random.default_rng(4).normal(size=400)
    values = (values - values.mean()) / values.std() + 2 / 20
    assert bootstrap({"m": mean(values)}, resamples=8000)["m"].p == pytest.approx(0.0455, abs=0.01)
    assert bootstrap({"m": mean(-values)}, resamples=8000)["m"].p == pytest.approx(0.0455, abs=0.01)


def test_pairs_cancel_what_rows_have_in_common():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 300)
    change = rng.normal(0.2, 0.5, 300)
    one, other = {"m": mean(hard)}, {"m": mean(hard + change)}
    difference = bootstrap(other, one, resamples=2000)["m"]
    assert difference.value == pytest.approx(100 * change.mean())
    assert difference.high - difference.low == pytest.approx(100 * 2 * 1.96 * change.std() / np.sqrt(300), rel=0.1)
    assert difference.p < 0.001
    assert bootstrap(one, other, resamples=2000)["m"].value == -difference.value


def test_equal_systems_do_not_differ():
    one = {"m": mean(np.array([1.0, 0.0, 1.0])), "r": ratio(np.array([1.0, 2.0]), np.array([2.0, 2.0]))}
    for spread in bootstrap(one, one, resamples=200).values():
        assert (spread.value, spread.low, spread.high, spread.p) == (0, 0, 0, 1)


def test_false_alarms_are_as_rare_as_they_should_be():
    rng = np.random.default_rng(2)
    found = [
        bootstrap({"m": mean(rng.integers(0, 2, 60) * 1.0)}, {"m": mean(rng.integers(0, 2, 60) * 1.0)}, resamples=300)
        for _ in range(300)
    ]
    alarms = np.mean([spread["m"].p < 0.05 for spread in found])
    assert 0.01 < alarms < 0.11


def test_draws_do_not_depend_on_the_measures_beside():
    values = np.random.default_rng(3).random(50)
    alone = bootstrap({"m": mean(values)}, resamples=700)["m"]
    beside = bootstrap({"x": mean(values**2), "m": mean(values), "y": mean(values[:9])}, resamples=700)
    assert beside["m"] == alone
    assert list(beside) == ["x", "m", "y"]
