"""Cost of the methods: time and memory of a step, relative to undefended fine-tuning of the same model.

Command:   jaxguard data build scenes/caption
           jaxguard table configs/tables/cost.py
           jaxguard table configs/tables/cost.py --scale full
Hardware:  two CPU cores, nothing else running; at full size, published models on 16 or more chips of a pod.
"""

from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, ObjectiveConfig
from jaxguard.experiments import recipes, tiny
from jaxguard.experiments.grid import Cost
from jaxguard.experiments.tiny import PAPER, UNDEFENDED, VIEW, Scale

OUT = Path("runs/tables/cost")
FAMILIES = ("llava", "blip2", "idefics")
ATTACK = AttackConfig(name="badnets", place="fixed")
KEPT = replace(VIEW, mask_share=0.75, mask_fill="drop")
METHODS = {
    "no defence": (UNDEFENDED, VIEW),
    "patch augmentation": (ObjectiveConfig(alpha=1.0), VIEW),
    "paper's objective": (PAPER, VIEW),
}
DROPPED = {
    "a quarter of the patches kept": (PAPER, KEPT),
    "the same, in half of the rows": (PAPER, replace(KEPT, rows=0.5)),
}
"""Variants of the paper's objective, for models whose tower patches are the decoder's image tokens."""


def cost(scale: Scale, out: Path) -> Cost:
    steps = {
        f"{family}: {method}": scale.experiment("caption", ATTACK, family=family, objective=objective, view=view)
        for family in FAMILIES
        for method, (objective, view) in (METHODS | (DROPPED if family == "llava" else {})).items()
    }
    return Cost(out, steps)


grids = {"tiny": cost(tiny, OUT), "full": cost(recipes, OUT / "full")}
