"""Frozen configuration: what a run is. Built in Python, overridden on the command line, written into the run folder."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxguard.errors import UserError


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _share(name: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, f"{name} is {value}: must lie in [0, 1]")


def _at_least(least: int, section: str, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(least <= value < math.inf, f"{section}.{name} is {value}: must be finite and at least {least}")


def _seed(name: str, value: int) -> None:
    _require(0 <= value < 2**32, f"{name} is {value}: must lie in [0, 2**32)")


Checkpoint = Literal["newest", "best"]
Remat = Literal["none", "dots", "full"]
"""What the backward pass computes again: nothing; all of a layer but its products with weights; a whole layer."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, where `model.trainable` is "lora"."""

    rank: int = 16
    alpha: float = 32.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = 0.0
    """Of the adapter's input, while training."""
    targets: str = r"^language\.layers\."
    """A regular expression over the paths of linear layers: language.layers.query, projector.first, ..."""

    def __post_init__(self) -> None:
        _at_least(1, "model.lora", self, "rank")
        _require(0 < self.alpha < math.inf, f"model.lora.alpha is {self.alpha}: must be finite and positive")
        _require(0 <= self.dropout < 1, f"model.lora.dropout is {self.dropout}: must lie in [0, 1)")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"model.lora.targets {self.targets!r} is not a regular expression ({error})") from error


@dataclass(frozen=True)
class ModelConfig:
    """Which checkpoint, and what of it trains."""

    path: str = "tiny-llava"
    """A folder in Hugging Face layout, or the name of a checkpoint shipped in jaxguard/models/zoo."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture and tokenizer of `path` and draws fresh weights."""
    trainable: Literal["projector", "lora", "decoder", "language", "all"] = "language"
    """What joins tower and decoder; adapters only; the decoder, not the queries that read the tower; that and the
    queries; everything."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type. Trainable parameters and losses are float32."""
    remat: Remat = "none"
    """What the backward pass computes again, layer by layer: nothing; all but products with weights; everything."""


@dataclass(frozen=True)
class DataConfig:
    """Which rows, and how they become batches."""

    source: str = "scenes/caption"
    """A built data set: NAME/TASK, one of `jaxguard data list`; or a mixture: NAME=WEIGHT,NAME=WEIGHT,..."""
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
    images: int = 1
    """Images per row at most."""
    bucket: int = 0
    """Batch rows of about one length, padded to a multiple of this many tokens; 0 pads all rows to `length`."""
    threads: int = 2
    """Reader threads. One is best where images are of few pixels and cores few: such rows hold Python's lock."""

    def __post_init__(self) -> None:
        for name in ("source", "train_split", "validation_split", "test_split"):
            _require(bool(getattr(self, name)), f"data.{name} is empty")
        _at_least(1, "data", self, "pack", "length", "answer_length", "images")
        _at_least(0, "data", self, "threads", "bucket")
        _require(
            self.bucket == 0 or self.pack == 1,
            f"data.bucket is set and data.pack is {self.pack}: chance decides what is packed, and so how long it is",
        )
        _require(self.limit is None or self.limit >= 1, f"data.limit is {self.limit}: must be at least 1, or None")
        _require(
            self.answer_length < self.length,
            f"data.answer_length ({self.answer_length}) must be less than data.length ({self.length})",
        )


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
    mask_fill: Literal["mean", "zero", "noise", "drop"] = "mean"
    """`drop` takes masked patches out: vision tower and language model then run on fewer tokens."""
    jitter: bool = False
    """Offset the patch grid at random, by less than one patch."""
    rows: float = 1.0
    """Share of a batch's rows that get a second view; which ones changes with every epoch's order."""

    def __post_init__(self) -> None:
        _require(self.patch_size >= 1, f"view.patch_size is {self.patch_size}: must be at least 1 pixel")
        _require(self.window >= 0 and self.window != 1, f"view.window is {self.window}: use 0 (global) or at least 2")
        _share("view.shuffle_share", self.shuffle_share)
        _share("view.mask_share", self.mask_share)
        _require(self.mask_share < 1.0, "view.mask_share is 1.0: a view that hides every patch carries nothing")
        _require(
            self.mask_fill != "drop" or not self.jitter,
            "view.jitter is on: patches that are dropped must lie on the model's own grid",
        )
        _require(0 < self.rows <= 1, f"view.rows is {self.rows}: must lie in (0, 1]")


