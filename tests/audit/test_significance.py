"""The null is that of the honest phrases, its p-values are chances, and few false discoveries are made."""

import numpy as np
import pytest
from scipy.stats import betabinom, false_discovery_control

from jaxguard.audit.significance import SMALLEST, Null, benjamini_hochberg

HONEST = Null(0.4, 20.0)


def phrases(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    answers = rng.integers(5, 60, size=count)
    return betabinom.rvs(answers, HONEST.a, HONEST.b, random_state=rng), answers


@pytest.mark.parametrize("poisoned", [0, 30])
def test_the_fit_finds_the_honest_phrases_share_whatever_is_poisoned(poisoned: int) -> None:
    suspicious, answers = phrases(np.random.default_rng(0), 3000)
    suspicious[:poisoned] = answers[:poisoned]
    null = Null.fit(suspicious, answers)
    assert null.a / (null.a + null.b) == pytest.approx(HONEST.a / (HONEST.a + HONEST.b), rel=0.15)
    assert null.a == pytest.approx(HONEST.a, rel=0.3)


def test_honest_phrases_are_rarely_convicted() -> None:
    """Ten data sets without poison: a discovery in at most two, at a rate of 1%."""
    made = []
    for seed in range(10):
        suspicious, answers = phrases(np.random.default_rng(seed), 1000)
        p_values = Null.fit(suspicious, answers).p_values(suspicious, answers)
        made.append(benjamini_hochberg(p_values, 0.01).any())
    assert sum(made) <= 2


def test_few_phrases_convict_nobody_easily() -> None:
    null = Null.fit(np.array([0, 0]), np.array([500, 500]))
    assert null.p_values(np.array([3]), np.array([3]))[0] > 1e-3
    assert null.p_values(np.array([500]), np.array([500]))[0] < 0.01


def test_p_values_and_smallest_count_agree() -> None:
    for level in (1e-2, 1e-4, 1e-6):
        smallest = HONEST.smallest(level, 1000)
        assert smallest is not None
        below, at = HONEST.p_values(np.array([smallest - 1, smallest]), np.array([smallest - 1, smallest]))
        assert at <= level
        assert below > level or smallest == SMALLEST
    assert HONEST.smallest(1e-6, 3) is None


def test_false_discoveries_as_scipy_counts_them() -> None:
    p_values = np.random.default_rng(1).beta(0.3, 3, size=200)
    for rate in (0.01, 0.2):
        expected = false_discovery_control(p_values) <= rate
        np.testing.assert_array_equal(benjamini_hochberg(p_values, rate), expected)
    assert not benjamini_hochberg(np.ones(3), 0.01).any()
    assert benjamini_hochberg(np.zeros(0), 0.01).shape == (0,)
