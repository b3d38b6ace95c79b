"""Ablation of the objective and of the second view: captions, two attacks, 5% poisoned.

Command:   jaxguard data build scenes/caption
           jaxguard table configs/tables/ablation.py --jobs 2
           jaxguard table configs/tables/ablation.py --scale full
Hardware:  two CPU cores; at full size, LLaVA-1.5-7B on COCO, 16 or more chips of a pod.
"""

from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, ObjectiveConfig, ViewConfig
from jaxguard.experiments import recipes, tiny
from jaxguard.experiments.grid import Cell, Grid
from jaxguard.experiments.tiny import PAPER, UNDEFENDED, VIEW, Scale
from jaxguard.report.plots import Tradeoff

OUT = Path("runs/tables/ablation")
ATTACKS = {"badnets": AttackConfig(name="badnets", place="fixed"), "blended": AttackConfig(name="blended")}
VARIANTS: dict[str, tuple[ObjectiveConfig, ViewConfig]] = {
    "CE": (UNDEFENDED, VIEW),
    "CE on both views": (ObjectiveConfig(alpha=1.0), VIEW),
    "CE, repel": (replace(PAPER, entropy_weight=0.0), VIEW),
    "CE, repel, entropy (the paper's)": (PAPER, VIEW),
    "CE on both views, repel, entropy": (replace(PAPER, alpha=1.0), VIEW),
    "CE, attract, entropy": (replace(PAPER, direction="attract"), VIEW),
    "the paper's, half shuffled": (PAPER, replace(VIEW, shuffle_share=0.5)),
    "the paper's, half masked": (PAPER, replace(VIEW, shuffle_share=0.0, mask_share=0.5)),
    "the paper's, half dropped": (PAPER, replace(VIEW, shuffle_share=0.0, mask_share=0.5, mask_fill="drop")),
}


def grid(scale: Scale, out: Path) -> Grid:
    return Grid(
        out,
        tuple(
            Cell(
                {"attack": attack, "objective": variant},
                scale.experiment("caption", ATTACKS[attack], objective=objective, view=view),
            )
            for attack in ATTACKS
            for variant, (objective, view) in VARIANTS.items()
        ),
        (Tradeoff("objective"),),
    )


grids = {"tiny": grid(tiny, OUT), "full": grid(recipes, OUT / "full")}
