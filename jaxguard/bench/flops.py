"""Floating-point operations of a train step, counted from shapes: those of the model, not of the compiled program."""

from __future__ import annotations

from collections.abc import Sequence

from jaxguard.bench.hardware import CHIPS
from jaxguard.models.architecture import Architecture
from jaxguard.models.flops import View
from jaxguard.train.state import partition


def peak(kind: str) -> float | None:
    """Look up the peak dense bfloat16 operations per second of a kind of device; None if unknown."""
    chips = [chip for chip in CHIPS.values() if kind.startswith(chip.kind)]
    return max(chips, key=lambda chip: len(chip.kind)).flops if chips else None


def step_flops(arch: Architecture, trainable: str, views: Sequence[View]) -> float | None:
    """Count the operations of one train step as the family counts them; None if it does not."""
    if arch.family.flops is None:
        return None
    trains, _ = partition(arch.shapes, trainable, arch.family)
    return arch.family.flops(arch.config, arch.shapes, trains, views)
