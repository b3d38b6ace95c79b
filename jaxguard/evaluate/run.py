"""Evaluation of a run: decode the test rows, clean and triggered; write predictions.jsonl; score it."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
from jaxguard.data import images
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import eval_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, open_source
from jaxguard.errors import UserError
from jaxguard.evaluate.decode import beam, greedy
from jaxguard.evaluate.java import Java
from jaxguard.evaluate.predictions import Prediction, from_line, to_line, write_predictions
from jaxguard.evaluate.scores import Scores, score, write_scores
from jaxguard.models import folders
from jaxguard.models.architecture import Parameters
from jaxguard.train.checkpoint import FOLDER
from jaxguard.train.export import run_parameters
from jaxguard.train.setup import Model, load_model
from jaxguard.train.sharding import batch_sharding, check_batch_size, local_places, local_rows, place_batch, rows_on


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

    def answer(self, source: RowSource, data: DataConfig, count: int) -> Iterator[tuple[Row, str]]:
        """Answer the first `count` rows; yields (row, answer) for the rows of this process."""
        size, mesh = self.batch_size, self.model.mesh
        count, places = min(count, len(source)), local_places(size, mesh)
        batches = eval_batches(source, count, self.encoder, size, data.length, images=data.images, places=places)
        for batch, part in batches:
            tokens = local_rows(self.generate(self.parameters, place_batch(batch, mesh)))
            yield from ((row, self.encoder.decode(ids)) for row, ids in zip(part, tokens, strict=False))


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
    source = open_source(config.data.source, config.data.root, config.data.test_split)
    began = time.perf_counter()
    target = None if attack.name == "none" else attack.target
    inputs: list[tuple[RowSource, bool]] = [(source, False)]
    if target is not None:
        opened = open_attack(attack, config.data, config.model)
        inputs.append((TriggeredSource(source, opened, attack), True))
    predictions = _gather(
        Prediction(row.id, row.key, row.prompts[0], answer, row.references, triggered, target)
        for rows, triggered in inputs
        for row, answer in decoder.answer(rows, config.data, config.evaluate.examples)
    )
    if processes.is_main():
        seconds = time.perf_counter() - began
        print(f"answered {len(predictions)} prompts in {seconds:.1f} s", file=sys.stderr)
    return predictions


def _gather(own: Iterable[Prediction]) -> list[Prediction]:
    """Gather the predictions of all processes in row order; rows on several processes are kept once."""
    lines = processes.gather([to_line(prediction) for prediction in own])
    found = {(one.triggered, one.id): one for one in (from_line(line, "a prediction") for line in lines)}
    return [found[key] for key in sorted(found)]


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
        attack: Triggers to test with instead of the run's own (a clean-trained model: the floor of the ASR).
        out: Folder to write to instead of the run's.
        java: As for `score`.

    Raises:
        UserError: The run is not trained, or its test data is missing.
    """
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    model = model or load_model(config.model, config.mesh, config.seed)
    check_batch_size("evaluate.batch_size", config.evaluate.batch_size, model.mesh)
    parameters = run_parameters(config.run_dir, config.evaluate.checkpoint, model, config.model.trainable)
    decoder = Decoder.build(encoder, model, parameters, config.evaluate)
    folder = config.run_dir if out is None else out
    predictions = predict(config, decoder, attack or config.attack)
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(predictions, folder / "predictions.jsonl")
    scores = score(predictions, config.evaluate.task, java)
    if processes.is_main():
        write_scores(scores, folder / "scores.json")
    return scores


def generate(config: Config, image: Path, prompt: str) -> str:
    """Answer one prompt about one image with a run or, if it has no checkpoint, with its base model.

    Raises:
        UserError: The image is missing, too large or not an image.
    """
    pixels, encoder = read_image(image), Encoder.from_checkpoint(folders.resolve(config.model.path))
    model = load_model(config.model, config.mesh, config.seed)
    trained = (config.run_dir / FOLDER).is_dir()
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
