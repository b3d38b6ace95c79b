"""The training loop, top to bottom."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from jaxguard import processes
from jaxguard.attacks.poison import PoisonedSource, manifest, write_manifest
from jaxguard.attacks.registry import open_attack
from jaxguard.config import Config, from_dict, to_dict
from jaxguard.data.counted import Counted
from jaxguard.data.encode import Encoder
from jaxguard.data.epochs import in_steps
from jaxguard.data.pipeline import train_batches
from jaxguard.data.sources import RowSource, open_source, text_row
from jaxguard.data.views import check
from jaxguard.errors import Preempted, UserError
from jaxguard.files import write_text
from jaxguard.models import folders
from jaxguard.objective.base import Objective
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.interrupts import Interrupts
from jaxguard.train.metrics import Watch
from jaxguard.train.probe import Probe
from jaxguard.train.progress import Reporter
from jaxguard.train.setup import CompiledStep, Model, check_rows, load_model, prepare
from jaxguard.train.sharding import local_places, place_batch, replicated
from jaxguard.train.step import StepPlan
from jaxguard.train.validation import Validation


def training_source(config: Config) -> RowSource:
    """Open the training rows as the model sees them: poisoned if the configuration names an attack."""
    source = open_source(config.data.source, config.data.root, config.data.train_split)
    if config.attack.name == "none":
        return source
    return PoisonedSource(source, open_attack(config.attack, config.data, config.model), config.attack)


def train(config: Config, model: Model | None = None, counted: Counted | None = None) -> Path:
    """Train to the last step, from the newest checkpoint where there is one. Returns the run folder.

    Args:
        config: the run.
        model: the loaded weights of `config.model`, if the caller has them already and keeps them.
        counted: which answer tokens are learnt; None: all. The same at every call for a run.

    Raises:
        UserError: something in the configuration or the run folder that the user can mend.
        Preempted: interrupted; the checkpoint is safe and the same call resumes.
    """
    config = in_steps(config)
    run, steps, views = config.run_dir, config.train.steps, config.objective.views
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    source = training_source(config)
    if views == 2 or config.train.probe:
        check(config.view, encoder.image_shape, encoder.patch_size)
    check_run(run, config)

    plan = StepPlan.of(config, encoder.eos_id)
    keep_weights = model is not None or plan.objective.needs.reference is not None
    model = model or load_model(config.model, config.mesh, config.seed)
    mesh = model.mesh
    check_rows(mesh, config.train, config.view.rows if views == 2 else None)
    setup, trainable = prepare(model, config.model.trainable, config.train, memory_shape(plan.objective, source))
    del model  # so that the state can take over its weights
    batches = train_batches(
        config.data,
        config.seed,
        encoder,
        source,
        batch_size=config.train.batch_size,
        view=config.second_view,
        places=local_places(config.train.batch_size, mesh),
        counted=counted,
    )
    data, seed = config.data, config.seed
    probe = validation = None
    if config.train.probe:
        probe = Probe(setup, encoder, source, data=data, view=config.view, seed=seed, train=config.train)
    if config.train.validation:
        validation = Validation(setup, encoder, data=data, seed=seed, train=config.train)
    if processes.is_main():
        write_config(run, config)
        if isinstance(source, PoisonedSource):
            write_manifest(manifest(source, config.data), run / "manifest.json")
    with Checkpoints(run, config.train) as checkpoints, Interrupts() as interrupts:
        start = processes.broadcast_from_main(checkpoints.latest or 0)
        if start >= steps:
            if processes.is_main():
                print(f"{run} is already trained to step {start}", file=sys.stderr)
            return run
        reference = trainable if keep_weights else None
        if start:
            del trainable
            state, position = checkpoints.restore(setup.abstract, start)
            batches.set_state(position)
        else:
            state = setup.initial(trainable, take=not keep_weights)
            del trainable

        rows, silent, watch = config.train.batch_size, not processes.is_main(), Watch(config.objective)
        with Reporter(run, steps=steps, start=start, rows=rows, silent=silent) as reporter:
            if start:
                reporter.say(f"resuming {run} at step {start}")
            batch = place_batch(next(batches), mesh)
            began = time.perf_counter()
            step = CompiledStep(setup, plan, batch, reference=reference, poisoned=poisoned_rows(source, mesh))
            reporter.say(f"compiled the step in {time.perf_counter() - began:.1f} s")
            reporter.restart_clock()
            for done in range(start + 1, steps + 1):
                state, metrics = step(state, batch)
                last, stop = done == steps, interrupts.stop(done)
                position = batches.get_state()
                logged = done % config.train.log_every == 0 or last
                if logged:
                    values = {name: float(value) for name, value in metrics.items()}
                    if not math.isfinite(values["loss"]):
                        raise UserError(f"the loss of step {done} is {values['loss']}; lower train.learning_rate")
                    reporter.log(done, values)
                    for warning in watch(values, last=last):
                        reporter.say(f"warning: {warning}")
                    if probe:
                        reporter.record(done, probe(state.parameters))
                        reporter.restart_clock()
                if last or stop or checkpoints.due(done, synchronised=logged):
                    loss = validation(state.parameters) if validation else None
                    if loss is not None:
                        reporter.record(done, {"validation": loss})
                    checkpoints.save(done, state, position, loss)
                if last:
                    break
                if stop:
                    checkpoints.wait()
                    raise Preempted(f"saved step {done} of {run}; the same command resumes")
                batch = place_batch(next(batches), mesh)
    return run


def poisoned_rows(source: RowSource, mesh: Mesh) -> Bool[Array, " N"] | None:
    """True for the poisoned rows of a source, by row id, on every device; None where none can be.

    The step hands this to attackers' objectives alone (`Needs.labels`); batches carry no labels.
    """
    if not isinstance(source, PoisonedSource):
        return None
    poisoned = np.zeros(len(source), bool)
    poisoned[source.ids] = True
    return jax.device_put(poisoned, replicated(mesh))


def memory_shape(objective: Objective, source: RowSource) -> tuple[int, int, int] | None:
    """Rows, pairs of a row at most, and numbers that the objective keeps of each; None where it keeps nothing."""
    if not objective.needs.memory:
        return None
    texts = (text_row(source, index) for index in range(len(source)))
    pairs = max(1 if row.multi_turn else len(row.prompts) for row in texts)
    return len(source), pairs, objective.needs.memory


FREE = (
    *("out", "mesh", "evaluate", "data.root", "data.threads", "data.validation_split"),
    *(f"train.{name}" for name in ("accumulate", "log_every", "probe", "validation")),
    *(f"train.{name}" for name in ("save_every", "save_minutes", "keep", "keep_best")),
)
"""What may differ when a run goes on: where and how it runs, not what it computes."""


def check_run(run: Path, config: Config) -> None:
    """Check that a run folder is new, or holds this run, or one of fewer steps that this one begins with.

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
    if changed == ["train.steps"]:
        _check_longer(run, stored["train"]["steps"], config)
    elif changed:
        raise UserError(f"{run} holds a run with other values of {', '.join(changed)}; choose another --name")


