"""The identity of an evaluation, and the evaluations of a run, each in a folder of its own. No JAX."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxguard.config import AttackConfig
from jaxguard.errors import UserError
from jaxguard.evaluate.predictions import Prediction, read_predictions
from jaxguard.evaluate.scores import Scores, read_scores, score
from jaxguard.evaluate.success import attack_success
from jaxguard.files import read_object

FOLDER = "evaluations"
"""Folder of a run's evaluations, in that of the run."""
PREDICTIONS, SCORES = "predictions.jsonl", "scores.json"
TRIGGER = ("name", "variant", "place", "strength", "target", "seed")
"""Options of an attack that say what a triggered input is, and which answer counts as a success."""


@dataclass(frozen=True)
class Identity:
    """What was evaluated, and how.

    Attributes:
        name: Name of the evaluation: its folder's.
        run: Run folder.
        model: Checkpoint that the run started from.
        step, steps: Step of the evaluated checkpoint, and the number of steps of the run.
        newest: Newest step with a checkpoint when it was evaluated: less than `steps` in an unfinished run.
        parameters: Digest of all parameters.
        attack: Options of the triggers tested with (`TRIGGER`), and `trigger`, a digest of the first triggered input;
            None if only clean inputs were answered.
        own: True if these are the triggers that the training rows were poisoned with.
        data: Data set and split.
        rows, questions: Number of test rows, and a digest of their names, prompts and true answers.
        beams, new_tokens: Of the decoding.
        commit: Commit of the code.
        time: Beginning, in UTC.
    """

    name: str
    run: str
    model: str
    step: int
    steps: int
    newest: int
    parameters: str
    attack: dict[str, Any] | None
    own: bool
    data: str
    rows: int
    questions: str
    beams: int
    new_tokens: int
    commit: str
    time: str

    def __str__(self) -> str:
        """Describe it in one line."""
        decoding = "greedy" if self.beams == 1 else f"{self.beams} beams"
        return (
            f"{self.name}: step {self.step} of {self.steps} (parameters {self.parameters}), {self.triggers}, "
            f"{self.rows} rows of {self.data}, {decoding}, at most {self.new_tokens} tokens, commit {self.commit}, "
            f"{self.time}"
        )

    @property
    def triggers(self) -> str:
        """Describe the triggers: the attack, and the options that differ from the published ones."""
        if self.attack is None:
            return "clean inputs alone"
        given = [f"{name} {self.attack[name]}" for name in ("variant", "place", "strength") if self.attack[name]]
        return f"triggers of {', '.join([self.attack['name'], *given])}" + ("" if self.own else " (not the run's own)")

    @property
    def attack_config(self) -> AttackConfig:
        """Make the configuration of the triggers."""
        return AttackConfig() if self.attack is None else AttackConfig(**{name: self.attack[name] for name in TRIGGER})

    @property
    def unfinished(self) -> str | None:
        """Say that training had not ended, if it had not."""
        if self.newest >= self.steps:
            return None
        return f"{self.run} is not trained to its end: its newest checkpoint is step {self.newest} of {self.steps}"


def trigger_options(attack: AttackConfig) -> dict[str, Any] | None:
    """List the options of `TRIGGER`; None without an attack."""
    values = dataclasses.asdict(attack)
    return None if attack.name == "none" else {name: values[name] for name in TRIGGER}


@dataclass(frozen=True)
class Evaluation:
    """A predictions file and what is known of it.

    Attributes:
        path: Predictions file.
        identity: None if it was written before evaluations had one, or by another system.
    """

    path: Path
    identity: Identity | None

    def __str__(self) -> str:
        return str(self.identity or f"{self.path}: not recorded when, or with which triggers")

    def predictions(self) -> list[Prediction]:
        """Read the answers."""
        return read_predictions(self.path)

    def scores(self, task: Any) -> Scores:
        """Read the scores beside the predictions; what an earlier version did not write is computed."""
        stored = self.path.parent / SCORES
        if not stored.is_file():
            return score(self.predictions(), task)
        found = read_scores(stored)
        if found.attack is None or found.attack.contains_on_clean is not None:
            return found
        return dataclasses.replace(found, attack=attack_success(self.predictions()))


def open_evaluation(path: Path) -> Evaluation:
    """Open a predictions file, the folder of an evaluation, or a run folder: its `chosen` evaluation.

    Raises:
        UserError: There is none.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path} does not exist: give a predictions file or a run folder that was evaluated")
        return Evaluation(path, read_identity(path.parent) if path.name == PREDICTIONS else None)
    found = chosen(path)
    if found is None:
        raise UserError(
            f"{path / PREDICTIONS} does not exist: give a predictions file or a run folder that was evaluated; "
            "run `jaxguard evaluate` first"
        )
    return found


def evaluations(run: Path) -> list[Evaluation]:
    """List the evaluations of a run: oldest first, those without an identity before the others."""
    folders = [run, *(path.parent for path in (run / FOLDER).glob(f"*/{PREDICTIONS}") if path.parent.suffix == "")]
    found = [Evaluation(path / PREDICTIONS, read_identity(path)) for path in folders if (path / PREDICTIONS).is_file()]
    return sorted(found, key=lambda one: one.identity.time if one.identity else "")


def chosen(run: Path) -> Evaluation | None:
    """Choose the evaluation that stands for a run: with its own triggers, of the latest step, of most rows, the newest.

    The first of these that tells two evaluations apart decides.
    """

    def rank(one: Evaluation) -> tuple[bool, int, int]:
        known = one.identity
        return (False, -1, 0) if known is None else (known.own, known.step, known.rows)

    return max(reversed(evaluations(run)), key=rank, default=None)


def of_the_same_model(run: Path, one: Evaluation) -> list[Evaluation]:
    """List, newest first, a run's evaluations of the same parameters: the largest one for each trigger."""
    if one.identity is None:
        return [one]
    known: dict[str, Evaluation] = {}
    for other in reversed(evaluations(run)):
        identity = other.identity
        if identity is not None and identity.parameters == one.identity.parameters:
            best = known.setdefault(str(identity.attack), other)
            if best.identity is not None and best.identity.rows < identity.rows:
                known[str(identity.attack)] = other
    return list(known.values())


def write_evaluation(run: Path, name: str, write: Callable[[Path, str], None]) -> Path:
    """Make the folder of an evaluation, complete or not at all.

    Args:
        run: Run folder.
        name: Name of the evaluation; a number is added if it is taken.
        write: Writes the files, given the folder and the final name.
    """
    place = run / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        final = place / (name if number == 1 else f"{name}-{number}")
        partial = place / f"{final.name}.partial"
        if final.exists():
            continue
        partial.mkdir(exist_ok=True)
        write(partial, final.name)
        os.rename(partial, final)
        return final
    raise AssertionError("counting does not end")


def read_identity(folder: Path) -> Identity | None:
    """Read the identity in the scores.json of a folder; None if there is none."""
    path = folder / SCORES
    values = read_object(path).get("evaluation") if path.is_file() else None
    if values is None:
        return None
    names = {field.name for field in dataclasses.fields(Identity)}
    if not isinstance(values, dict) or set(values) != names:
        raise UserError(f"{path}: its 'evaluation' is not one; remove {path} and score the predictions again")
    return Identity(**values)
