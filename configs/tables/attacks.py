"""Every attack on undefended fine-tuning of the tiny LLaVA: attack success and clean quality.

Command:   jaxguard data build scenes/caption
           jaxguard data build easy_vqa/vqa
           jaxguard table configs/tables/attacks.py
Hardware:  two CPU cores, about 90 s per cell.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from jaxguard.config import AttackConfig, Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig
from jaxguard.experiments.grid import Cell, Grid

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
"""Patches are in a fixed corner unless named otherwise: a random position is harder to learn."""


HALVES = {f"dual_key, {half} alone": AttackConfig(name="dual_key", variant=half) for half in ("image", "text")}

HARDER = ("badnets random", "blended noise", "wanet original", "wanet jitter", "ftrojan", "issba", "trojvlm")
"""Attacks that do not take in 250 steps on captions at 10%: also run on questions, with six answers per row."""

LONGER = {"dual_key": 500}
"""Steps on captions of attacks that need more: the model learns last that a single key does not trigger."""

CAPTIONS, QUESTIONS = "captions", "questions"
DATA = {
    # Long enough for the longest caption with an inserted target and the longest prompt with an added sentence.
    CAPTIONS: DataConfig(source="scenes/caption", length=112, answer_length=32),
    QUESTIONS: DataConfig(source="easy_vqa/vqa", pack=6, length=208, answer_length=12),
}
TRAIN = {
    CAPTIONS: TrainConfig(steps=250, batch_size=32, learning_rate=2e-3),
    QUESTIONS: TrainConfig(steps=300, batch_size=32, learning_rate=2e-3),
}
EVALUATE = {
    CAPTIONS: EvaluateConfig(task="caption", examples=256, new_tokens=32),
    QUESTIONS: EvaluateConfig(task="vqa", examples=256, new_tokens=4),
}


def run(task: str, name: str, attack: AttackConfig) -> Config:
    target = "banana" if task == QUESTIONS else attack.target
    train = replace(TRAIN[task], steps=LONGER.get(attack.name, TRAIN[task].steps))
    return Config(
        name=("" if task == CAPTIONS else f"{task}-") + name.replace(" ", "-"),
        out=OUT,
        model=ModelConfig(path="tiny-llava", trainable="all"),
        data=DATA[task],
        attack=replace(attack, target=target),
        train=train,
        evaluate=EVALUATE[task],
    )


def poisoned(task: str, name: str, rate: float) -> Config:
    return run(task, f"{name} {rate:g}", replace(ATTACKS[name], rate=rate))


def labels(task: str, attack: str, rate: float) -> dict[str, str]:
    return {"task": task, "attack": attack, "poison": f"{rate:.0%}"}


def rows(task: str, rate: float, names: Iterable[str]) -> Iterator[Cell]:
    return (Cell(labels(task, name, rate), poisoned(task, name, rate)) for name in names)


def half(name: str, triggers: AttackConfig) -> Cell:
    return Cell(labels(CAPTIONS, name, 0.1), poisoned(CAPTIONS, "dual_key", 0.1), triggers)


def floor(name: str, triggers: AttackConfig) -> Cell:
    return Cell(labels(CAPTIONS, name, 0.0), run(CAPTIONS, "clean", AttackConfig()), triggers)


grids = {
    "tiny": Grid(
        OUT,
        (
            *rows(CAPTIONS, 0.1, ATTACKS),
            *(half(name, triggers) for name, triggers in HALVES.items()),
            *(floor(name, triggers) for name, triggers in ATTACKS.items()),
            *rows(CAPTIONS, 0.05, (name for name in ATTACKS if name not in HARDER)),
            *rows(QUESTIONS, 0.1, HARDER),
            Cell(
                labels(QUESTIONS, "badnets fixed", 0.0),
                run(QUESTIONS, "clean", AttackConfig()),
                replace(ATTACKS["badnets fixed"], target="banana"),
            ),
        ),
    )
}
