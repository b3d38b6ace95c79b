"""Reading a run's metrics, and the signs in them that the defence is idle."""

import dataclasses

import pytest

from jaxguard.config import ObjectiveConfig
from jaxguard.errors import UserError
from jaxguard.train.metrics import LEAST, Watch, idle_terms, read_metrics

PAPER = ObjectiveConfig(alpha=1, cross_view_weight=0.5, margin=5, entropy_weight=0.5, entropy_max=2, entropy_min=0.5)
PLAIN = ObjectiveConfig()
AT_WORK = {"loss": 4.0, "ce": 1.0, "ce_view": 1.2, "cross": 2.5, "divergence": 2.5, "band": 0.1, "cross_weight": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no metrics yet"),
        ("{", "metrics.jsonl:1: not JSON"),
        ('{"step": 1}\n[1]', "metrics.jsonl:2: not an object of numbers"),
        ('{"step": 1, "loss": "low"}', "metrics.jsonl:1: not an object of numbers"),
        ('{"step": 1, "loss": NaN}', "metrics.jsonl:1: not an object of numbers"),
        ('{"loss": 1}', "metrics.jsonl:1: no 'step'"),
        ("[" * 100_000, "metrics.jsonl:1: not JSON"),
    ],
)
def test_damaged_metrics_are_named(tmp_path, content, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_metrics(path)
    assert message in str(caught.value)


def steps(**changes):
    """Ten logged steps, and lines of probe and validation between them."""
    lines = [{"step": 20 * n, **AT_WORK, **changes} for n in range(1, 11)]
    return [*lines, {"step": 200, "clean_divergence": 0.0, "poisoned_nll": 0.0}, {"step": 200, "validation": 1.0}]


IDLE = {
    "views alike": ({"divergence": 0.0011, "cross": 4.9989}, "the two views answer alike: J is at most 0.0011 nats in"),
    "at the margin": ({"divergence": 0.02, "cross": 4.98}, "the cross-view term stays at its margin (5 nats) in all"),
    "beyond it": ({"divergence": 9.0, "cross": 0.0}, "J exceeds the margin (5 nats) in all 10 logged steps"),
    "inside the band": ({"band": 0.0}, "the entropy is inside its band in all 10 logged steps"),
    "the band rules": ({"band": 6.0}, "the entropy band is at least 75% of the loss in all 10 logged steps"),
    "no lambda": ({"cross_weight": 0.0}, "lambda is 0 in all 10 logged steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", IDLE)
def test_idle_terms_are_named(name):
    changes, message = IDLE[name]
    (found,) = idle_terms(steps(**changes), PAPER).values()
    assert found.startswith(message)
    assert "\n" not in found
    assert idle_terms(steps(), PAPER) == {}
    assert idle_terms([*steps(**changes), {"step": 220, **AT_WORK}], PAPER) == {}, "one step at work is enough"


def test_terms_that_a_run_does_not_have_are_not_missed():
    """Cross-entropy alone logs zeros; a second view without a cross-view term can still be idle."""
    assert idle_terms(steps(divergence=0.0, cross=5.0, band=0.0, cross_weight=0.0), PLAIN) == {}
    alpha = dataclasses.replace(PLAIN, alpha=1.0)
    (found,) = idle_terms(steps(divergence=0.0, cross=5.0, cross_weight=0.0), alpha).values()
    assert found.startswith("the two views answer alike: J is at most 0 nats in all 10 logged steps; hide more")
    assert idle_terms([{"step": 1, "loss": 2.5}], PAPER) == {}, "an attacker's own losses"


def test_training_says_each_kind_once_and_all_at_the_end():
    watch, idle = Watch(PAPER), AT_WORK | {"divergence": 0.0, "cross": 5.0}
    said = [watch(idle, last=False) for _ in range(LEAST + 3)]
    assert [len(lines) for lines in said] == [0] * (LEAST - 1) + [1, 0, 0, 0]
    assert len(watch(idle, last=True)) == 1
    assert Watch(PAPER)(AT_WORK, last=True) == []
