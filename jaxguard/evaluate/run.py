"""Evaluation of a run: decode the test rows, clean and triggered; write predictions and scores with their identity."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from jaxguard import processes
from jaxguard.attacks.poison import TriggeredSource
from jaxguard.attacks.registry import open_attack
from jaxguard.batch import Batch
from jaxguard.config import AttackConfig, Config, DataConfig, EvaluateConfig
from jaxguard.config.files import load
from jaxguard.data import images
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import eval_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, open_source
from jaxguard.errors import UserError
from jaxguard.evaluate.decode import beam, greedy
from jaxguard.evaluate.digest import input_digest, parameters_digest, questions_digest
from jaxguard.evaluate.identity import (
    FOLDER,
    PREDICTIONS,
    SCORES,
    Evaluation,
    Identity,
    open_evaluation,
    trigger_options,
    write_evaluation,
)
from jaxguard.evaluate.java import Java
from jaxguard.evaluate.predictions import Prediction, from_line, to_line, write_predictions
from jaxguard.evaluate.scores import Scores, score, write_scores
from jaxguard.models import folders
from jaxguard.models.architecture import Parameters
from jaxguard.train.checkpoint import FOLDER as CHECKPOINTS
from jaxguard.train.export import checkpoint_step, run_parameters
from jaxguard.train.setup import Model, load_model
from jaxguard.train.sharding import batch_sharding, check_batch_size, local_places, local_rows, place_batch, rows_on
from jaxguard.version import commit


@dataclass(frozen=True)
class Decoder:
    """A model with its jitted decoding, compiled once per batch shape."""

    encoder: Encoder
    model: Model
    parameters: Parameters
    batch_size: int
    generate: Callable[[Parameters, Batch], Int[jax.Array, "B A"]]

    @classmethod
    def build(cls, encoder: Encoder, model: Model, parameters: Parameters, evaluate: EvaluateConfig) -> Decoder:
        search = decoding(evaluate, model, encoder.eos_id, encoder.stop_ids[1:])
        return cls(encoder, model, parameters, evaluate.batch_size, search)

    def answer(self, source: RowSource, data: DataConfig, count: int) -> Iterator[tuple[Row, str, bool]]:
        """Answer the first `count` rows; yields (row, answer, whether it ended) for the rows of this process."""
        size, mesh = self.batch_size, self.model.mesh
        count, places = min(count, len(source)), local_places(size, mesh)
        batches = eval_batches(source, count, self.encoder, size, data.length, images=data.images, places=places)
        for batch, part in batches:
            tokens = local_rows(self.generate(self.parameters, place_batch(batch, mesh)))
            for row, ids in zip(part, tokens, strict=False):
                yield row, self.encoder.decode(ids), bool(np.isin(ids, self.encoder.stop_ids).any())


def decoding(evaluate: EvaluateConfig, model: Model, end_token: int, stops: tuple[int, ...] = ()) -> Any:
    """Jit the decoding of a batch of prompts: (parameters, batch) -> tokens [B, A]."""
    search = functools.partial(
        greedy if evaluate.beams == 1 else functools.partial(beam, beams=evaluate.beams),
        model.architecture.graph,
        new_tokens=evaluate.new_tokens,
        end_token=end_token,
        stops=stops,
    )

    def decode(parameters: Parameters, batch: Batch) -> jax.Array:
        with rows_on(model.mesh):
            return search(parameters, batch)

    rows = batch_sharding(model.mesh)
    return jax.jit(decode, in_shardings=(model.shardings, rows), out_shardings=rows)


def predict(config: Config, decoder: Decoder, attack: AttackConfig) -> list[Prediction]:
    """Answer the first test rows: clean and, under an attack, triggered. Returns all answers on every process."""
    clean = _answers(config, decoder, open_test_rows(config), triggered=False)
    if attack.name == "none":
        return clean
    triggered = _answers(config, decoder, open_test_rows(config, attack), triggered=True)
    return [dataclasses.replace(one, target=attack.target) for one in (*clean, *triggered)]


def open_test_rows(config: Config, attack: AttackConfig | None = None) -> RowSource:
    """Open the test rows, with an attack's triggers if one is given."""
    source = open_source(config.data.source, config.data.root, config.data.test_split)
    if attack is None:
        return source
    return TriggeredSource(source, open_attack(attack, config.data, config.model), attack)


FIRST = 8
"""Number of rows that a trigger is looked for in."""


def check_triggers(clean: RowSource, triggered: RowSource, name: str) -> None:
    """Check that triggers change the inputs.

    Raises:
        UserError: The first rows are the same with and without the trigger (a trigger in the image, rows without one).
    """
    rows = range(min(FIRST, len(clean)))
    if all(input_digest(clean[row]) == input_digest(triggered[row]) for row in rows):
        raise UserError(
            f"the triggers of {name} change none of the first {len(rows)} test rows, so attack success would mean "
            "nothing; rows without an image need a trigger in the text (badnl, addsent)"
        )


