"""A run's metrics.jsonl: reading it, and the signs in it that a term of the objective does nothing. No JAX."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxguard.config import ObjectiveConfig
from jaxguard.errors import UserError

Record = Mapping[str, float]
"""One line of metrics.jsonl: the step and its metrics."""
ALIKE = 0.01
"""J in nats up to which the two views answer alike: random guesses about a coin that differ by 5 points have 0.02."""
NEAR = 0.01
"""Share of the margin within which the cross-view term counts as saturated."""
LARGEST_BAND = 0.5
"""Share of the loss above which the entropy band dominates it."""
LEAST = 5
"""Logged steps before anything is said during training."""


def read_metrics(path: Path) -> list[Record]:
    """Read the records of a metrics.jsonl.

    Raises:
        UserError: The file is missing or empty, or has a malformed line (the first one is named).
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable metrics file ({error}); train first") from error
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(values, dict) or not all(_number(value) for value in values.values()):
            raise UserError(f"{path}:{number}: not an object of numbers")
        if "step" not in values:
            raise UserError(f"{path}:{number}: no 'step'")
        records.append(values)
    if not records:
        raise UserError(f"{path} holds no metrics yet")
    return records


def idle_terms(records: Sequence[Record], objective: ObjectiveConfig) -> dict[str, str]:
    """Find the terms of the objective that do nothing, or everything, in all logged steps.

    Args:
        records: Metrics of batches; other records (probe, validation) are skipped.
        objective: Of the run.

    Returns:
        Kind of finding -> one line: what was seen, and what to do.
    """
    logged = [record for record in records if "cross_weight" in record]
    if not logged:
        return {}
    where = f"in all {len(logged)} logged steps"
    found = _idle_views(logged, objective, where) | _idle_band(logged, objective, where)
    if objective.cross_view_weight and all(record["cross_weight"] == 0 for record in logged):
        found["lambda"] = (
            f"lambda is 0 {where}: the cross-view term does nothing; lower objective.cross_view_warmup "
            f"({objective.cross_view_warmup}) or train longer"
        )
    return found


def _idle_views(logged: Sequence[Record], objective: ObjectiveConfig, where: str) -> dict[str, str]:
    if objective.views < 2:
        return {}
    most = max(record["divergence"] for record in logged)
    least = min(record["cross"] for record in logged)
    highest = max(record["cross"] for record in logged)
    repels = objective.direction == "repel" and objective.cross_view_weight > 0
    if most <= ALIKE:
        at = f", so the cross-view term stays at its margin ({objective.margin:g}) without a gradient" if repels else ""
        return {
            "views": f"the two views answer alike: J is at most {most:.2g} nats {where}{at}; hide more of the second "
            "view (view.mask_share, view.patch_size), or the defence is idle"
        }
    if repels and least >= (1 - NEAR) * objective.margin:
        return {
            "margin": f"the cross-view term stays at its margin ({objective.margin:g} nats) {where}: it moves nothing; "
            "hide more of the second view (view.mask_share), or raise objective.cross_view_weight"
        }
    if repels and highest <= NEAR * objective.margin:
        return {
            "margin": f"J exceeds the margin ({objective.margin:g} nats) {where}: the cross-view term does nothing; "
            "raise objective.margin"
        }
    return {}


def _idle_band(logged: Sequence[Record], objective: ObjectiveConfig, where: str) -> dict[str, str]:
    if not objective.entropy_weight:
        return {}
    if all(record["band"] <= 1e-6 for record in logged):
        return {
            "band": f"the entropy is inside its band {where}: the entropy term does nothing; narrow objective."
            "entropy_min and entropy_max"
        }
    shares = [objective.entropy_weight * record["band"] / max(abs(record["loss"]), 1e-9) for record in logged]
    if min(shares) > LARGEST_BAND:
        return {
            "band": f"the entropy band is at least {min(shares):.0%} of the loss {where}: it decides the answers, and "
            "may empty them; lower objective.entropy_weight or widen the band"
        }
    return {}


class Watch:
    """Says during training what `idle_terms` finds: each kind once, and all of them at the last step."""

    def __init__(self, objective: ObjectiveConfig):
        self._objective, self._records, self._said = objective, list[Record](), set[str]()

    def __call__(self, metrics: Record, *, last: bool) -> list[str]:
        """Take the metrics of a logged step; return the lines to say."""
        self._records.append(metrics)
        if len(self._records) < LEAST and not last:
            return []
        found = idle_terms(self._records, self._objective)
        new = [text for kind, text in found.items() if last or kind not in self._said]
        self._said |= found.keys()
        return new


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
