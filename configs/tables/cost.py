"""What the methods cost: time and memory of a step, as ratios to plain fine-tuning of the same model.

Command:   jaxguard data build scenes/caption
           jaxguard table configs/tables/cost.py
Hardware:  two CPU cores, nothing else running.
"""

from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, ObjectiveConfig
from jaxguard.grid import Cost
from jaxguard.tiny import IMAGE_TOKENS, PAPER, PLAIN, VIEW, experiment

OUT = Path("runs/tables/cost")
ATTACK = AttackConfig(name="badnets", place="fixed")
KEPT = replace(VIEW, mask_share=0.75, mask_fill="drop")
METHODS = {
    "no defence": (PLAIN, VIEW),
    "patch augmentation": (ObjectiveConfig(alpha=1.0), VIEW),
    "paper's objective": (PAPER, VIEW),
}
DROPPED = {
    "a quarter of the patches kept": (PAPER, KEPT),
    "the same, in half of the rows": (PAPER, replace(KEPT, rows=0.5)),
}
"""Of the paper's objective; only where the tower's patches are the decoder's tokens."""

steps = {
    f"{model}: {method}": experiment(method, OUT, "caption", ATTACK, model=model, objective=objective, view=view)
    for model in IMAGE_TOKENS
    for method, (objective, view) in (METHODS | (DROPPED if model == "tiny-llava" else {})).items()
}
grids = {"tiny": Cost(OUT, steps)}
