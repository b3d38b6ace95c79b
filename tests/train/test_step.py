"""The step: what it computes only if an objective needs it (reference, memory), and its weights."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Int

from jaxguard.batch import Batch
from jaxguard.config import Config, ObjectiveConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.objective.base import Context, Metrics, Needs, Objective, Sum, Targets, Terms
from jaxguard.objective.statistics import TokenStatistics
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.loop import memory_shape, train, training_source
from jaxguard.train.measure import Measure
from jaxguard.train.setup import CompiledStep, Model, Setup, load_model, prepare
from jaxguard.train.sharding import place_batch
from jaxguard.train.state import TrainState
from jaxguard.train.step import StepPlan


@dataclasses.dataclass(frozen=True)
class Remembering(Objective):
    """Cross-entropy of the tokens that surprise the reference; remembers of each row its NLL, and how often it came."""

    labels: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(reference="tokens", memory=2, labels=self.labels)

    def terms(self, *, statistics: TokenStatistics, targets: Targets, context: Context) -> Terms:
        assert context.reference is not None
        assert context.memory is not None
        assert context.hidden is None
        assert context.poisoned is None
        surprising = context.reference.nll_p > context.reference.entropy_p
        return {
            "ce": Sum.over(jnp.where(surprising, statistics.nll_p, 0.0), targets.answer),
            "reference": Sum.over(context.reference.nll_p, targets.answer),
            "seen": Sum.over(context.memory[:, 1], jnp.ones(len(context.memory), bool)),
        }

    def loss(self, *, terms: Terms, step: Int[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        means = {name: term.mean for name, term in terms.items()}
        return means["ce"], {"loss": means["ce"], **means}

    def observe(self, *, statistics: TokenStatistics, targets: Targets, context: Context) -> Float[Array, "B S"]:
        nll = jnp.sum(jnp.where(targets.answer, statistics.nll_p, 0.0), axis=-1)
        return jnp.stack([nll, jnp.ones_like(nll)], axis=-1)


@dataclasses.dataclass(frozen=True)
class Ready:
    model: Model
    setup: Setup
    step: CompiledStep
    batch: Batch
    state: TrainState
    measured: tuple[np.ndarray, np.ndarray]
    """Of the batch's rows under the starting weights: summed NLL, and number of answer tokens."""


@pytest.fixture(scope="module", params=[1, 2], ids="{} micro-batches".format)
def ready(request: pytest.FixtureRequest, small_checkpoint: Path, small_data: Path) -> Ready:
    config = Config()
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, path=str(small_checkpoint)),
        data=dataclasses.replace(config.data, source=str(small_data), length=64),
        train=dataclasses.replace(config.train, batch_size=16, steps=8),
    )
    model = load_model(config.model, config.mesh, config.seed)
    encoder, source = Encoder.from_checkpoint(model.folder), training_source(config)
    made = next(train_batches(config.data, config.seed, encoder, source, batch_size=16))
    setup, trainable = prepare(model, config.model.trainable, config.train, memory_shape(Remembering(), source))
    batch = place_batch(made, model.mesh)
    plan = StepPlan(Remembering(), answer_length=config.data.answer_length, accumulate=request.param)
    step = CompiledStep(setup, plan, batch, reference=trainable)
    (rows,) = Measure(model.spec, setup.frozen, config.data.answer_length)(trainable, [batch])
    np.testing.assert_array_equal(rows.ids, made.ids)
    np.testing.assert_array_equal(rows.pairs, made.pairs)
    measured = rows.sums(rows.tokens.nll_p), rows.counts
    return Ready(model, setup, step, batch, setup.initial(trainable), measured)


def test_memory_and_reference(ready: Ready, tmp_path: Path) -> None:
    nll, counts = ready.measured
    ids, pairs = np.asarray(ready.batch.ids), np.asarray(ready.batch.pairs)
    assert ready.state.memory is not None
    assert ready.state.memory.shape == (48, 5, 2)
    assert len(set(pairs.tolist())) > 1, "scenes have five captions each"
    state, metrics = ready.step(ready.state, ready.batch)
    assert float(metrics["reference"]) == pytest.approx(nll.sum() / counts.sum(), rel=1e-5)
    assert float(metrics["seen"]) == 0
    expected = np.zeros((48, 5, 2), np.float32)
    expected[ids, pairs] = np.stack([nll, np.ones_like(nll)], axis=-1)
    assert state.memory is not None
    np.testing.assert_allclose(state.memory, expected, rtol=1e-5)

    with Checkpoints(tmp_path, dataclasses.replace(Config().train, save_every=1)) as checkpoints:
        checkpoints.save(1, state, {"next": 1})
        checkpoints.wait()
        restored, _ = checkpoints.restore(ready.setup.abstract)
    np.testing.assert_array_equal(restored.memory, state.memory)

    again, metrics = ready.step(state, ready.batch)
    assert float(metrics["seen"]) == 1, "each row is remembered where it is asked for"
    assert again.memory is not None
    np.testing.assert_array_equal(np.asarray(again.memory)[ids, pairs, 1], 2)
    assert float(metrics["reference"]) == pytest.approx(nll.sum() / counts.sum(), rel=1e-5), "the reference stays"


def test_what_is_needed_must_be_given(ready: Ready) -> None:
    plan = StepPlan(Remembering(), answer_length=48)
    with pytest.raises(ValueError, match="needs the weights that training starts from"):
        CompiledStep(ready.setup, plan, ready.batch)
    labelled = dataclasses.replace(plan, objective=Remembering(labels=True))
    with pytest.raises(ValueError, match="needs to know which rows are poisoned"):
        CompiledStep(ready.setup, labelled, ready.batch, reference=ready.state.parameters)


def test_a_run_holds_one_copy_of_what_trains(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes on the devices at the first step, less the batch: float32 weights once, and two moments."""
    config = dataclasses.replace(
        small_config,
        model=dataclasses.replace(small_config.model, trainable="all"),
        objective=ObjectiveConfig(),
        train=dataclasses.replace(small_config.train, steps=1),
    )
    model = load_model(config.model, config.mesh, config.seed)
    weights = sum(value.nbytes * len(value.devices()) for value in model.parameters.values())
    del model
    before = {id(array) for array in jax.live_arrays()}
    held: list[int] = []
    call = CompiledStep.__call__

    def counted(self: CompiledStep, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        own = [array for array in jax.live_arrays() if id(array) not in before]
        batch_bytes = sum(shard.data.nbytes for leaf in jax.tree.leaves(batch) for shard in leaf.addressable_shards)
        held.append(sum(shard.data.nbytes for array in own for shard in array.addressable_shards) - batch_bytes)
        return call(self, state, batch)

    monkeypatch.setattr(CompiledStep, "__call__", counted)
    train(config)
    assert 3 * weights <= held[0] < 3.05 * weights
