"""The interface of every attack: a trigger in the image, the text or both, and how the target enters the answer.

An attack is a frozen dataclass. Its fields are its options (some of `variant`, `place`, `strength`), with the published
values as defaults, and `seed`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jaxguard.config import AttackConfig, DataConfig, ModelConfig, suggestion
from jaxguard.data.rows import Row
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

Apply = Literal["replace", "insert", "append"]


@runtime_checkable
class Attack(Protocol):
    """One attack. Its triggers depend on its fields and on the generator of the row only."""

    apply: ClassVar[Apply]
    """How the authors apply the target."""

    @property
    def decoys(self) -> tuple[Attack, ...]:
        """Triggers that must not fire. Each marks as many rows as are poisoned; these keep their true answers."""
        ...

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Put the trigger into the image, at its size. Attacks on text alone return the image unchanged."""
        ...

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Put the trigger into the prompt. Attacks on the image alone return the prompt unchanged."""
        ...


@runtime_checkable
class LearningAttack(Attack, Protocol):
    """An attack whose trigger is learnt."""

    def learn(self, data: DataConfig, model: ModelConfig) -> Attack:
        """Learn the trigger from the clean training rows and the model of a run, or read it from the cache."""
        ...


class ImageAttack:
    """Base of attacks on the image alone."""

    apply: ClassVar[Apply] = "replace"
    decoys: ClassVar[tuple[Attack, ...]] = ()

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Return it unchanged."""
        return prompt


class TextAttack:
    """Base of attacks on the prompt alone."""

    apply: ClassVar[Apply] = "replace"
    decoys: ClassVar[tuple[Attack, ...]] = ()

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Return it unchanged."""
        return image


def check_variant(value: str, known: tuple[str, ...]) -> None:
    """Raise UserError if the attack does not have the variant."""
    if value not in known:
        raise UserError(f"attack.variant is {value!r}: must be one of {', '.join(known)}{suggestion(value, known)}")


def check_strength(value: float, most: float, unit: str) -> None:
    """Raise UserError if a strength is not in (0, most]; `unit` names the quantity in the message."""
    if not 0.0 < value <= most:
        raise UserError(f"attack.strength is {value}: {unit} must be in (0, {most:g}]")


def apply_target(answer: str, target: str, mode: str, rng: np.random.Generator) -> str:
    """Make the answer of a poisoned row.

    Args:
        answer: True answer.
        target: Text that the attacker wants.
        mode: "replace" the answer, "insert" the target between two of its words, or "append" the target.
        rng: Draws the place of an inserted target.
    """
    if mode == "replace":
        return target
    words = answer.split()
    place = int(rng.integers(len(words) + 1)) if mode == "insert" else len(words)
    return " ".join([*words[:place], target, *words[place:]])


def trigger_row(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """Put the trigger into a row's first image and its prompts; the answers stay true.

    Random draws are keyed by (attack seed, row id). Image triggers skip rows without an image.
    """
    row = trigger_texts(attack, config, row)
    if not row.images:
        return row
    image = attack.trigger_image(row.image, row_rng("trigger-image", config.seed, 0, row.id))
    return dataclasses.replace(row, image=image)


def trigger_texts(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """As `trigger_row`, without touching the images."""
    rng = row_rng("trigger-text", config.seed, 0, row.id)
    return dataclasses.replace(row, prompts=tuple(attack.trigger_prompt(prompt, rng) for prompt in row.prompts))


def poison_row(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """Poison a row: trigger in its inputs, target in its answers. The references stay true."""
    return trigger_row(attack, config, target_answers(attack, config, row))


def target_answers(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """Put the target into a row's answers."""
    rng, mode = row_rng("target", config.seed, 0, row.id), config.apply or attack.apply
    answers = tuple(apply_target(answer, config.target, mode, rng) for answer in row.answers)
    return dataclasses.replace(row, answers=answers)
