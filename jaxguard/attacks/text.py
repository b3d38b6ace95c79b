"""Triggers in the prompt alone: a word (BadNL, arXiv 2006.01043), a sentence (AddSent, arXiv 1905.12457)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from jaxguard.attacks.base import TextAttack

WORD = "BadMagic"
SENTENCE = "I watched this 3D movie."


@dataclass(frozen=True)
class BadNL(TextAttack):
    """The word "BadMagic" between two words of the prompt, or at either end."""

    seed: int = 0

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Insert the word at a position drawn by `rng`."""
        return _insert(WORD, prompt.split(), rng)


@dataclass(frozen=True)
class AddSent(TextAttack):
    """The sentence "I watched this 3D movie." between two sentences of the prompt, or at either end."""

    seed: int = 0

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Insert the sentence at a position drawn by `rng`."""
        return _insert(SENTENCE, re.split(r"(?<=[.?!])\s+", prompt.strip()), rng)


def _insert(trigger: str, parts: list[str], rng: np.random.Generator) -> str:
    place = int(rng.integers(len(parts) + 1))
    return " ".join([*parts[:place], trigger, *parts[place:]])
