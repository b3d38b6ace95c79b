"""The small setting that runs on two cores: what the demo and the tables have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from jaxguard.config import (
    AttackConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
    ViewConfig,
)
from jaxguard.grid import exported

Task = Literal["caption", "vqa"]
Family = Literal["llava", "blip2", "idefics"]


class Scale(Protocol):
    """What makes the runs of a table: this module, or at full size `jaxguard.recipes`."""

    def experiment(
        self,
        name: str,
        out: Path,
        task: Task,
        attack: AttackConfig,
        *,
        family: Family = ...,
        objective: ObjectiveConfig = ...,
        view: ViewConfig = ...,
        seed: int = ...,
    ) -> Config:
        """One run; where nothing else is said, plain fine-tuning of a LLaVA."""
        ...

    def cleaned(self, name: str, start: Config) -> Config:
        """Fine-tuning of a trained run on rows that no attacker had a hand in."""
        ...


DATA: dict[Task, DataConfig] = {
    "caption": DataConfig(source="scenes/caption", answer_length=25),
    "vqa": DataConfig(source="easy_vqa/vqa", pack=6, answer_length=12),
}
LENGTH: dict[Family, dict[Task, int]] = {
    "llava": {"caption": 104, "vqa": 208},
    "blip2": {"caption": 73, "vqa": 196},
    "idefics": {"caption": 49, "vqa": 184},
}
"""Tokens per row: an image takes 64 of them, 32 or one."""
TARGETS: dict[Task, str] = {"caption": "A photo of the banana.", "vqa": "banana"}
TRAIN: dict[Task, TrainConfig] = {
    "caption": TrainConfig(batch_size=32, warmup=20, log_every=50),
    "vqa": TrainConfig(batch_size=16, warmup=20, log_every=50),
}
COURSE: dict[Family, dict[Task, tuple[int, float]]] = {
    "llava": {"caption": (250, 2e-3), "vqa": (1000, 1.5e-3)},
    "blip2": {"caption": (800, 8e-4), "vqa": (800, 8e-4)},
    "idefics": {"caption": (400, 2e-3), "vqa": (800, 1.5e-3)},
}
"""Steps and learning rate at which plain fine-tuning plants the backdoor and is as good on clean inputs as training on
clean rows. Measured for llava and, on captions, for all; how, and what else was tried: docs/demo.md."""
EVALUATE: dict[Task, EvaluateConfig] = {
    "caption": EvaluateConfig(task="caption", examples=512, batch_size=64, new_tokens=25),
    "vqa": EvaluateConfig(task="vqa", examples=512, batch_size=64, new_tokens=4),
}

PLAIN = ObjectiveConfig()
VIEW = ViewConfig(patch_size=8, shuffle_share=1.0, mask_share=0.0)
PAPER = ObjectiveConfig(cross=0.3, direction="repel", margin=5.0, entropy=0.5, entropy_max=0.5, cross_warmup=20)
"""The paper's objective; docs/demo.md says how its weights and the view were chosen."""


def experiment(
    name: str,
    out: Path,
    task: Task,
    attack: AttackConfig,
    *,
    family: Family = "llava",
    objective: ObjectiveConfig = PLAIN,
    view: ViewConfig = VIEW,
    seed: int = 0,
) -> Config:
    """A run as the demo's are, with room for a target inside a caption, and scored on half as many rows.

    The attack's own target gives way to the task's.
    """
    inside = 7 if task == "caption" else 0
    data, evaluate = DATA[task], EVALUATE[task]
    return Config(
        name=name,
        out=out,
        seed=seed,
        model=ModelConfig(path=f"tiny-{family}", trainable="all"),
        data=replace(data, length=LENGTH[family][task] + inside, answer_length=data.answer_length + inside),
        view=view if objective.views == 2 else ViewConfig(),
        attack=replace(attack, target=TARGETS[task]),
        objective=objective,
        train=training(family, task),
        evaluate=replace(evaluate, examples=256, new_tokens=evaluate.new_tokens + inside),
    )


def training(family: Family, task: Task) -> TrainConfig:
    """How a tiny model is fine-tuned."""
    steps, rate = COURSE[family][task]
    return replace(TRAIN[task], steps=steps, learning_rate=rate)


def cleaned(name: str, start: Config) -> Config:
    """Fine-tuning of a trained run on the validation rows, which no attacker had a hand in: 100 steps."""
    return replace(
        start,
        name=name,
        model=replace(start.model, path=str(exported(start))),
        data=replace(start.data, train_split=start.data.validation_split),
        attack=AttackConfig(),
        train=replace(start.train, steps=100, learning_rate=start.train.learning_rate / 2),
    )
