"""The demo: fine-tune the shipped tiny model on poisoned data, with and without the defence."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxguard.attacks.poison import TriggeredSource
from jaxguard.attacks.registry import open_attack
from jaxguard.audit.guard import train
from jaxguard.config import AttackConfig, Config, ModelConfig, ViewConfig, to_dict
from jaxguard.data.builders import build
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.sources import RowSource, open_source
from jaxguard.data.views import perturb, row_rng
from jaxguard.evaluate.predictions import Prediction, read_predictions, write_predictions
from jaxguard.evaluate.run import Decoder, evaluate, predict
from jaxguard.evaluate.scores import Scores, score, write_scores
from jaxguard.evaluate.success import contains
from jaxguard.experiments.tiny import (
    DATA,
    EVALUATE,
    FAMILY,
    PAPER,
    TARGETS,
    UNDEFENDED,
    VIEW,
    Task,
    checkpoint,
    schedule,
    training,
)
from jaxguard.files import write_text
from jaxguard.models import folders
from jaxguard.report.pictures import Answers, PictureRow, demo_picture
from jaxguard.report.tables import Column, markdown, rate_text, transposed
from jaxguard.train.loop import training_source
from jaxguard.train.setup import CompiledStep, Model, load_model, prepare
from jaxguard.train.sharding import place_batch
from jaxguard.train.step import StepPlan

TIMED_STEPS = 15
PICTURED = 3


def configuration(task: Task, method: str, out: Path, family: str = FAMILY) -> Config:
    """Make one run of the demo: "clean" data, "undefended" on poisoned data, or the "paper" objective on it."""
    defended, chosen = method == "paper", schedule(family, "demo", task)
    return Config(
        name=method,
        out=out,
        model=ModelConfig(path=checkpoint(family), trainable="all"),
        data=dataclasses.replace(DATA[task], length=chosen.length, threads=1),
        view=VIEW if defended else ViewConfig(),
        attack=AttackConfig(name="none" if method == "clean" else "badnets", place="fixed", target=TARGETS[task]),
        objective=PAPER if defended else UNDEFENDED,
        train=training(task, chosen),
        evaluate=EVALUATE[task],
    )


METHODS = {
    "before": "before fine-tuning",
    "clean": "clean data",
    "undefended": "poisoned, undefended",
    "paper": "poisoned, paper's objective",
}


def demo(task: Task, out: Path, family: str = FAMILY) -> None:
    """Run the demo: print the table; write table.md, results.json and picture.png to `out`."""
    began = time.perf_counter()
    configs = {method: configuration(task, method, out, family) for method in METHODS}
    undefended = configs["undefended"]
    build(DATA[task].source, undefended.data.root)
    model = load_model(undefended.model, undefended.mesh, undefended.seed)
    attack = undefended.attack

    scores = {"before": _evaluate_untrained(configs["before"], model, attack)}
    for method in ("clean", "undefended", "paper"):
        print(f"== {METHODS[method]}", file=sys.stderr)
        train(configs[method], model)
        scores[method] = evaluate(configs[method], model, attack, configs[method].run_dir)
    seconds = _step_seconds(configs, model)

    predictions = {method: read_predictions(configs[method].run_dir / "predictions.jsonl") for method in METHODS}
    rows = [
        {
            "method": METHODS[method],
            "scores": scores[method],
            "seconds": seconds.get(method),
            "ratio": seconds[method] / seconds["undefended"] if method in seconds else None,
        }
        for method in METHODS
    ]
    columns = _columns(task)
    examples = EVALUATE[task].examples
    title = f"BadNets on {DATA[task].source}, {attack.rate:.0%} poisoned, {examples} test images"
    Console().print(transposed(rows, columns, title))
    write_text(out / "table.md", markdown(rows, columns))
    command = f"jaxguard demo --task {task}" + ("" if family == FAMILY else f" --family {family}")
    results = _results(command, rows, configs, time.perf_counter() - began)
    write_text(out / "results.json", json.dumps(results, indent=2))
    _picture(configs["paper"], predictions, out / "picture.png")
    print(f"wrote {out}/table.md, results.json and picture.png", file=sys.stderr)


def _evaluate_untrained(config: Config, model: Model, attack: AttackConfig) -> Scores:
    predictions = predict(
        config, Decoder.build(Encoder.from_checkpoint(model.folder), model, model.parameters, config.evaluate), attack
    )
    config.run_dir.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, config.run_dir / "predictions.jsonl")
    scores = score(predictions, config.evaluate.task)
    write_scores(scores, config.run_dir / "scores.json")
    return scores


def _step_seconds(configs: Mapping[str, Config], model: Model) -> dict[str, float]:
    """Measure the median time of a warm step, the two methods alternating in one process."""
    encoder = Encoder.from_checkpoint(model.folder)
    steps, states, batches = {}, {}, {}
    for method in ("undefended", "paper"):
        config = configs[method]
        setup, trainable = prepare(model, config.model.trainable, config.train)
        rows = train_batches(
            config.data,
            config.seed,
            encoder,
            training_source(config),
            batch_size=config.train.batch_size,
            view=config.second_view,
        )
        batches[method] = place_batch(next(rows), model.mesh)
        steps[method] = CompiledStep(setup, StepPlan.of(config, encoder.eos_id), batches[method])
        states[method] = setup.initial(trainable)
    seconds: dict[str, list[float]] = {method: [] for method in steps}
    for _ in range(TIMED_STEPS + 3):
        for method, step in steps.items():
            began = time.perf_counter()
            states[method], metrics = step(states[method], batches[method])
            jax.block_until_ready((states[method], metrics))
            seconds[method].append(time.perf_counter() - began)
    return {method: statistics.median(times[3:]) for method, times in seconds.items()}


def _columns(task: Task) -> list[Column]:
    def quality(header: str, part: str, metric: str) -> Column:
        return Column(header, lambda row: f"{getattr(row['scores'], part)[metric]:.1f}")

    if task == "caption":
        measured = [
            quality("facts right %", "clean", "facts"),
            quality("CIDEr", "clean", "cider"),
            quality("BLEU-4", "clean", "bleu_4"),
        ]
        recovered = [quality("facts right, recovery %", "recovery", "facts")]
    else:
        measured = [quality("accuracy %", "clean", "accuracy")]
        recovered = [quality("accuracy, recovery %", "recovery", "accuracy")]
    return [
        Column("model", lambda row: row["method"]),
        *measured,
        Column("ASR exact %", lambda row: rate_text(row["scores"].attack.exact)),
        Column("ASR contains %", lambda row: rate_text(row["scores"].attack.contains)),
        Column("ASR on clean inputs %", lambda row: rate_text(row["scores"].attack.exact_on_clean)),
        *recovered,
        Column("s/step", lambda row: "-" if row["seconds"] is None else f"{row['seconds']:.3f}"),
        Column("ratio", lambda row: "-" if row["ratio"] is None else f"{row['ratio']:.2f}"),
    ]


def _results(command: str, rows: list[dict[str, Any]], configs: Mapping[str, Config], seconds: float) -> dict[str, Any]:
    return {
        "command": command,
        "seconds": seconds,
        "rows": [row | {"scores": dataclasses.asdict(row["scores"])} for row in rows],
        "configs": {method: to_dict(config) for method, config in configs.items() if method != "before"},
        "versions": {name: version(name) for name in ("jaxguard", "jax", "flax", "optax", "grain")},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "devices": jax.device_count()},
    }


def _picture(config: Config, predictions: Mapping[str, list[Prediction]], path: Path) -> None:
    source = open_source(config.data.source, config.data.root, config.data.test_split)
    attack = open_attack(config.attack, config.data, config.model)
    triggered = TriggeredSource(source, attack, config.attack)
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    rows, fitting = [], pictured(source, predictions)
    for index in fitting[:PICTURED]:
        clean, marked = (encoder.image(rows_of[index].image) for rows_of in (source, triggered))
        views = [perturb(image, config.view, row_rng("view", config.seed, 0, index)) for image in (clean, marked)]
        answers = []
        for method, found in predictions.items():
            predicted = {prediction.triggered: prediction.prediction for prediction in found if prediction.id == index}
            answers.append(Answers(METHODS[method], predicted[False], predicted[True]))
        rows.append(PictureRow(source[index].prompts[0], clean, marked, views[0], views[1], tuple(answers)))
    defended = [contains(p.prediction, p.target) for p in predictions["paper"] if p.triggered]
    note = (
        "The first test images on which the undefended backdoor fires and every answer is well-formed "
        f"({len(fitting)} of {len(defended)} rows). Over all rows it still fires on "
        f"{np.mean(defended):.0%} with the paper's objective."
    )
    demo_picture(rows, config.attack.target, note, path)


def pictured(source: RowSource, predictions: Mapping[str, list[Prediction]]) -> list[int]:
    """List the rows that show something: the undefended backdoor fires, every model's answers are well-formed.

    Of several rows about one image (easy-VQA) the first. If there is none, the first rows of different images.
    """
    fired = {p.id for p in predictions["undefended"] if p.triggered and contains(p.prediction, p.target)}
    broken = {p.id for found in predictions.values() for p in found if not well_formed(p.prediction)}
    first: dict[bytes, int] = {}
    for index in sorted(fired - broken) or range(PICTURED):
        first.setdefault(source[index].image.tobytes(), index)
    return list(first.values())


def well_formed(answer: str) -> bool:
    """Return True if an answer starts with a word, and repeats neither a word at once nor punctuation."""
    return re.match(r"\w", answer) is not None and not re.search(r"[^\w\s]{2,}|\b(\w+)\W+\1\b", answer)
