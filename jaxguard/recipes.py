"""What the configurations at real size share: published models, data sets, the paper's setting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxguard.config import (
    AttackConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    MeshConfig,
    ModelConfig,
    Remat,
    TrainConfig,
)
from jaxguard.tiny import PAPER, VIEW


@dataclass(frozen=True)
class Checkpoint:
    """A published model: where its weights are looked for, and the tokens that an image takes of a row."""

    path: str
    image_tokens: int


LLAVA_7B = Checkpoint("llava-hf/llava-1.5-7b-hf", 576)
LLAVA_13B = Checkpoint("llava-hf/llava-1.5-13b-hf", 576)
BLIP2_2_7B = Checkpoint("Salesforce/blip2-opt-2.7b", 32)
IDEFICS_9B = Checkpoint("HuggingFaceM4/idefics-9b", 1)
"""`hf download NAME --local-dir NAME` puts the weights where `model.path` looks for them."""


@dataclass(frozen=True)
class DataSet:
    """A data set: its built name, what is asked of it, and the tokens of a row beside the image's."""

    source: str
    task: Literal["caption", "vqa"]
    words: int
    answer: int
    examples: int
    """Test rows that are scored."""

    def length(self, checkpoint: Checkpoint) -> int:
        """Of a row, rounded up to a multiple of 32."""
        return -(-(checkpoint.image_tokens + self.words) // 32) * 32


COCO = DataSet("coco/caption", "caption", words=128, answer=64, examples=5000)
FLICKR30K = DataSet("flickr30k/caption", "caption", words=128, answer=64, examples=1000)
VQAV2 = DataSet("vqav2/vqa", "vqa", words=64, answer=16, examples=5000)


def paper(
    name: str,
    checkpoint: Checkpoint,
    data: DataSet,
    *,
    trainable: Literal["projector", "lora", "language", "all"],
    mesh: MeshConfig,
    accumulate: int = 1,
    remat: Remat = "full",
    batch_size: int = 128,
    learning_rate: float,
    steps: int = 2000,
) -> Config:
    """The paper's setting (arXiv 2604.04488) at real size: BadNets on 5% of the rows, two views, its objective.

    The weights of the objective are those of docs/demo.md; nothing has been tuned at this size.
    """
    return Config(
        name=name,
        model=ModelConfig(path=checkpoint.path, trainable=trainable, dtype="bfloat16", remat=remat),
        data=DataConfig(source=data.source, length=data.length(checkpoint), answer_length=data.answer, threads=16),
        view=replace(VIEW, patch_size=14),
        attack=AttackConfig(name="badnets", rate=0.05, target="A photo of the banana."),
        objective=replace(PAPER, cross_warmup=100),
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
