"""The guard beside undefended fine-tuning and the paper's objective: captions, questions, and words nobody has met.

Command:   jaxguard data build scenes/caption
           jaxguard data build scenes/renamed
           jaxguard data build easy_vqa/vqa
           jaxguard table configs/tables/guard.py
Hardware:  two CPU cores; the cells that were run took five to twelve minutes each, two at a time.
"""

from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, Config, GuardConfig, ObjectiveConfig
from jaxguard.experiments.grid import Cell, Grid, named
from jaxguard.experiments.tiny import PAPER, UNDEFENDED, experiment, schedule, training

METHODS = {
    "undefended": (UNDEFENDED, GuardConfig()),
    "paper": (PAPER, GuardConfig()),
    "guard": (UNDEFENDED, GuardConfig(active=True)),
}
BADNETS, BLENDED = AttackConfig(name="badnets", rate=0.05), AttackConfig(name="blended", rate=0.05)
ATTACKS = {
    "none": AttackConfig(),
    "badnets 5%": BADNETS,
    "badnets 10%": replace(BADNETS, rate=0.1),
    "blended 5%": BLENDED,
    "blended 10%": replace(BLENDED, rate=0.1),
}
CELLS = {
    "renamed": ("none", "badnets 5%", "badnets 10%", "blended 10%"),
    "captions": ("none", "badnets 5%", "blended 5%"),
    "questions": ("none", "badnets 5%", "blended 5%"),
}


def run(data: str, attack: AttackConfig, objective: ObjectiveConfig, guard: GuardConfig) -> Config:
    config = experiment("vqa" if data == "questions" else "caption", attack, objective=objective)
    if data == "renamed":  # invented words take several tokens each, and longer to learn
        longer = replace(config.data, source="scenes/renamed", length=config.data.length + 33, answer_length=64)
        train = training("caption", schedule("llava", "demo", "caption"))
        config = replace(config, data=longer, train=train, evaluate=replace(config.evaluate, new_tokens=64))
    return named(replace(config, guard=guard), "llava", data, attack.name)


def cell(data: str, attack: str, method: str) -> Cell:
    config = run(data, ATTACKS[attack], *METHODS[method])
    triggers = replace(BADNETS, target=config.attack.target) if attack == "none" else None
    return Cell({"data": data, "attack": attack, "method": method}, config, triggers)


grids = {
    "tiny": Grid(
        Path("runs/tables/guard"),
        tuple(cell(data, attack, method) for data in CELLS for attack in CELLS[data] for method in METHODS),
    )
}