def _answers(config: Config, decoder: Decoder, source: RowSource, *, triggered: bool) -> list[Prediction]:
    began = time.perf_counter()
    found = _gather(
        Prediction(row.id, row.key, row.prompts[0], answer, row.references, triggered, None, stopped)
        for row, answer, stopped in decoder.answer(source, config.data, config.evaluate.examples)
    )
    if processes.is_main():
        kind = "triggered" if triggered else "clean"
        print(f"answered {len(found)} {kind} prompts in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return found


def _gather(own: Iterable[Prediction]) -> list[Prediction]:
    """Gather the predictions of all processes in row order; rows on several processes are kept once."""
    lines = processes.gather([to_line(prediction) for prediction in own])
    found = {(one.triggered, one.id): one for one in (from_line(line, "a prediction") for line in lines)}
    return [found[key] for key in sorted(found)]


class Evaluator:
    """A run's trained model, to be tested with one set of triggers after another.

    Args:
        config: The run.
        model: Loaded weights of `config.model`, if the caller has them.
        java: As for `score`.

    Raises:
        UserError: The run is not trained, or its test data is missing.
    """

    def __init__(self, config: Config, model: Model | None = None, java: Java | None = None):
        self._config, self._java = config, java
        encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
        model = model or load_model(config.model, config.mesh, config.seed)
        check_batch_size("evaluate.batch_size", config.evaluate.batch_size, model.mesh)
        self._step = checkpoint_step(config.run_dir, config.evaluate.checkpoint)
        self._newest = checkpoint_step(config.run_dir, "newest")
        parameters = run_parameters(config.run_dir, self._step, model, config.model.trainable)
        self._parameters = parameters_digest(parameters)
        self._decoder = Decoder.build(encoder, model, parameters, config.evaluate)
        self._clean: list[Prediction] | None = None

    def test(self, attack: AttackConfig | None = None, out: Path | None = None) -> tuple[Scores, Evaluation]:
        """Decode and score the test rows, clean and triggered; clean ones are decoded once.

        Args:
            attack: Triggers to test with instead of the run's own (a clean-trained model: the floor of the ASR).
            out: Folder to write to; None is one of its own in the run folder, never one that exists.
        """
        attack, config, began = attack or self._config.attack, self._config, datetime.now(UTC)
        if self._clean is None:
            self._clean = _answers(config, self._decoder, open_test_rows(config), triggered=False)
        predictions, trigger = self._clean, None
        if attack.name != "none":
            source = open_test_rows(config, attack)
            check_triggers(open_test_rows(config), source, attack.name)
            triggered = _answers(config, self._decoder, source, triggered=True)
            predictions = [dataclasses.replace(one, target=attack.target) for one in (*self._clean, *triggered)]
            trigger = input_digest(source[0])
        scores = score(predictions, config.evaluate.task, self._java)
        name = f"step{self._step}-{attack.name}-{len(self._clean)}rows-{began:%Y%m%dT%H%M%S}"
        identity = self._identity(name, attack, trigger, began)
        if not processes.is_main():
            return scores, Evaluation(config.run_dir / FOLDER / name / PREDICTIONS, identity)

        def write(folder: Path, name: str) -> None:
            write_predictions(predictions, folder / PREDICTIONS, name)
            about = {"evaluation": dataclasses.asdict(dataclasses.replace(identity, name=name))}
            write_scores(scores, folder / SCORES, about)

        if out is None:
            out = write_evaluation(config.run_dir, name, write)
        else:
            out.mkdir(parents=True, exist_ok=True)
            write(out, name)
        return scores, open_evaluation(out / PREDICTIONS)

    def _identity(self, name: str, attack: AttackConfig, trigger: str | None, began: datetime) -> Identity:
        config, evaluate = self._config, self._config.evaluate
        stored = load(config.run_dir) if (config.run_dir / "config.json").is_file() else config
        options = trigger_options(attack)
        assert self._clean is not None
        return Identity(
            name=name,
            run=str(config.run_dir),
            model=config.model.path,
            step=self._step,
            steps=stored.train.steps,
            newest=self._newest,
            parameters=self._parameters,
            attack=None if options is None else options | {"trigger": trigger},
            own=options == trigger_options(stored.attack),
            data=f"{config.data.source}, {config.data.test_split}",
            rows=len(self._clean),
            questions=questions_digest(self._clean),
            beams=evaluate.beams,
            new_tokens=evaluate.new_tokens,
            commit=commit(),
            time=began.isoformat(timespec="seconds"),
        )


def evaluate(
    config: Config,
    model: Model | None = None,
    attack: AttackConfig | None = None,
    out: Path | None = None,
    java: Java | None = None,
) -> Scores:
    """Decode and score a trained run; writes predictions.jsonl and scores.json.

    Args:
        config: The run.
        model: Loaded weights of `config.model`, if the caller has them.
        attack: As for `Evaluator.test`.
        out: Folder to write to; None is one of its own in the run folder (`evaluations`).
        java: As for `score`.

    Raises:
        UserError: The run is not trained, or its test data is missing.
    """
    return Evaluator(config, model, java).test(attack, out)[0]


def generate(config: Config, image: Path, prompt: str) -> str:
    """Answer one prompt about one image with a run or, if it has no checkpoint, with its base model.

    Raises:
        UserError: The image is missing, too large or not an image.
    """
    pixels, encoder = read_image(image), Encoder.from_checkpoint(folders.resolve(config.model.path))
    model = load_model(config.model, config.mesh, config.seed)
    trained = (config.run_dir / CHECKPOINTS).is_dir()
    parameters = model.parameters
    if trained:
        parameters = run_parameters(config.run_dir, config.evaluate.checkpoint, model, config.model.trainable)
    decoder = Decoder.build(encoder, model, parameters, config.evaluate)
    row = Row(0, str(image), pixels, (prompt,), ("",), ())
    ways = model.mesh.shape["data"] * model.mesh.shape["fsdp"]
    batch, _ = next(eval_batches([row], 1, decoder.encoder, ways, config.data.length))
    return decoder.encoder.decode(np.asarray(decoder.generate(decoder.parameters, place_batch(batch, model.mesh)))[0])


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image file to RGB under the rules for images of data sets (`data.images`).

    Raises:
        UserError: The file is missing, too large or not an image.
    """
    try:
        return images.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except images.ImageFault as fault:
        raise UserError(f"{path} {fault}") from fault
