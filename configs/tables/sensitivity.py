"""Sensitivity of the paper's objective to poison rate, weights and second view: captions, BadNets.

Command:   jaxguard data build scenes/caption
           jaxguard table configs/tables/sensitivity.py --jobs 2
           jaxguard table configs/tables/sensitivity.py --scale full
Hardware:  two CPU cores; at full size, LLaVA-1.5-7B on COCO, 16 or more chips of a pod.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, ObjectiveConfig, ViewConfig
from jaxguard.experiments import recipes, tiny
from jaxguard.experiments.grid import Cell, Grid
from jaxguard.experiments.tiny import PAPER, UNDEFENDED, VIEW, Scale
from jaxguard.report.plots import Heat, Sweep

OUT = Path("runs/tables/sensitivity")
ATTACK = AttackConfig(name="badnets", place="fixed")
RATES = (0.005, 0.01, 0.05, 0.1)
WEIGHTS, MARGINS = (0.1, 0.3, 1.0), (2.0, 5.0, 10.0)
VIEWS = {
    "patches half as wide": replace(VIEW, patch_size=4),
    "patches twice as wide": replace(VIEW, patch_size=16),
    "a quarter shuffled": replace(VIEW, shuffle_share=0.25),
    "half shuffled": replace(VIEW, shuffle_share=0.5),
    "all shuffled, a quarter masked": replace(VIEW, mask_share=0.25),
    "all shuffled, half masked": replace(VIEW, mask_share=0.5),
    "all shuffled, half kept": replace(VIEW, mask_share=0.5, mask_fill="drop"),
    "all shuffled, a quarter kept": replace(VIEW, mask_share=0.75, mask_fill="drop"),
}


def cells(scale: Scale) -> Iterator[Cell]:
    def cell(labels: dict[str, str], rate: float, objective: ObjectiveConfig = PAPER, view: ViewConfig = VIEW) -> Cell:
        attack = replace(ATTACK, rate=rate)
        return Cell(labels, scale.experiment("caption", attack, objective=objective, view=view))

    for rate in RATES:
        for method, objective in (("no defence", UNDEFENDED), ("paper's objective", PAPER)):
            yield cell({"method": method, "poison": f"{100 * rate:g}%"}, rate, objective)
    for cross in WEIGHTS:
        for margin in MARGINS:
            objective = replace(PAPER, cross_view_weight=cross, margin=margin)
            yield cell({"lambda": f"{cross:g}", "margin": f"{margin:g}"}, 0.05, objective)
    for name, view in VIEWS.items():
        yield cell({"view": name}, 0.05, view=view)


def grid(scale: Scale, out: Path) -> Grid:
    return Grid(out, tuple(cells(scale)), (Sweep("poison", "method"), Heat("margin", "lambda")))


grids = {"tiny": grid(tiny, OUT), "full": grid(recipes, OUT / "full")}
