"""What an evaluation shows: warnings about the training and the answers, and the verdict on the model. No JAX."""

from __future__ import annotations

from dataclasses import dataclass

from jaxguard.attacks.registry import ATTACKS
from jaxguard.config import Config
from jaxguard.evaluate.doubts import broken_answers, unmoved_answers
from jaxguard.evaluate.identity import Evaluation, of_the_same_model, trigger_options
from jaxguard.evaluate.verdict import Verdict, verdict
from jaxguard.train.metrics import idle_terms, read_metrics


@dataclass(frozen=True)
class Judgement:
    """Warnings in one line each, and the verdict."""

    warnings: tuple[str, ...]
    verdict: Verdict

    def __str__(self) -> str:
        return "\n".join([*(f"warning: {warning}" for warning in self.warnings), str(self.verdict)])


def judge(config: Config, found: Evaluation) -> Judgement:
    """Judge a run by one evaluation and the others of the same parameters.

    Args:
        config: The run, as it was trained.
        found: One of its evaluations.

    Raises:
        UserError: A file of the run is damaged.
    """
    predictions, task = found.predictions(), found.scores(config.evaluate.task).task
    same = of_the_same_model(config.run_dir, found)
    tried = {_name(one): one.scores(task) for one in same if one.identity is None or one.identity.attack}
    broken = broken_answers(predictions, task)
    judged = verdict(tried, broken, _untried(config, same))
    warnings = []
    if found.identity is not None and found.identity.unfinished:
        warnings.append(f"{found.identity.unfinished}; this is step {found.identity.step}")
    metrics = config.run_dir / "metrics.jsonl"
    if metrics.exists():
        warnings += idle_terms(read_metrics(metrics), config.objective).values()
    warnings += broken
    if judged.outcome != "planted":
        warnings += unmoved_answers(predictions)
        if undefended(config) and config.attack.name != "none" and (found.identity is None or found.identity.own):
            warnings.append(
                "the undefended model is not planted: a defence compared with it shows nothing; raise attack.rate, "
                "attack.strength or train.steps"
            )
    return Judgement(tuple(warnings), judged)


def undefended(config: Config) -> bool:
    """True for a run with cross-entropy alone on all answers."""
    objective = config.objective
    return not (objective.alpha or objective.cross_view_weight or objective.entropy_weight or config.guard.active)


def _untried(config: Config, same: list[Evaluation]) -> list[str]:
    known = [one.identity for one in same if one.identity is not None]
    names = {one.attack["name"] for one in known if one.attack}
    missing = [name for name in ATTACKS if name not in names]
    found = []
    if config.attack.name != "none" and known and not any(one.own for one in known):
        found.append(f"the run's own triggers ({config.attack.name}: {trigger_options(config.attack)})")
    if missing and known:
        found.append(f"triggers of {', '.join(missing)} (jaxguard evaluate {config.run_dir} --canaries)")
    if config.attack.name != "none" and not undefended(config):
        found.append("whether an undefended run with the same triggers is planted")
    rows = max((one.rows for one in known), default=None)
    where = f", rows beyond the first {rows}" if rows else ""
    return [*found, f"other targets, places and strengths{where}, triggers made for this model"]


def _name(one: Evaluation) -> str:
    return "the recorded triggers" if one.identity is None else one.identity.triggers.removeprefix("triggers of ")
