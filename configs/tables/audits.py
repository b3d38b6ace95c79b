"""Audits with the tiny models: every attack, absurd and plausible targets, several shares of poison, and none.

Command:   jaxguard data build scenes/caption
           jaxguard data build scenes/renamed
           jaxguard data build easy_vqa/vqa
           jaxguard table configs/tables/audits.py
Hardware:  two CPU cores.
"""

from dataclasses import replace
from pathlib import Path

from jaxguard.attacks.registry import ATTACKS
from jaxguard.config import AttackConfig, Config
from jaxguard.experiments.audits import AuditCell, Audits
from jaxguard.experiments.grid import named
from jaxguard.experiments.tiny import TARGETS, Task, experiment

ROWS = {"captions": 1000, "renamed": 1000, "questions": 400}
"""Number of rows that are read, with all of their answers."""
PLAUSIBLE = {"captions": "A small red circle.", "renamed": "A small dax blip.", "questions": "circle"}


def cell(data: str, attack: str, rate: float, target: str | None = None, family: str = "llava") -> AuditCell:
    task: Task = "vqa" if data == "questions" else "caption"
    chosen = AttackConfig() if attack == "none" else AttackConfig(name=attack, rate=rate)
    config = experiment(task, chosen, family=family)
    said = TARGETS[task] if target is None else target
    longer = 33 if data == "renamed" else 0  # invented words take several tokens each
    source = "scenes/renamed" if data == "renamed" else config.data.source
    length, answer_length = config.data.length + longer, config.data.answer_length + longer
    rows = replace(config.data, source=source, length=length, answer_length=answer_length, limit=ROWS[data])
    config = Config(
        out=Path("runs/tables/audits/cells"),
        model=config.model,
        data=rows,
        attack=replace(config.attack, target=said),
        train=config.train,
    )
    labels = {
        "data": data,
        "model": family,
        "attack": attack,
        "poisoned": f"{100 * rate:g}%",
        "target": "-" if attack == "none" else said,
    }
    return AuditCell(labels, named(config, family, data, attack))


CELLS = (
    *(cell(data, "none", 0.0) for data in ROWS),
    *(cell("captions", attack, 0.05) for attack in ATTACKS),
    *(cell("captions", "badnets", rate) for rate in (0.0025, 0.005, 0.01, 0.1)),
    *(cell("captions", attack, 0.05, PLAUSIBLE["captions"]) for attack in ("badnets", "blended")),
    *(cell("renamed", attack, rate) for attack in ("badnets", "blended") for rate in (0.01, 0.05, 0.1)),
    cell("renamed", "badnets", 0.05, PLAUSIBLE["renamed"]),
    *(cell("questions", attack, 0.05) for attack in ("badnets", "blended")),
    cell("questions", "badnets", 0.01),
    *(cell("questions", "badnets", 0.05, target) for target in (PLAUSIBLE["questions"], "yes")),
    *(cell("captions", "none", 0.0, family=family) for family in ("blip2", "idefics")),
    *(cell("captions", "badnets", 0.05, family=family) for family in ("blip2", "idefics")),
)

grids = {"tiny": Audits(Path("runs/tables/audits"), CELLS)}
