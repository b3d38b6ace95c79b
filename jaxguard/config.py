"""Frozen configuration: what a run is. Built in Python, overridden on the command line, written into the run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxguard.errors import UserError


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _share(name: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, f"{name} is {value}: must lie in [0, 1]")


@dataclass(frozen=True)
class ModelConfig:
    """Which checkpoint, and what of it trains."""

    path: str = "tiny-llava"
    """A folder in Hugging Face layout, or the name of a checkpoint shipped in jaxguard/models/zoo."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture and tokenizer of `path` and draws fresh weights."""
    trainable: Literal["projector", "language", "all"] = "language"
    """projector only; projector + language model; everything."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type. Trainable parameters and losses are float32."""
    remat: bool = False
    """Recompute each layer's activations in the backward pass."""


@dataclass(frozen=True)
class DataConfig:
    """Which rows, and how they become batches."""

    source: str = "scenes/caption"
    """A built data set: NAME/TASK, one of `jaxguard data list`."""
    root: Path = Path("data")
    """Where built data sets lie."""
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    limit: int | None = None
    """Use only the first `limit` training rows."""
    pack: int = 1
    """Question-answer pairs of one image packed behind one image prefix."""
    length: int = 128
    """Tokens per row, image tokens included."""
    answer_length: int = 48
    """Answer tokens per row at most, all packed pairs together: the head runs on so many positions of a row."""
    threads: int = 2
    """Reader threads."""


@dataclass(frozen=True)
class ViewConfig:
    """The perturbed second view. Deterministic in (seed, epoch, example id)."""

    patch_size: int = 8
    """Side of a patch in pixels of the model's input; independent of the model's own patch size."""
    shuffle_share: float = 0.5
    """Share of the patches that are permuted among themselves."""
    window: int = 0
    """Permute only inside windows of `window` x `window` patches; 0 permutes over the whole image."""
    mask_share: float = 0.1
    """Share of the patches that are masked."""
    mask_fill: Literal["mean", "zero", "noise"] = "mean"
    jitter: bool = False
    """Offset the patch grid at random, by less than one patch."""

    def __post_init__(self) -> None:
        _require(self.patch_size >= 1, f"view.patch_size is {self.patch_size}: must be at least 1 pixel")
        _require(self.window >= 0 and self.window != 1, f"view.window is {self.window}: use 0 (global) or at least 2")
        _share("view.shuffle_share", self.shuffle_share)
        _share("view.mask_share", self.mask_share)
        _require(self.mask_share < 1.0, "view.mask_share is 1.0: a view that hides every patch carries nothing")


@dataclass(frozen=True)
class AttackConfig:
    """What an attacker planted. `name="none"` is clean data."""

    name: str = "none"
    rate: float = 0.05
    """Share of the training rows that are poisoned."""
    place: Literal["fixed", "random"] = "random"
    """Corner of the image, or a place drawn per row."""
    target: str = "A photo of the banana."
    apply: Literal["replace", "insert", "append"] = "replace"
    """How the target enters the answer."""
    seed: int = 0

    def __post_init__(self) -> None:
        _share("attack.rate", self.rate)
        _require(bool(self.target.strip()), "attack.target is empty: give the text the attacker wants")


@dataclass(frozen=True)
class ObjectiveConfig:
    """L = CE(p) + alpha CE(q) + lambda R_cross + mu R_ent (arXiv 2604.04488; our reading of it, docs/objective.md)."""

    alpha: float = 0.0
    """Weight of the cross-entropy of the second view."""
    cross: float = 0.0
    """lambda: weight of the cross-view term."""
    direction: Literal["repel", "attract"] = "repel"
    margin: float = 5.0
    """Nats; `repel` stops pushing where J exceeds it."""
    entropy: float = 0.0
    """mu: weight of the entropy band."""
    entropy_max: float | None = None
    """Nats; the upper side of the band, or off."""
    entropy_min: float | None = None
    """Nats; the lower side of the band, or off."""
    positions: Literal["answer", "content", "first"] = "answer"
    """Where the cross-view and entropy terms act: all answer tokens; without the end token; the first only."""
    cross_warmup: int = 0
    """Steps over which lambda rises linearly from 0."""
    cross_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of lambda from its full value to 0 at the last step."""

    def __post_init__(self) -> None:
        for name in ("alpha", "cross", "margin", "entropy", "cross_warmup"):
            value = getattr(self, name)
            _require(value >= 0, f"objective.{name} is {value}: must not be negative")
        low, high = self.entropy_min, self.entropy_max
        _require(low is None or low >= 0, f"objective.entropy_min is {low}: must not be negative")
        _require(
            low is None or high is None or low <= high,
            f"objective.entropy_min ({low}) exceeds objective.entropy_max ({high})",
        )
        _require(
            self.entropy == 0 or low is not None or high is not None,
            "objective.entropy is set but neither objective.entropy_min nor objective.entropy_max is",
        )

    @property
    def views(self) -> int:
        """Views a step needs: 1 where no term looks at the second."""
        return 2 if self.alpha > 0 or self.cross > 0 else 1


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation and bookkeeping of one run."""

    steps: int = 200
    batch_size: int = 32
    """Rows over all devices."""
    learning_rate: float = 1e-3
    warmup: int = 20
    """Steps of linear warm-up; cosine decay to `final` x the peak follows."""
    final: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    """Global gradient norm."""
    log_every: int = 20
    save_every: int = 500
    keep: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every", "keep"):
            value = getattr(self, name)
            _require(value >= 1, f"train.{name} is {value}: must be at least 1")
        _require(self.learning_rate > 0, f"train.learning_rate is {self.learning_rate}: must be positive")
        _require(self.clip > 0, f"train.clip is {self.clip}: must be positive")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis. One axis may be -1: whatever is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class EvaluateConfig:
    """Decoding and scoring."""

    task: Literal["caption", "vqa"] = "caption"
    """Which scores apply to the answers."""
    examples: int = 256
    """Test rows: the first of the test split."""
    batch_size: int = 64
    new_tokens: int = 50
    """Greedy decoding stops here or at the end token."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    name: str = "run"
    seed: int = 0
    out: Path = Path("runs")
    """The run lives in `out`/`name`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @property
    def run_dir(self) -> Path:
        return self.out / self.name


def to_dict(config: Config) -> dict:
    """The resolved values as plain JSON types."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))
