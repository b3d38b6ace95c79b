"""The table of a run against every attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxguard.evaluate.canaries import Canary
from jaxguard.report.tables import Column, rate_text

COLUMNS = [
    Column("triggers", lambda row: row["triggers"]),
    Column("ASR exact %", lambda row: row["exact"]),
    Column("ASR contains %", lambda row: row["contains"]),
    Column("clean", lambda row: row["clean"]),
    Column("recovery", lambda row: row["recovery"]),
    Column("rows", lambda row: str(row["rows"])),
    Column("evaluation", lambda row: row["evaluation"]),
]


def canary_rows(canaries: Sequence[Canary]) -> list[dict[str, Any]]:
    """Make the rows: the floor on clean inputs first, then each attack; skipped ones say why."""
    tried = [one for one in canaries if one.scores is not None]
    rows = [_row(one) for one in canaries]
    if not tried or (scores := tried[0].scores) is None or scores.attack is None:
        return rows
    floor = {
        "triggers": "none (clean inputs)",
        "exact": rate_text(scores.attack.exact_on_clean),
        "contains": rate_text(scores.attack.contains_on_clean),
        "clean": _quality(scores.clean),
        "recovery": "-",
        "rows": scores.examples["clean"],
        "evaluation": "the clean inputs of all",
    }
    return [floor, *rows]


def _row(one: Canary) -> dict[str, Any]:
    scores = one.scores
    if scores is None or scores.attack is None or one.evaluation is None:
        blank = dict.fromkeys(("exact", "contains", "clean", "recovery"), "-")
        return {"triggers": one.name, **blank, "rows": 0, "evaluation": f"not tried: {one.skipped}"}
    return {
        "triggers": one.name,
        "exact": rate_text(scores.attack.exact),
        "contains": rate_text(scores.attack.contains),
        "clean": _quality(scores.clean),
        "recovery": "-" if scores.recovery is None else _quality(scores.recovery),
        "rows": scores.examples["triggered"],
        "evaluation": one.evaluation.path.parent.name,
    }


def _quality(quality: dict[str, float]) -> str:
    name = next(name for name in ("facts", "accuracy", "cider") if name in quality)
    return f"{name} {quality[name]:.1f}"