def _check_longer(run: Path, steps: int, config: Config) -> None:
    """Check that more steps than a run had go on with its course, whose schedules must not depend on their number."""
    train, schedule = config.train, config.objective.cross_view_schedule
    if train.steps < steps:
        raise UserError(f"{run} holds a run of {steps} steps, and train.steps is {train.steps}: choose another --name")
    reasons = []
    if train.final_lr_ratio != 1 or train.warmup >= steps:
        reasons.append("its learning rate (a course over all steps unless train.final_lr_ratio is 1)")
    if config.objective.cross_view_weight and schedule != "constant":
        reasons.append(f"its lambda (objective.cross_view_schedule {schedule})")
    if reasons:
        raise UserError(
            f"{run} holds a run of {steps} steps, and {train.steps} would have changed {' and '.join(reasons)}: choose "
            f"another --name, or start one from its weights (jaxguard export {run} --out DIR; --model.path DIR)"
        )


def write_config(run: Path, config: Config) -> None:
    """Write the resolved values as config.json, atomically."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.json", json.dumps(to_dict(config), indent=2) + "\n")


def _differences(prefix: str, stored: object, wanted: object) -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        found: list[str] = []
        for key in stored.keys() | wanted.keys():
            found += _differences(f"{prefix}.{key}" if prefix else key, stored.get(key), wanted.get(key))
        return found
    return [] if stored == wanted else [prefix]
