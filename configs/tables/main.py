"""The main table: families x tasks x attacks x methods, 5% poisoned.

Command:   jaxguard data build scenes/caption
           jaxguard data build easy_vqa/vqa
           jaxguard table configs/tables/main.py --jobs 2
           jaxguard table configs/tables/main.py --scale full
Hardware:  two CPU cores; at full size, published models on COCO and VQAv2, 16 or more chips of a pod.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from jaxguard.config import AttackConfig, ObjectiveConfig
from jaxguard.experiments import recipes, tiny
from jaxguard.experiments.grid import Cell, Grid
from jaxguard.experiments.tiny import PAPER, UNDEFENDED, Scale, Task
from jaxguard.report.plots import Tradeoff

OUT = Path("runs/tables/main")
BADNETS = AttackConfig(name="badnets", place="fixed")
ATTACKS = {
    "badnets": BADNETS,
    "blended": AttackConfig(name="blended"),
    "wanet": AttackConfig(name="wanet"),
    "issba": AttackConfig(name="issba"),
    "trojvlm": AttackConfig(name="trojvlm", place="fixed"),
    "vlood": BADNETS,
}
"""VLOOD's poisoned rows are BadNets': the same runs. (It differs in the attacker's loss, which no defender uses.)"""
STRONGER = ATTACKS | {
    "wanet": AttackConfig(name="wanet", variant="jitter", strength=8.0),
    "issba": AttackConfig(name="issba", strength=60.0),
}
"""Attacks for the tiny models, which do not learn WaNet and ISSBA at their published strengths (docs/attacks.md)."""
METHODS = {"no defence": UNDEFENDED, "patch augmentation": ObjectiveConfig(alpha=1.0), "paper's objective": PAPER}
CLEANED = "clean fine-tuning"
"""Fine-tuning of the undefended model on trusted rows."""
SEEDS: dict[str, tuple[int, ...]] = {"llava": (0, 1), "blip2": (0,), "idefics": (0,)}


def cells(
    scale: Scale, attacks: Mapping[str, AttackConfig], family: str, task: Task, attack: str, seed: int
) -> Iterator[Cell]:
    def labels(method: str) -> dict[str, str]:
        return {"family": family, "task": task, "attack": attack, "method": method}

    runs = {
        method: scale.experiment(task, attacks[attack], family=family, objective=objective, seed=seed)
        for method, objective in METHODS.items()
    }
    undefended = runs["no defence"]
    yield from (Cell(labels(method), config) for method, config in runs.items())
    if family == "llava":
        yield Cell(labels(CLEANED), scale.cleaned(undefended), undefended.attack, undefended)


def grid(scale: Scale, attacks: Mapping[str, AttackConfig], out: Path) -> Grid:
    return Grid(
        out,
        tuple(
            cell
            for family, seeds in SEEDS.items()
            for task in get_args(Task)
            for attack in attacks
            for seed in seeds
            for cell in cells(scale, attacks, family, task, attack, seed)
        ),
        (Tradeoff("method", down="family", marks="attack"),),
    )


grids = {"tiny": grid(tiny, STRONGER, OUT), "full": grid(recipes, ATTACKS, OUT / "full")}
