"""Evaluations written into a run folder as `evaluate` writes them, without a model."""

import dataclasses
from collections.abc import Sequence

from jaxguard.config import AttackConfig, Config
from jaxguard.evaluate.identity import FOLDER, Evaluation, Identity, trigger_options
from jaxguard.evaluate.predictions import Prediction, write_predictions
from jaxguard.evaluate.scores import score, write_scores


def store(
    config: Config,
    predictions: Sequence[Prediction],
    attack: AttackConfig,
    name: str,
    *,
    parameters: str = "p",
    rows: int = 300,
) -> Evaluation:
    """Write an evaluation into the run folder as `evaluate` does."""
    folder = config.run_dir / FOLDER / name
    folder.mkdir(parents=True)
    options = trigger_options(attack)
    identity = Identity(
        name=name, run=str(config.run_dir), model="m", step=8, steps=8, newest=8, parameters=parameters,
        attack=options, own=options == trigger_options(config.attack), data="d, test", rows=rows, questions="q",
        beams=1, new_tokens=12, commit="c", time=name,
    )  # fmt: skip
    write_predictions(predictions, folder / "predictions.jsonl", name)
    about = {"evaluation": dataclasses.asdict(identity)}
    write_scores(score(predictions, config.evaluate.task), folder / "scores.json", about)
    return Evaluation(folder / "predictions.jsonl", identity)
