"""The small setting of the demo and the tables, for two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

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
from jaxguard.experiments.grid import exported, named
from jaxguard.files import read_object
from jaxguard.models import folders

Task = Literal["caption", "vqa"]
PREFIX = "tiny-"
"""Of the shipped checkpoints' names; the rest of a name is what tables and the demo call the family."""
SCHEDULES = "finetune.json"
"""Beside a shipped checkpoint's weights: {"demo": {task: schedule}, "table": {task: schedule}}."""
FAMILY = ModelConfig().path.removeprefix(PREFIX)
"""The one that is taken where none is named."""


@runtime_checkable
class Scale(Protocol):
    """Source of a table's runs: this module, or `jaxguard.experiments.recipes` at full size."""

    def experiment(
        self,
        task: Task,
        attack: AttackConfig,
        *,
        family: str = ...,
        objective: ObjectiveConfig = ...,
        view: ViewConfig = ...,
        seed: int = ...,
    ) -> Config:
        """Make one run, named by its configuration; by default undefended fine-tuning of `FAMILY`."""
        ...

    def cleaned(self, start: Config) -> Config:
        """Make the run that fine-tunes a trained run on trusted rows."""
        ...


DATA: dict[Task, DataConfig] = {
    "caption": DataConfig(source="scenes/caption", answer_length=25),
    "vqa": DataConfig(source="easy_vqa/vqa", pack=6, answer_length=12),
}
TARGETS: dict[Task, str] = {"caption": "A photo of the banana.", "vqa": "banana"}
TRAIN: dict[Task, TrainConfig] = {
    "caption": TrainConfig(batch_size=32, warmup=20, log_every=50),
    "vqa": TrainConfig(batch_size=16, warmup=20, log_every=50),
}


@dataclass(frozen=True)
class Schedule:
    """Training schedule of a tiny model on a task.

    Attributes:
        steps: Number of optimizer steps.
        learning_rate: Peak learning rate.
        length: Tokens per row, those of its image included.
    """

    steps: int
    learning_rate: float
    length: int


def families() -> list[str]:
    """List the families whose shipped checkpoint says how it is fine-tuned."""
    return [name.removeprefix(PREFIX) for name in folders.names() if (folders.ZOO / name / SCHEDULES).is_file()]


def checkpoint(family: str) -> str:
    """Name the shipped checkpoint of a family."""
    return f"{PREFIX}{family}"


def schedule(family: str, use: Literal["demo", "table"], task: Task) -> Schedule:
    """Read how a shipped model is fine-tuned, from the finetune.json beside its weights.

    With the demo's schedules the backdoor takes undefended, at a clean quality as after training on clean rows
    (measured on captions, and on questions for the default model: docs/demo.md). Those for tables are shorter, for many
    runs: the backdoor takes, clean quality is below its best (docs/tables.md).
    """
    return Schedule(**read_object(folders.resolve(checkpoint(family)) / SCHEDULES)[use][task])


CELLS = Path("runs/tables/cells")
"""Folder of the runs of all tables."""
EVALUATE: dict[Task, EvaluateConfig] = {
    "caption": EvaluateConfig(task="caption", examples=512, batch_size=64, new_tokens=25),
    "vqa": EvaluateConfig(task="vqa", examples=512, batch_size=64, new_tokens=4),
}

UNDEFENDED = ObjectiveConfig()
VIEW = ViewConfig(patch_size=8, shuffle_share=1.0, mask_share=0.0)
PAPER = ObjectiveConfig(
    cross_view_weight=0.3, direction="repel", margin=5.0, entropy_weight=0.5, entropy_max=0.5, cross_view_warmup=20
)
"""The paper's objective; docs/demo.md explains the choice of its weights and of the view."""


def experiment(
    task: Task,
    attack: AttackConfig,
    *,
    family: str = FAMILY,
    objective: ObjectiveConfig = UNDEFENDED,
    view: ViewConfig = VIEW,
    seed: int = 0,
) -> Config:
    """Make a run shorter than the demo's, with space for a target inside a caption, scored on half as many rows.

    The task's target replaces that of the attack.
    """
    chosen, data, evaluate = schedule(family, "table", task), DATA[task], EVALUATE[task]
    inside = 7 if task == "caption" else 0
    return named(
        Config(
            out=CELLS,
            seed=seed,
            model=ModelConfig(path=checkpoint(family), trainable="all"),
            data=replace(data, length=chosen.length + inside, answer_length=data.answer_length + inside),
            view=view if objective.views == 2 else ViewConfig(),
            attack=replace(attack, target=TARGETS[task]),
            objective=objective,
            train=training(task, chosen),
            evaluate=replace(evaluate, examples=256, new_tokens=evaluate.new_tokens + inside),
        ),
        family,
        task,
        attack.name,
    )


def training(task: Task, chosen: Schedule) -> TrainConfig:
    """Make the training options of a schedule."""
    return replace(TRAIN[task], steps=chosen.steps, learning_rate=chosen.learning_rate)


def cleaned(start: Config) -> Config:
    """Make the run that fine-tunes a trained run on the clean validation rows for 100 steps."""
    return replace(
        start,
        name=f"{start.name}-cleaned",
        model=replace(start.model, path=str(exported(start))),
        data=replace(start.data, train_split=start.data.validation_split),
        attack=AttackConfig(),
        train=replace(start.train, steps=100, learning_rate=start.train.learning_rate / 2),
    )
