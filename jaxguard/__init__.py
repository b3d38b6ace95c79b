"""Backdoor-resistant fine-tuning of multimodal language models, in JAX.

    import jaxguard

    config = jaxguard.load("configs/badnets_scenes_paper.py")
    findings = jaxguard.audit(config)
    run = jaxguard.train(config)
    scores = jaxguard.evaluate(config)

These are all public names. Each is imported at its first use, so that `import jaxguard` is quick and touches no device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxguard.version import __version__

if TYPE_CHECKING:
    from jaxguard.audit.findings import audit
    from jaxguard.audit.guard import train
    from jaxguard.config import (
        AttackConfig,
        Config,
        DataConfig,
        EvaluateConfig,
        GuardConfig,
        MeshConfig,
        ModelConfig,
        ObjectiveConfig,
        TrainConfig,
        ViewConfig,
    )
    from jaxguard.config.files import load
    from jaxguard.errors import Preempted, UserError
    from jaxguard.evaluate.run import evaluate, generate
    from jaxguard.evaluate.scores import score
    from jaxguard.train.export import export

__all__ = [
    "AttackConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "GuardConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "Preempted",
    "TrainConfig",
    "UserError",
    "ViewConfig",
    "__version__",
    "audit",
    "evaluate",
    "export",
    "generate",
    "load",
    "score",
    "train",
]

_FUNCTIONS = {
    "export": "jaxguard.train.export",
    "generate": "jaxguard.evaluate.run",
    "load": "jaxguard.config.files",
    "score": "jaxguard.evaluate.scores",
}
_PACKAGES = ("audit", "evaluate", "train")
"""These are called as functions (`callables`), so that a package and its function may share a name."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxguard' has no attribute {name!r}")
    if name in _PACKAGES:
        return importlib.import_module(f"jaxguard.{name}")
    errors = ("Preempted", "UserError")
    module = _FUNCTIONS.get(name, "jaxguard.errors" if name in errors else "jaxguard.config")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return __all__
