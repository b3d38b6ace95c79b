"""Training that leaves out what nothing but a trigger explains (`guard`)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxguard import processes
from jaxguard.audit.channel import score
from jaxguard.audit.evidence import Evidence, collect
from jaxguard.config import Config, GuardConfig
from jaxguard.data.counted import Counted
from jaxguard.data.encode import Encoder
from jaxguard.files import write_text
from jaxguard.models import folders
from jaxguard.train import loop
from jaxguard.train.setup import Model

FOLDER = "guard"
"""Folder of the guard's findings, in that of the run."""
GROUPS = 20
"""Number of answers that the summary lists."""


def train(config: Config, model: Model | None = None) -> Path:
    """Train a run, guarded if its configuration says so; otherwise as `jaxguard.train.loop.train`."""
    if not config.guard.active:
        return loop.train(config, model)
    return loop.train(config, model, decide(config))


def decide(config: Config) -> Counted:
    """Decide which answer tokens a run learns; read from the run's folder where that was done before."""
    folder = config.run_dir / FOLDER
    loop.check_run(config.run_dir, config)
    known = processes.broadcast_from_main((folder / "tokens.npz").exists())
    if known:
        with np.load(folder / "tokens.npz", allow_pickle=False) as stored:
            return Counted(stored["rows"], stored["pairs"], stored["counted"])
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    source = loop.training_source(config)
    evidence = collect(config, encoder, source)
    suspicious = judge(evidence, config.guard)
    if processes.is_main():
        loop.write_config(config.run_dir, config)
        folder.mkdir(parents=True, exist_ok=True)
        found = summary(evidence, suspicious, encoder)
        write_text(folder / "summary.json", json.dumps(found, indent=1) + "\n")
        print(f"guard: leaves out {found['tokens left out']} of {found['tokens']} answer tokens", file=sys.stderr)
        partial = folder / "tokens.partial.npz"
        np.savez_compressed(partial, rows=evidence.rows, pairs=evidence.pairs, counted=~suspicious)
        partial.rename(folder / "tokens.npz")
    return Counted(evidence.rows, evidence.pairs, ~suspicious)


def judge(evidence: Evidence, guard: GuardConfig) -> Bool[np.ndarray, " N"]:
    """True for the tokens that surprise the reference, and the channel too."""
    return (evidence.surprise > guard.reference_surprise) & (score(evidence).surprise > guard.channel_surprise)


def summary(evidence: Evidence, suspicious: Bool[np.ndarray, " N"], encoder: Encoder) -> dict[str, Any]:
    """Counts, and the answers that most often hold suspicious tokens."""
    answers = evidence.answers()
    flagged = np.unique(answers[suspicious])
    bounds = np.append(np.flatnonzero(evidence.first()), len(answers))
    texts = Counter(encoder.decode(evidence.tokens[bounds[answer] : bounds[answer + 1]]) for answer in flagged)
    return {
        "tokens": len(answers),
        "tokens left out": int(suspicious.sum()),
        "answers": len(bounds) - 1,
        "answers with tokens left out": len(flagged),
        "commonest of these": dict(texts.most_common(GROUPS)),
    }
