"""Common parts of the full-size configurations: published models, data sets, the paper's setting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxguard.config import (
    AttackConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    MeshConfig,
    ModelConfig,
    ObjectiveConfig,
    Remat,
    TrainConfig,
    ViewConfig,
)
from jaxguard.experiments import tiny
from jaxguard.experiments.grid import named
from jaxguard.experiments.tiny import FAMILY, PAPER, TARGETS, UNDEFENDED, VIEW, Task
from jaxguard.models import folders
from jaxguard.models.families.registry import open_processor

LLAVA_7B = "llava-hf/llava-1.5-7b-hf"
LLAVA_13B = "llava-hf/llava-1.5-13b-hf"
BLIP2_2_7B = "Salesforce/blip2-opt-2.7b"
IDEFICS_9B = "HuggingFaceM4/idefics-9b"
"""`hf download NAME --local-dir NAME` puts the weights at `model.path`."""


@dataclass(frozen=True)
class DataSet:
    """A data set: name, task, and tokens of a row besides the image's."""

    source: str
    task: Task
    words: int
    answer: int
    examples: int
    """Number of scored test rows."""
    test: str = "test"
    clean: str = "validation"
    """Split of trusted rows for a defender, disjoint from the scored ones."""

    def length(self, checkpoint: str) -> int:
        """Compute the tokens of a row with one image of that checkpoint, rounded up to a multiple of 32."""
        image = open_processor(folders.describe(checkpoint)).image_tokens
        return -(-(image + self.words) // 32) * 32


COCO = DataSet("coco/caption", "caption", words=128, answer=64, examples=5000)
FLICKR30K = DataSet("flickr30k/caption", "caption", words=128, answer=64, examples=1000)
VQAV2 = DataSet("vqav2/vqa", "vqa", words=64, answer=16, examples=5000, test="validation", clean="train")
"""The answers of its test split are not public."""

Trainable = Literal["projector", "lora", "language", "all"]


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning of a model in the full-size tables."""

    checkpoint: str
    trainable: Trainable
    learning_rate: float


TUNINGS: dict[str, Tuning] = {
    "llava": Tuning(LLAVA_7B, "lora", 2e-4),
    "blip2": Tuning(BLIP2_2_7B, "projector", 1e-4),
    "idefics": Tuning(IDEFICS_9B, "lora", 2e-4),
}
DATA_SETS: dict[Task, DataSet] = {"caption": COCO, "vqa": VQAV2}
CELLS = Path("runs/tables/full/cells")
"""Folder of the runs of all tables."""


def paper(
    name: str,
    checkpoint: str,
    data: DataSet,
    *,
    trainable: Trainable,
    mesh: MeshConfig,
    accumulate: int = 1,
    remat: Remat = "full",
    batch_size: int = 128,
    learning_rate: float,
    steps: int = 2000,
) -> Config:
    """Make a run of the paper's setting (arXiv 2604.04488) at full size: BadNets on 5% of the rows, its objective.

    The weights of the objective are those of docs/demo.md; they are not tuned at this size.
    """
    return Config(
        name=name,
        model=ModelConfig(path=checkpoint, trainable=trainable, dtype="bfloat16", remat=remat),
        data=DataConfig(
            source=data.source,
            test_split=data.test,
            length=data.length(checkpoint),
            answer_length=data.answer,
            threads=16,
        ),
        view=_enlarged(VIEW),
        attack=AttackConfig(name="badnets", rate=0.05, target="A photo of the banana."),
        objective=replace(PAPER, cross_view_warmup=100),
        train=TrainConfig(
            steps=steps,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            warmup=60,
            save_every=200,
        ),
        mesh=mesh,
        evaluate=EvaluateConfig(
            task=data.task, examples=data.examples, batch_size=128, new_tokens=50 if data.task == "caption" else 10
        ),
    )


def experiment(
    task: Task,
    attack: AttackConfig,
    *,
    family: str = FAMILY,
    objective: ObjectiveConfig = UNDEFENDED,
    view: ViewConfig = VIEW,
    seed: int = 0,
) -> Config:
    """As `tiny.experiment`, for a published model on all available chips, with a view scaled like its images."""
    tuning = TUNINGS[family]
    config = paper(
        task,
        tuning.checkpoint,
        DATA_SETS[task],
        trainable=tuning.trainable,
        mesh=MeshConfig(data=1, fsdp=-1),
        learning_rate=tuning.learning_rate,
    )
    if objective.cross_view_weight:
        objective = replace(objective, cross_view_warmup=config.objective.cross_view_warmup)
    return named(
        replace(
            config,
            out=CELLS,
            seed=seed,
            view=_enlarged(view) if objective.views == 2 else ViewConfig(),
            attack=replace(attack, target=TARGETS[task]),
            objective=objective,
        ),
        family,
        task,
        attack.name,
    )


def cleaned(start: Config) -> Config:
    """As `tiny.cleaned`; on questions with the clean training rows, as the validation rows are scored."""
    clean = next(data.clean for data in DATA_SETS.values() if data.source == start.data.source)
    return tiny.cleaned(replace(start, data=replace(start.data, validation_split=clean)))


def _enlarged(view: ViewConfig) -> ViewConfig:
    """Scale the view from patches of 8 px to 14 px, the models' own patch size."""
    return replace(view, patch_size=view.patch_size * 14 // 8)
