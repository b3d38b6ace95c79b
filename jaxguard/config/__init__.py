"""Frozen configuration: what a run is. Built in Python, overridden on the command line, written into the run folder."""

from jaxguard.config.attack import AttackConfig
from jaxguard.config.data import DataConfig
from jaxguard.config.evaluate import Checkpoint, EvaluateConfig
from jaxguard.config.guard import GuardConfig
from jaxguard.config.mesh import MeshConfig
from jaxguard.config.model import LoraConfig, ModelConfig, Remat
from jaxguard.config.objective import ObjectiveConfig
from jaxguard.config.run import Config
from jaxguard.config.train import TrainConfig
from jaxguard.config.values import from_dict, keys, suggestion, to_dict
from jaxguard.config.view import ViewConfig

__all__ = [
    "AttackConfig",
    "Checkpoint",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "GuardConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "Remat",
    "TrainConfig",
    "ViewConfig",
    "from_dict",
    "keys",
    "suggestion",
    "to_dict",
]
