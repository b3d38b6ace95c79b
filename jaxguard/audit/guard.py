"""Training that leaves out what nothing but a trigger explains (`guard`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from jaxguard import processes
from jaxguard.audit.evidence import Sight
from jaxguard.audit.findings import audit_shown
from jaxguard.config import Config
from jaxguard.data.counted import Counted
from jaxguard.data.encode import Encoder
from jaxguard.data.epochs import in_steps
from jaxguard.errors import UserError
from jaxguard.files import write_text
from jaxguard.models import folders
from jaxguard.train import loop
from jaxguard.train.setup import Model

FOLDER = "guard"
"""Folder of the guard's findings, in that of the run."""


def train(config: Config, model: Model | None = None) -> Path:
    """Train a run, guarded if its configuration says so; otherwise as `jaxguard.train.loop.train`."""
    config = in_steps(config)
    if not config.guard.active:
        return loop.train(config, model)
    return loop.train(config, model, decide(config))


def decide(config: Config) -> Counted:
    """Decide which answer tokens a run learns; read from the run's folder where that was done before.

    Raises:
        UserError: the run folder holds another run, or the reference does not see the images.
    """
    folder = config.run_dir / FOLDER
    loop.check_run(config.run_dir, config)
    if processes.broadcast_from_main((folder / "tokens.npz").exists()):
        with np.load(folder / "tokens.npz", allow_pickle=False) as stored:
            return Counted(stored["rows"], stored["pairs"], stored["counted"])
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    findings = audit_shown(config, encoder, loop.training_source(config))
    check_sight(config, findings.sight)
    evidence, counted = findings.evidence, ~findings.left_out
    if processes.is_main():
        loop.write_config(config.run_dir, config)
        folder.mkdir(parents=True, exist_ok=True)
        found = findings.summary(encoder)
        write_text(folder / "summary.json", json.dumps(found, indent=1) + "\n")
        print(f"guard: leaves out {found['tokens left out']} of {found['tokens']} answer tokens", file=sys.stderr)
        for group in found["groups"]:
            if group["convicted"]:
                print(f"guard: {group['phrase']!r} in {group['answers']} answers is suspicious", file=sys.stderr)
        partial = folder / "partial.npz"
        np.savez_compressed(partial, rows=evidence.rows, pairs=evidence.pairs, counted=counted)
        partial.replace(folder / "tokens.npz")
    return Counted(evidence.rows, evidence.pairs, counted)


def check_sight(config: Config, sight: Sight | None) -> None:
    """Check that the reference sees the images of the rows, if they have any.

    Raises:
        UserError: it does not.
    """
    if sight is not None and not sight.sees:
        raise UserError(
            f"guard: {config.model.path} does not see these images: with another row's image the NLL of an answer "
            f"token rises by {sight.mean:.3f} nats [{sight.low:.3f}, {sight.high:.3f}]; start from a model that sees "
            "them, or train with --guard.no_active"
        )
