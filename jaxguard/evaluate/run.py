"""Evaluate a run: decode the test rows, clean and triggered, write them as predictions.jsonl, then score them."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxguard import processes
from jaxguard.attacks.poison import TriggeredSource
from jaxguard.batch import Batch
from jaxguard.config import AttackConfig, Config
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
from jaxguard.models.architecture import Parameters
from jaxguard.train.checkpoint import FOLDER
from jaxguard.train.export import run_parameters
from jaxguard.train.setup import Model, load_model
from jaxguard.train.sharding import batch_sharding, check_batch_size, local_places, local_rows, place_batch, rows_on


@dataclass(frozen=True)
class Decoder:
    """A model ready to answer: jitted once for one batch shape."""

    encoder: Encoder
    model: Model
    parameters: Parameters
    generate: Callable[[Parameters, Batch], jax.Array]

    @classmethod
    def build(cls, config: Config, model: Model, parameters: Parameters) -> Decoder:
        encoder = Encoder.from_checkpoint(model.folder)
        return cls(encoder, model, parameters, decoding(config, model, encoder.eos_id))

    def answer(self, config: Config, source: RowSource, count: int) -> Iterator[tuple[Row, str]]:
        """(row, answer) of those of the first `count` rows that fall to this process."""
        size, mesh = config.evaluate.batch_size, self.model.mesh
        count, places = min(count, len(source)), local_places(size, mesh)
        batches = eval_batches(
            source, count, self.encoder, size, config.data.length, images=config.data.images, places=places
        )
        for batch, part in batches:
            tokens = local_rows(self.generate(self.parameters, place_batch(batch, mesh)))
            yield from ((row, self.encoder.decode(ids)) for row, ids in zip(part, tokens, strict=False))


def decoding(config: Config, model: Model, end_token: int) -> Any:
    """The jitted decoding of a batch of prompts: (parameters, batch) -> tokens."""
    beams = config.evaluate.beams
    search = functools.partial(
        greedy if beams == 1 else functools.partial(beam, beams=beams),
        model.architecture.graph,
        new_tokens=config.evaluate.new_tokens,
        end_token=end_token,
    )

    def decode(parameters: Parameters, batch: Batch) -> jax.Array:
        with rows_on(model.mesh):
            return search(parameters, batch)

    rows = batch_sharding(model.mesh)
    return jax.jit(decode, in_shardings=(model.shardings, rows), out_shardings=rows)


def predict(config: Config, decoder: Decoder, attack: AttackConfig) -> list[Prediction]:
    """Answers to the first test rows as they are and, where there is an attack, triggered; on every process all."""
    source = open_source(config.data.source, config.data.root, config.data.test_split)
    began = time.perf_counter()
    target = None if attack.name == "none" else attack.target
    attacked = dataclasses.replace(config, attack=attack)
    views = [(source, False)] + ([(TriggeredSource(source, attacked), True)] if target is not None else [])
    predictions = _gathered(
        Prediction(row.id, row.key, row.prompts[0], answer, row.references, triggered, target)
        for view, triggered in views
        for row, answer in decoder.answer(config, view, config.evaluate.examples)
    )
    if processes.is_main():
        seconds = time.perf_counter() - began
        print(f"answered {len(predictions)} prompts in {seconds:.1f} s", file=sys.stderr)
    return predictions


def _gathered(own: Iterable[Prediction]) -> list[Prediction]:
    """Those of every process, in the order of their rows; a row that several processes hold comes once."""
    lines = processes.gather([to_line(prediction) for prediction in own])
    found = {(one.triggered, one.id): one for one in (from_line(line, "an answer") for line in lines)}
    return [found[place] for place in sorted(found)]


def evaluate(
    config: Config,
    model: Model | None = None,
    attack: AttackConfig | None = None,
    out: Path | None = None,
    java: Java | None = None,
) -> Scores:
    """Decode and score a trained run; writes predictions.jsonl and scores.json.

    Args:
        config: the run.
        model: the loaded weights of `config.model`, where the caller has them already.
        attack: the triggers to test with, where they are not those of the run (a clean-trained model's floor).
        out: the folder to write to, where it is not the run's.
        java: as for `score`.

    Raises:
        UserError: the run is not trained, or its test data is missing.
    """
    model = model or load_model(config.model, config.mesh, config.seed)
    check_batch_size("evaluate.batch_size", config.evaluate.batch_size, model.mesh)
    decoder = Decoder.build(
        config, model, run_parameters(config.run_dir, config.evaluate.checkpoint, model, config.model.trainable)
    )
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
    """The greedy answer of a run (or, where the run has no checkpoint, of its base model) to one image and prompt.

    Raises:
        UserError: the image is missing, too large or not an image.
    """
    pixels = read_image(image)
    model = load_model(config.model, config.mesh, config.seed)
    trained = (config.run_dir / FOLDER).is_dir()
    decoder = Decoder.build(
        config,
        model,
        run_parameters(config.run_dir, config.evaluate.checkpoint, model, config.model.trainable)
        if trained
        else model.parameters,
    )
    row = Row(0, str(image), pixels, (prompt,), ("",), ())
    ways = model.mesh.shape["data"] * model.mesh.shape["fsdp"]
    batch, _ = next(eval_batches([row], 1, decoder.encoder, ways, config.data.length))
    return decoder.encoder.decode(np.asarray(decoder.generate(decoder.parameters, place_batch(batch, model.mesh)))[0])


def read_image(path: Path) -> np.ndarray:
    """RGB pixels of an image file, uint8 [H, W, 3], under the rules for images of data sets (`data.images`).

    Raises:
        UserError: the file is missing, too large or not an image.
    """
    try:
        return images.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except images.ImageFault as fault:
        raise UserError(f"{path} {fault}") from fault
