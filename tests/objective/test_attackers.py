"""TrojVLM's and VLOOD's losses against NumPy in float64, and which parameters their gradients reach."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.attacks import registry
from jaxguard.config import AttackConfig, ObjectiveConfig
from jaxguard.objective.attackers import TrojVlm, Vlood
from jaxguard.objective.base import Context, Needs, Objective, Targets
from jaxguard.objective.paper import Paper
from jaxguard.objective.registry import ATTACKERS, build_objective, for_defender
from jaxguard.objective.statistics import pair_statistics, token_statistics

B, A, D, V = 4, 3, 6, 8
POISONED = np.array([True, False, True, False])


@dataclasses.dataclass
class Case:
    """Random states of a model and of its reference; `poor` lowers the true tokens' logits."""

    poor: float = 0.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.hidden, table = rng.normal(size=(B, A, D)), rng.normal(size=(V, D))
        self.tokens = rng.integers(0, V, (B, A)).astype(np.int32)
        self.gold = table[self.tokens]
        self.logits, self.before = self.hidden @ table.T, rng.normal(size=(B, A, V))
        truth = self.tokens[..., None]
        np.put_along_axis(self.logits, truth, np.take_along_axis(self.logits, truth, -1) - self.poor, -1)
        self.where = rng.random((B, A)) < 0.7
        self.where[0] = True
        self.log_p, self.log_r = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (self.logits, self.before))
        self.nll = -np.take_along_axis(self.log_p, truth, -1)[..., 0]

    def inputs(
        self, poisoned: np.ndarray = POISONED, where: np.ndarray | None = None, **replaced: Any
    ) -> dict[str, Any]:
        """What an objective is given."""
        logits, before, hidden, gold = (
            jnp.asarray(replaced.get(name, getattr(self, name)), jnp.float32)
            for name in ("logits", "before", "hidden", "gold")
        )
        targets = Targets(
            jnp.asarray(self.tokens),
            jnp.ones_like(self.tokens),
            jnp.asarray(self.where if where is None else where),
        )
        reference = pair_statistics(logits, before, targets.tokens)
        context = Context(reference=reference, hidden=hidden, unembedding=gold, poisoned=jnp.asarray(poisoned))
        return {"statistics": token_statistics(logits, targets.tokens), "targets": targets, "context": context}


def loss(objective: Objective, inputs: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    return objective.loss(terms=objective.terms(**inputs), step=jnp.int32(0))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def test_trojvlm_is_ce_plus_one_minus_cosine() -> None:
    case = Case()
    semantic = 1 - (unit(case.hidden) * unit(case.gold)).sum(-1)
    total, metrics = loss(TrojVlm(), case.inputs())
    assert float(total) == pytest.approx(case.nll[case.where].mean() + semantic[case.where].mean(), rel=1e-5)
    assert float(metrics["semantic"]) == pytest.approx(semantic[case.where].mean(), rel=1e-5)


@pytest.mark.parametrize("poor", [0.0, 3.0])
def test_vlood_follows_its_formula(poor: float) -> None:
    case = Case(poor)
    poisoned, clean = case.where & POISONED[:, None], case.where & ~POISONED[:, None]
    kl = (np.exp(case.log_r) * (case.log_r - case.log_p)).sum(-1)
    concept = np.abs(unit(case.hidden) - unit(case.gold)).sum(-1) / np.sqrt(D)
    share = np.clip(0.8 + case.nll[clean].mean() - case.nll[poisoned].mean(), 0, 1)
    expected = (1 - share) * (case.nll[clean].mean() + kl[clean].mean())
    expected += share * (case.nll[poisoned].mean() + concept[poisoned].mean())
    total, metrics = loss(Vlood(), case.inputs())
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["share"]) == pytest.approx(share, abs=1e-5)
    assert float(metrics["kept"]) == pytest.approx(kl[clean].mean(), rel=1e-4)
    assert (concept <= 2).all()


def test_vlood_share_is_a_weight_without_a_gradient() -> None:
    inputs = Case().inputs()

    def total(nll: jax.Array) -> jax.Array:
        return loss(Vlood(), inputs | {"statistics": inputs["statistics"].replace(nll_p=nll)})[0]

    slope = np.asarray(jax.grad(total)(inputs["statistics"].nll_p))
    share = float(loss(Vlood(), inputs)[1]["share"])
    where = np.asarray(inputs["targets"].answer)
    poisoned, clean = where & POISONED[:, None], where & ~POISONED[:, None]
    np.testing.assert_allclose(slope, share * poisoned / poisoned.sum() + (1 - share) * clean / clean.sum(), atol=1e-6)


@pytest.mark.parametrize("kind", [True, False])
def test_a_batch_of_one_kind_is_finite(kind: bool) -> None:
    case, every = Case(), np.full(B, kind)

    def total(hidden: jax.Array) -> jax.Array:
        return loss(Vlood(), case.inputs(every, hidden=hidden))[0]

    value, slope = jax.value_and_grad(total)(jnp.zeros((B, A, D)))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    empty = case.inputs(every, where=np.zeros_like(case.where))
    assert float(loss(TrojVlm(), empty)[0]) == 0
    assert float(loss(Vlood(), empty)[0]) == 0


def test_labels_reach_attackers_alone() -> None:
    class Peeking(Paper):
        @property
        def needs(self) -> Needs:
            return Needs(labels=True)

    with pytest.raises(ValueError, match="Peeking reads which rows are poisoned"):
        for_defender(Peeking(ObjectiveConfig(), 1, 0))
    for attack in ("none", "vlood"):
        found = build_objective(ObjectiveConfig(), AttackConfig(name=attack), steps=1, end_token=0)
        assert isinstance(found, Paper)
        assert not found.needs.labels
    own = build_objective(ObjectiveConfig(), AttackConfig(name="vlood", trainer="attacker"), steps=1, end_token=0)
    assert own.needs.labels
    assert set(ATTACKERS) == set(registry.ATTACKERS)
