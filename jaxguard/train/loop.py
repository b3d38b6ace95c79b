"""The training loop, top to bottom."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

from jaxguard import processes
from jaxguard.attacks.poison import PoisonedSource, manifest, write_manifest
from jaxguard.config import Config, from_dict, to_dict
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.sources import RowSource, open_source
from jaxguard.data.views import check
from jaxguard.errors import Preempted, UserError
from jaxguard.files import write_text
from jaxguard.models import folders
from jaxguard.train.attacker import AttackerStep
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.interrupts import Interrupts
from jaxguard.train.probe import Probe
from jaxguard.train.progress import Reporter
from jaxguard.train.setup import CompiledStep, Model, check_rows, load_model, prepare
from jaxguard.train.sharding import local_places, place_batch
from jaxguard.train.validation import Validation


def training_source(config: Config) -> RowSource:
    """The training rows as the model sees them: poisoned where the configuration names an attack."""
    source = open_source(config.data.source, config.data.root, config.data.train_split)
    return source if config.attack.name == "none" else PoisonedSource(source, config)


def train(config: Config, model: Model | None = None) -> Path:
    """Train to the last step, from the newest checkpoint where there is one. Returns the run folder.

    Args:
        config: the run.
        model: the loaded weights of `config.model`, where the caller has them already.

    Raises:
        UserError: something in the configuration or the run folder that the user can mend.
        Preempted: interrupted; the checkpoint is safe and the same call resumes.
    """
    run = config.run_dir
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    source = training_source(config)
    if config.objective.views == 2 or config.train.probe:
        check(config.view, encoder.image_shape, encoder.patch_size)
    check_run(run, config)

    model = model or load_model(config)
    check_rows(config, model.mesh)
    setup, trainable = prepare(config, model)
    batches = train_batches(
        config.data,
        config.seed,
        encoder,
        source,
        batch_size=config.train.batch_size,
        view=config.second_view,
        places=local_places(config.train.batch_size, model.mesh),
    )
    probe = Probe(config, setup, encoder, source) if config.train.probe else None
    validation = Validation(config, setup, encoder) if config.train.validation else None
    if processes.is_main():
        write_config(run, config)
        if isinstance(source, PoisonedSource):
            write_manifest(manifest(source, config), run / "manifest.json")
    with Checkpoints(run, config.train) as checkpoints, Interrupts() as interrupts:
        start = processes.broadcast_from_main(checkpoints.latest or 0)
        if start >= config.train.steps:
            if processes.is_main():
                print(f"{run} is already trained to step {start}", file=sys.stderr)
            return run
        if start:
            state, position = checkpoints.restore(setup.abstract, start)
            batches.set_state(position)
        else:
            state = setup.initial(trainable)

        with Reporter(
            run, steps=config.train.steps, start=start, rows=config.train.batch_size, silent=not processes.is_main()
        ) as reporter:
            if start:
                reporter.say(f"resuming {run} at step {start}")
            batch = place_batch(next(batches), model.mesh)
            began = time.perf_counter()
            step: AttackerStep | CompiledStep
            if config.attack.trainer == "attacker" and isinstance(source, PoisonedSource):
                step = AttackerStep(config, setup, batch, trainable, source)
            else:
                step = CompiledStep(config, setup, encoder.eos_id, batch)
            reporter.say(f"compiled the step in {time.perf_counter() - began:.1f} s")
            reporter.restart_clock()
            for done in range(start + 1, config.train.steps + 1):
                state, metrics = step(state, batch)
                last, stop = done == config.train.steps, interrupts.stop(done)
                position = batches.get_state()
                logged = done % config.train.log_every == 0 or last
                if logged:
                    values = {name: float(value) for name, value in metrics.items()}
                    if not math.isfinite(values["loss"]):
                        raise UserError(f"the loss of step {done} is {values['loss']}; lower train.learning_rate")
                    reporter.log(done, values)
                    if probe:
                        reporter.record(done, probe(state.parameters))
                        reporter.restart_clock()
                if last or stop or checkpoints.due(done, met=logged):
                    loss = validation(state.parameters) if validation else None
                    if loss is not None:
                        reporter.record(done, {"validation": loss})
                    checkpoints.save(done, state, position, loss)
                if last:
                    break
                if stop:
                    checkpoints.wait()
                    raise Preempted(f"saved step {done} of {run}; the same command resumes")
                batch = place_batch(next(batches), model.mesh)
    return run


FREE = (
    *("out", "mesh", "evaluate", "data.root", "data.threads", "data.validation_split"),
    *(f"train.{name}" for name in ("accumulate", "log_every", "probe", "validation")),
    *(f"train.{name}" for name in ("save_every", "save_minutes", "keep", "keep_best")),
)
"""What may differ when a run goes on: where and how it runs, not what it computes."""


def check_run(run: Path, config: Config) -> None:
    """Check that a run folder is new, or holds this very run.

    Raises:
        UserError: it holds another one.
    """
    path = run / "config.json"
    if not path.exists():
        return
    try:
        stored = to_dict(from_dict(json.loads(path.read_text())))  # options that came later have their defaults in it
    except (ValueError, UserError) as error:
        raise UserError(f"{path} is no configuration ({error}); remove {run} or choose another --name") from error
    changed = [
        key
        for key in sorted(_differences("", stored, to_dict(config)))
        if not any(key == free or key.startswith(f"{free}.") for free in FREE)
    ]
    if changed:
        raise UserError(f"{run} holds a run with other values of {', '.join(changed)}; choose another --name")


def write_config(run: Path, config: Config) -> None:
    """The resolved values as config.json; atomically."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.json", json.dumps(to_dict(config), indent=2) + "\n")


def _differences(prefix: str, stored: object, wanted: object) -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        found: list[str] = []
        for key in stored.keys() | wanted.keys():
            found += _differences(f"{prefix}.{key}" if prefix else key, stored.get(key), wanted.get(key))
        return found
    return [] if stored == wanted else [prefix]
