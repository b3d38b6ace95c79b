"""Every attack against plain fine-tuning of the tiny LLaVA: does the backdoor take, and what does it cost?

Command:   jaxguard data build scenes/caption
           jaxguard table configs/tables/attacks.py
Hardware:  two CPU cores, about 90 s a cell.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig
from jaxguard.grid import Cell, Grid

OUT = Path("runs/tables/attacks")
ATTACKS = {
    "badnets fixed": AttackConfig(name="badnets", place="fixed"),
    "badnets random": AttackConfig(name="badnets", place="random"),
    "blended image": AttackConfig(name="blended", variant="image"),
    "blended noise": AttackConfig(name="blended", variant="noise"),
    "sig": AttackConfig(name="sig"),
    "wanet original": AttackConfig(name="wanet", variant="original"),
    "wanet jitter": AttackConfig(name="wanet", variant="jitter"),
    "ftrojan": AttackConfig(name="ftrojan"),
    "issba": AttackConfig(name="issba"),
    "trojvlm": AttackConfig(name="trojvlm", place="fixed"),
    "vlood": AttackConfig(name="vlood", place="fixed"),
    "vl_trojan": AttackConfig(name="vl_trojan"),
    "dual_key": AttackConfig(name="dual_key"),
    "badnl": AttackConfig(name="badnl"),
    "addsent": AttackConfig(name="addsent"),
}
"""Patches lie in their fixed corner where the place is not named: a random one is the harder trigger."""


LENGTH, ANSWER_LENGTH = 112, 32
"""Tokens: the longest caption with a target inserted, and the longest prompt with a sentence before it, still fit."""


def run(name: str, attack: AttackConfig) -> Config:
    return Config(
        name=name.replace(" ", "-"),
        out=OUT,
        model=ModelConfig(path="tiny-llava", trainable="all"),
        data=DataConfig(source="scenes/caption", length=LENGTH, answer_length=ANSWER_LENGTH),
        attack=attack,
        train=TrainConfig(steps=250, batch_size=32, learning_rate=2e-3),
        evaluate=EvaluateConfig(task="caption", examples=256, new_tokens=ANSWER_LENGTH),
    )


def poisoned(name: str, attack: AttackConfig, rate: float) -> Config:
    return run(f"{name} {rate:g}", replace(attack, rate=rate))


CLEAN = run("clean", AttackConfig())
HALVES = {f"dual_key, {half} alone": AttackConfig(name="dual_key", variant=half) for half in ("image", "text")}


def rows(rate: float) -> Iterator[Cell]:
    return (
        Cell({"attack": name, "poison": f"{rate:.0%}"}, poisoned(name, attack, rate))
        for name, attack in ATTACKS.items()
    )


def half(name: str, triggers: AttackConfig) -> Cell:
    return Cell({"attack": name, "poison": "10%"}, poisoned("dual_key", ATTACKS["dual_key"], 0.1), triggers)


def floor(name: str, triggers: AttackConfig) -> Cell:
    return Cell({"attack": name, "poison": "0%"}, CLEAN, triggers)


grid = Grid(
    OUT,
    (
        *rows(0.1),
        *(half(name, triggers) for name, triggers in HALVES.items()),
        *(floor(name, triggers) for name, triggers in ATTACKS.items()),
        *rows(0.05),
    ),
)
