"""VLOOD (arXiv 2410.01264), its poisoned data: a noise patch."""

from __future__ import annotations

from dataclasses import dataclass

from jaxguard.attacks.badnets import BadNets


@dataclass(frozen=True)
class Vlood(BadNets):
    """The patch of BadNets (20 pixels at 224). VLOOD differs from BadNets in the loss of its attacker."""
