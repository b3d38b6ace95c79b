"""The guard measures what a run will show, decides once, and training learns the rest alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxguard.audit import findings, guard
from jaxguard.audit.channel import Scores
from jaxguard.audit.evidence import Evidence, Reference
from jaxguard.audit.rows import rows_shown
from jaxguard.config import Config, GuardConfig
from jaxguard.data.counted import Counted
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.errors import UserError
from jaxguard.models import folders
from jaxguard.train.loop import train, training_source
from jaxguard.train.measure import Measure
from jaxguard.train.setup import load_model, prepare
from jaxguard.train.sharding import place_batch


@pytest.fixture(autouse=True)
def sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small checkpoint has random weights, and is blind."""
    monkeypatch.setattr(guard, "check_sight", lambda *_: None)


NEVER = GuardConfig(active=True, reference_surprise=1e9)
ALWAYS = GuardConfig(active=True, reference_surprise=-1e9, channel_surprise=-1e9)


def guarded(config: Config, settings: GuardConfig, pack: int = 1) -> Config:
    """Twelve steps of eight rows: the 48 rows twice, so that rows come with other pairs."""
    data = replace(config.data, pack=pack, length=128 if pack > 1 else 64)
    return replace(config, guard=settings, data=data, train=replace(config.train, steps=12))


@pytest.fixture(scope="module", params=[1, 3], ids="{} pairs".format)
def measured(request, small_checkpoint, small_data, tmp_path_factory) -> tuple[Config, Evidence]:
    from tests.conftest import _small_config

    config = _small_config(small_checkpoint, small_data, tmp_path_factory.mktemp("guard"))
    config = guarded(config, NEVER, request.param)
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    return config, Reference(config, encoder, source).read(rows_shown(config, encoder, source))


def test_every_answer_that_training_shows_is_measured(measured: tuple[Config, Evidence]) -> None:
    config, evidence = measured
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    model = load_model(config.model, config.mesh, config.seed)
    setup, start = prepare(model, config.model.trainable, config.train)
    measure = Measure(setup.model, setup.frozen, config.data.answer_length)
    drop = np.random.default_rng(0).random(len(evidence.rows)) < 0.5
    some = Counted(evidence.rows, evidence.pairs, ~drop)
    plain, thinned = (
        train_batches(config.data, config.seed, encoder, source, batch_size=8, counted=counted)
        for counted in (None, some)
    )
    known = {pair: evidence.only(evidence.answers() == number) for number, pair in enumerate(answers(evidence))}
    shown = set()
    for _ in range(config.train.steps):
        batch, fewer = next(plain), next(thinned)
        (found,) = measure(start, [place_batch(batch, model.mesh)])
        for row in range(8):
            targets = np.asarray(found.targets.tokens)[row], np.asarray(found.targets.segments)[row]
            answer = np.asarray(found.targets.answer)[row]
            for segment in np.unique(targets[1][answer]):
                own = answer & (targets[1] == segment)
                tokens, nll = targets[0][own].tolist(), np.asarray(found.tokens.nll_p)[row][own]
                pairs = [
                    pair
                    for pair, entries in known.items()
                    if pair[0] == batch.ids[row] and entries.tokens.tolist() == tokens
                ]
                assert pairs, "an answer that was not measured"
                shown.update(pairs)
                np.testing.assert_allclose(known[pairs[0]].nll, nll, rtol=2e-4, atol=2e-5)
        assert (fewer.answer_mask <= batch.answer_mask).all()
        assert fewer.answer_mask.sum() < batch.answer_mask.sum()
    assert shown == set(known), "nothing else was measured"


def test_every_pair_read_alone_says_what_it_says_among_others(measured: tuple[Config, Evidence]) -> None:
    config, evidence = measured
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    alone = findings.audit_all(config, encoder, source).evidence
    assert answers(alone) == [(row, pair) for row in range(48) for pair in range(5)]
    known = {pair: alone.only(alone.answers() == number) for number, pair in enumerate(answers(alone))}
    for number, pair in enumerate(answers(evidence)):
        entries = evidence.only(evidence.answers() == number)
        np.testing.assert_array_equal(entries.tokens, known[pair].tokens)
        np.testing.assert_allclose(entries.nll, known[pair].nll, rtol=2e-4, atol=2e-5)


def answers(evidence: Evidence) -> list[tuple[int, int]]:
    """Row and pair of each answer, in order."""
    first = evidence.first()
    return list(zip(evidence.rows[first].tolist(), evidence.pairs[first].tolist(), strict=True))


def test_a_guard_that_leaves_nothing_out_changes_nothing(small_config: Config, tmp_path: Path) -> None:
    plain = replace(small_config, out=tmp_path / "plain", train=replace(small_config.train, steps=4))
    watched = replace(plain, out=tmp_path / "watched", guard=NEVER)
    train(plain)
    guard.train(watched)
    one, other = ((config.run_dir / "metrics.jsonl").read_text().splitlines() for config in (plain, watched))
    losses = [[json.loads(line)["loss"] for line in lines] for lines in (one, other)]
    assert losses[0] == losses[1]
    found = json.loads((watched.run_dir / "guard" / "summary.json").read_text())
    assert found["tokens left out"] == 0 < found["tokens"]
    assert found["answers"] == 32


def test_a_guard_that_leaves_everything_out_teaches_nothing(small_config: Config) -> None:
    config = guarded(small_config, ALWAYS)
    config = replace(config, train=replace(config.train, steps=2))
    guard.train(config)
    lines = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [0, 0]


def test_what_is_left_out_is_decided_once(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call reads the first one's decision; another configuration is refused."""
    config = guarded(small_config, GuardConfig(active=True, reference_surprise=0.0, channel_surprise=0.0))
    once = guard.decide(config)
    monkeypatch.setattr(guard, "audit_shown", lambda *_: 1 / 0)
    again = guard.decide(config)
    assert vars(once).keys() == vars(again).keys()
    for name, value in vars(once).items():
        np.testing.assert_array_equal(value, vars(again)[name])
    with pytest.raises(UserError, match=r"holds a run with other values of guard\.channel_surprise"):
        guard.decide(replace(config, guard=replace(config.guard, channel_surprise=1.0)))


def test_a_token_is_left_out_if_it_surprises_both(monkeypatch: pytest.MonkeyPatch) -> None:
    surprise = np.array([3.0, 3.0, 1.0, 1.0])
    none = np.zeros(4, int)
    evidence = Evidence(none, none, none, surprise + 1, np.ones(4), np.zeros((4, 1), int), np.ones((4, 1)))
    scores = Scores(np.array([2.0, 0.4, 2.0, 0.4]), np.zeros(4))
    monkeypatch.setattr(findings, "score", lambda _: scores)
    found = findings.judge(evidence, GuardConfig(), None)
    assert found.suspicious.tolist() == [True, False, False, False]


def test_a_reference_that_does_not_see_the_images_judges_nothing(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are random: another row's image is as good as the right one."""
    config = guarded(small_config, GuardConfig(active=True))
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    sight = Reference(config, encoder, source).sight(rows_shown(config, encoder, source))
    assert sight is not None
    assert sight.low < sight.mean < sight.high
    assert abs(sight.mean) < 0.01
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"does not see these images: .* rises by -?0\.00\d nats"):
        guard.train(config)
    assert not config.run_dir.exists(), "nothing is half-written"