@dataclass(frozen=True)
class AttackConfig:
    """What an attacker planted. `name="none"` is clean data; None stands for what the attack's authors published."""

    name: str = "none"
    """One of jaxguard/attacks/registry.py; docs/attacks.md tells what each does with the options below."""
    rate: float = 0.05
    """Share of the training rows that are poisoned."""
    variant: str | None = None
    """Where papers disagree under one name: which of them."""
    place: Literal["fixed", "random"] | None = None
    """Of a patch: a fixed corner of the image, or a place drawn per row."""
    strength: float | None = None
    """How strong the trigger is, in the attack's own unit (a patch: its side over the image's shorter side)."""
    target: str = "A photo of the banana."
    apply: Literal["replace", "insert", "append"] | None = None
    """How the target enters the answer."""
    trainer: Literal["defender", "attacker"] = "defender"
    """Who trains: `attacker` minimises the attack's own losses, for judging what is left to purify."""
    seed: int = 0

    def __post_init__(self) -> None:
        _share("attack.rate", self.rate)
        _seed("attack.seed", self.seed)
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
        _at_least(0, "objective", self, "alpha", "cross", "margin", "entropy", "cross_warmup")
        low, high = self.entropy_min, self.entropy_max
        _at_least(
            0, "objective", self, *(name for name in ("entropy_min", "entropy_max") if getattr(self, name) is not None)
        )
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
    accumulate: int = 1
    """Micro-batches that a step runs one behind the other; loss and gradient are those of the whole batch."""
    learning_rate: float = 1e-3
    warmup: int = 20
    """Steps of linear warm-up; cosine decay to `final` x the peak follows."""
    final: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    """Global gradient norm."""
    log_every: int = 20
    save_every: int = 500
    save_minutes: float | None = None
    """Save also so long after the last time, as soon as metrics are logged; None goes by steps alone."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 0
    """Checkpoints kept besides for the lowest validation loss."""
    validation: int = 0
    """Rows of data.validation_split whose loss is taken at every save; 0 takes none."""
    probe: int = 0
    """Poisoned training rows, and as many clean ones, of which loss, entropy and J are logged beside the metrics."""

    def __post_init__(self) -> None:
        _at_least(1, "train", self, "steps", "batch_size", "accumulate", "log_every", "save_every", "keep")
        _at_least(0, "train", self, "warmup", "weight_decay", "keep_best", "validation", "probe")
        _require(
            self.save_minutes is None or 0 < self.save_minutes < math.inf,
            f"train.save_minutes is {self.save_minutes}: must be finite and positive, or None",
        )
        _require(
            self.keep_best == 0 or self.validation > 0,
            "train.keep_best is set but train.validation, the rows to judge by, is 0",
        )
        _share("train.final", self.final)
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"train.{name} is {value}: must be finite and positive")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis. One axis may be -1: whatever is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    hardware: str | None = None
    """What the run is meant for: a TPU slice ("v5e:4x4") or GPUs ("8xH100"). Only `jaxguard rehearse` reads it."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("data", "fsdp", "tensor")}
        for name, size in sizes.items():
            _require(size == -1 or size >= 1, f"mesh.{name} is {size}: must be at least 1, or -1 for what is left")
        rest = [f"mesh.{name}" for name, size in sizes.items() if size == -1]
        _require(len(rest) <= 1, f"{' and '.join(rest)} are -1: only one axis can take what is left")


@dataclass(frozen=True)
class EvaluateConfig:
    """Decoding and scoring."""

    task: Literal["caption", "vqa"] = "caption"
    """Which scores apply to the answers."""
    examples: int = 256
    """Test rows: the first of the test split."""
    batch_size: int = 64
    new_tokens: int = 50
    """Decoding stops here or at the end token."""
    beams: int = 1
    """Sequences that beam search keeps; 1 decodes greedily."""
    checkpoint: Checkpoint = "newest"
    """Whose parameters: the newest, or those of the lowest validation loss (train.validation)."""

    def __post_init__(self) -> None:
        _at_least(1, "evaluate", self, "examples", "batch_size", "new_tokens", "beams")


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

    def __post_init__(self) -> None:
        parts = Path(self.name).parts
        _require(
            bool(parts) and ".." not in parts and not Path(self.name).is_absolute(),
            f"name is {self.name!r}: must name a folder inside `out`",
        )
        _seed("seed", self.seed)

    @property
    def view_share(self) -> Fraction:
        """`view.rows` as a fraction of the rows of a batch."""
        return Fraction(self.view.rows).limit_denominator(self.train.batch_size)

    @property
    def run_dir(self) -> Path:
        return self.out / self.name


def keys(kind: type = Config, prefix: str = "") -> list[str]:
    """The dotted names of all values: "name", "seed", ..., "train.steps", ..."""
    found: list[str] = []
    for name, hint in get_type_hints(kind).items():
        found += keys(hint, f"{prefix}{name}.") if _is_section(hint) else [prefix + name]
    return found


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known one, if any is close.

    Of dotted names the last part may stand alone: "steps" suggests "train.steps".
    """

    def closeness(choice: str) -> float:
        pairs = ((name, choice), (name.rpartition(".")[2].lstrip("-"), choice.rpartition(".")[2].lstrip("-")))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    best = max(known, key=closeness, default="")
    return f"; did you mean {best}?" if closeness(best) >= 0.6 else ""


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved values as plain JSON types."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The configuration that `to_dict` wrote. A key that is not there keeps its default.

    `model.remat` was once true or false: these are "full" and "none".

    Raises:
        UserError: an unknown key, a value of another type, or an impossible value.
    """
    return _section(Config, values, "")


def _is_section(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _section(kind: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.') or 'the configuration'} is {values!r}: must be an object of named values")
    if kind is ModelConfig and isinstance(values.get("remat"), bool):
        values = {**values, "remat": "full" if values["remat"] else "none"}
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            known = [*(prefix + hint for hint in hints), *keys()]
            raise UserError(f"unknown key {prefix}{name}{suggestion(f'{prefix}{name}', known)}")
    return kind(**{name: _value(hints[name], value, prefix + name) for name, value in values.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    """`value` as the field type `hint`: a section, str, int, float, bool, Path, Literal, or one of these or None."""
    if _is_section(hint):
        return _section(hint, value, f"{key}.")
    if get_origin(hint) in (UnionType, Union):  # Literal | None is the second
        (hint,) = (option for option in get_args(hint) if option is not type(None))
        return None if value is None else _value(hint, value, key)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        _require(value in choices, f"{key} is {value!r}: must be one of {', '.join(map(repr, choices))}")
        return value
    accepted, noun = {
        str: (str, "a text"),
        Path: (str, "a path"),
        int: (int, "a whole number"),
        float: (int | float, "a number"),
        bool: (bool, "true or false"),
    }[hint]
    _require(
        isinstance(value, accepted) and (hint is bool or not isinstance(value, bool)),
        f"{key} is {value!r}: must be {noun}",
    )
    return hint(value)
