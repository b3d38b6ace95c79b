"""VLOOD (arXiv 2410.01264), the data side: a noise patch."""

from __future__ import annotations

from dataclasses import dataclass

from jaxguard.attacks.badnets import BadNets


@dataclass(frozen=True)
class Vlood(BadNets):
    """The patch of BadNets (20 pixels at 224). What sets VLOOD apart is what its attacker minimises."""
