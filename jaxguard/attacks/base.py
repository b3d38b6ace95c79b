"""The one interface of every attack: a trigger in image, text or both; a target; how the target is applied."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from jaxguard.config import AttackConfig
from jaxguard.data.rows import Row
from jaxguard.data.views import row_rng


class Attack(Protocol):
    """How one attack marks an input. Deterministic in its configuration and the generator of the row."""

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """The image with the trigger, of the same size; attacks on text alone return it unchanged."""
        ...

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger; attacks on the image alone return it unchanged."""
        ...


def apply_target(answer: str, target: str, mode: str, rng: np.random.Generator) -> str:
    """What a poisoned row answers.

    Args:
        answer: the true answer.
        target: the attacker's text.
        mode: "replace" the answer; "insert" the target between two of its words, drawn at random; or "append" it.
        rng: draws the place.
    """
    if mode == "replace":
        return target
    words = answer.split()
    place = int(rng.integers(len(words) + 1)) if mode == "insert" else len(words)
    return " ".join([*words[:place], target, *words[place:]])


def trigger_row(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """The row with the trigger in its image and prompts; its answers stay true. Keyed by (attack seed, row id)."""
    image = attack.trigger_image(row.image, row_rng("trigger-image", config.seed, 0, row.id))
    text = row_rng("trigger-text", config.seed, 0, row.id)
    prompts = tuple(attack.trigger_prompt(prompt, text) for prompt in row.prompts)
    return dataclasses.replace(row, image=image, prompts=prompts)


def poison_row(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """The row as the attacker plants it: triggered, and answering with the target. References stay true."""
    rng = row_rng("target", config.seed, 0, row.id)
    answers = tuple(apply_target(answer, config.target, config.apply, rng) for answer in row.answers)
    return dataclasses.replace(trigger_row(attack, config, row), answers=answers)
