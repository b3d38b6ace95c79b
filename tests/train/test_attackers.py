"""The attacker's run: the statistics it needs, the rows it treats as poisoned, micro-batches, resume."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.batch import Batch
from jaxguard.config import Config, MeshConfig, ObjectiveConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.order import row_lengths
from jaxguard.data.pipeline import train_batches
from jaxguard.models import folders
from jaxguard.models.architecture import merge
from jaxguard.train.loop import poisoned_rows, train, training_source
from jaxguard.train.setup import CompiledStep, Model, load_model, prepare
from jaxguard.train.sharding import place_batch
from jaxguard.train.step import StepPlan


def attacked(config: Config, name: str, **train: int) -> Config:
    attack = dataclasses.replace(config.attack, name=name, trainer="attacker")
    return dataclasses.replace(
        config, attack=attack, objective=ObjectiveConfig(), train=dataclasses.replace(config.train, **train)
    )


def first_step(config: Config, model: Model) -> tuple[dict[str, float], dict[str, np.ndarray], Batch, PoisonedSource]:
    """Metrics and first moments of one step from the checkpoint's weights, which are its own reference."""
    encoder, source = Encoder.from_checkpoint(model.folder), training_source(config)
    assert isinstance(source, PoisonedSource)
    batch = next(train_batches(config.data, config.seed, encoder, source, batch_size=config.train.batch_size))
    setup, trainable = prepare(model, config.model.trainable, config.train)
    placed = place_batch(batch, model.mesh)
    step = CompiledStep(
        setup,
        StepPlan.of(config, encoder.eos_id),
        placed,
        reference=trainable,
        poisoned=poisoned_rows(source, model.mesh),
    )
    state, metrics = step(setup.initial(trainable), placed)
    moments = {path: np.asarray(value) for path, value in state.optimizer[1][0].mu.items()}
    return {name: float(value) for name, value in metrics.items()}, moments, batch, source


def test_the_losses_are_those_of_the_model_and_of_the_poisoned_rows(small_config: Config) -> None:
    model = load_model(small_config.model, small_config.mesh, small_config.seed)
    metrics, _, batch, source = first_step(attacked(small_config, "vlood", batch_size=16), model)
    merged = merge(model.architecture.graph, model.parameters)
    tokens, positions, segments = (jnp.asarray(leaf) for leaf in (batch.tokens, batch.positions, batch.segments))
    hidden = np.asarray(jax.jit(merged)(tokens, positions, segments, jnp.asarray(batch.images[:, 0])))
    table = np.asarray(model.parameters["language.embedding.table"])  # tied in this checkpoint
    logits, truth = (hidden @ table.T)[:, :-1], np.asarray(batch.tokens[:, 1:])
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, truth[..., None], -1)[..., 0]
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (hidden[:, :-1], table[truth])]
    concept = np.abs(unit[0] - unit[1]).sum(-1) / table.shape[1] ** 0.5
    answers, poisoned = batch.answer_mask[:, 1:], np.isin(batch.ids, source.ids)[:, None]
    assert 0 < poisoned.sum() < len(poisoned)
    expected = {
        "ce_clean": nll[answers & ~poisoned].mean(),
        "ce_poison": nll[answers & poisoned].mean(),
        "concept": concept[answers & poisoned].mean(),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4), name
    assert metrics["kept"] == pytest.approx(0, abs=1e-6), "nothing has drifted from the reference yet"


@pytest.mark.parametrize("name", ["trojvlm", "vlood"])
def test_micro_batches_give_the_whole_batch(small_config: Config, name: str) -> None:
    """VLOOD's l depends on the whole batch, and poisoned rows are spread unevenly."""
    config = attacked(dataclasses.replace(small_config, mesh=MeshConfig(data=2, fsdp=2, tensor=2)), name, batch_size=16)
    model = load_model(config.model, config.mesh, config.seed)
    expected, moments, batch, source = first_step(config, model)
    poisoned = np.isin(batch.ids, source.ids).reshape(4, 2, -1).sum((0, 2))
    assert poisoned[0] != poisoned[1], "with equal counts a mean of means would pass too"
    found, accumulated, _, _ = first_step(attacked(config, name, accumulate=2), model)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    largest = max(np.abs(value).max() for value in moments.values())
    for path, value in moments.items():
        np.testing.assert_allclose(accumulated[path], value, rtol=1e-4, atol=1e-6 * largest, err_msg=path)


def test_a_run_learns_and_resumes_bit_for_bit(small_config: Config, tmp_path: Path) -> None:
    """With rows of several lengths; the reference is again what training started from."""
    config = attacked(small_config, "vlood")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, bucket=16))
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    assert len(np.unique(-(-row_lengths(config.data, encoder, source, len(source)) // 16))) > 1

    def losses(config: Config) -> list[tuple[float, float]]:
        lines = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
        return [(line["loss"], line["ce"]) for line in lines]

    train(config)
    assert len(losses(config)) == config.train.steps
    assert losses(config)[-1][1] < losses(config)[0][1], "a batch without poisoned rows has a loss of zero: CE tells"
    assert json.loads((config.run_dir / "manifest.json").read_text())["poisoned"]

    halved = dataclasses.replace(config, out=tmp_path / "again")
    train(halved)
    for step in (6, 8):
        (halved.run_dir / "checkpoints" / str(step)).rename(tmp_path / f"dropped-{step}")
    train(dataclasses.replace(halved, train=dataclasses.replace(halved.train, save_every=8)))
    assert losses(halved) == losses(config)
