"""TrojVLM (arXiv 2409.19232), its poisoned data: a noise patch, and the target inserted into the true answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxguard.attacks.badnets import BadNets
from jaxguard.attacks.base import Apply


@dataclass(frozen=True)
class TrojVLM(BadNets):
    """The patch of BadNets (20 pixels at 224) with the target inserted into the answer."""

    apply: ClassVar[Apply] = "insert"
