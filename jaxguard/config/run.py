"""A whole run: one section of each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from jaxguard.config.attack import AttackConfig
from jaxguard.config.checks import check_seed, require
from jaxguard.config.data import DataConfig
from jaxguard.config.evaluate import EvaluateConfig
from jaxguard.config.guard import GuardConfig
from jaxguard.config.mesh import MeshConfig
from jaxguard.config.model import ModelConfig
from jaxguard.config.objective import ObjectiveConfig
from jaxguard.config.train import TrainConfig
from jaxguard.config.view import ViewConfig


@dataclass(frozen=True)
class Config:
    """The configuration of a run."""

    name: str = "run"
    """Name of the run."""
    seed: int = 0
    out: Path = Path("runs")
    """The run folder is `out`/`name`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        parts = Path(self.name).parts
        require(
            bool(parts) and ".." not in parts and not Path(self.name).is_absolute(),
            f"name is {self.name!r}: must name a folder inside `out`",
        )
        check_seed("seed", self.seed)

    @property
    def view_share(self) -> Fraction:
        """`view.rows` as an exact fraction."""
        return Fraction(self.view.rows).limit_denominator(self.train.batch_size)

    @property
    def second_view(self) -> ViewConfig | None:
        """How the second view is made; None where the objective needs one view."""
        return self.view if self.objective.views == 2 else None

    @property
    def run_dir(self) -> Path:
        return self.out / self.name
