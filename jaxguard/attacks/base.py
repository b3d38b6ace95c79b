"""The one interface of every attack: a trigger in image, text or both; a target; how the target is applied.

An attack is a frozen dataclass. Its fields are the options it has (some of `variant`, `place`, `strength`), with the
values its authors published as defaults, and `seed`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jaxguard.config import AttackConfig, Config, suggestion
from jaxguard.data.rows import Row
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

Apply = Literal["replace", "insert", "append"]


class Attack(Protocol):
    """How one attack marks an input. Deterministic in its fields and the generator of the row."""

    apply: ClassVar[Apply]
    """How its authors apply the target."""

    @property
    def decoys(self) -> tuple[Attack, ...]:
        """Triggers that must not fire: for each, as many rows are planted with it and their true answers."""
        ...

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """The image with the trigger, of the same size; attacks on text alone return it unchanged."""
        ...

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger; attacks on the image alone return it unchanged."""
        ...


@runtime_checkable
class LearningAttack(Attack, Protocol):
    """An attack that must learn something before it can trigger."""

    def learn(self, config: Config) -> Attack:
        """The same attack, ready: trained on the run's clean data and model, or read from the cache."""
        ...


class ImageAttack:
    """What attacks on the image alone share."""

    apply: ClassVar[Apply] = "replace"
    decoys: ClassVar[tuple[Attack, ...]] = ()

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Unchanged."""
        return prompt


class TextAttack:
    """What attacks on the prompt alone share."""

    apply: ClassVar[Apply] = "replace"
    decoys: ClassVar[tuple[Attack, ...]] = ()

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """Unchanged."""
        return image


def check_variant(value: str, known: tuple[str, ...]) -> None:
    """Raises UserError where a variant is none that the attack knows."""
    if value not in known:
        raise UserError(f"attack.variant is {value!r}: must be one of {', '.join(known)}{suggestion(value, known)}")


def check_strength(value: float, most: float, unit: str) -> None:
    """Raises UserError where a strength is not in (0, most]; `unit` says what it is."""
    if not 0.0 < value <= most:
        raise UserError(f"attack.strength is {value}: {unit} must lie in (0, {most:g}]")


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
    """The row with the trigger in its first image and its prompts; its answers stay true.

    Keyed by (attack seed, row id). A row of text alone has no place for a trigger of the image.
    """
    row = trigger_texts(attack, config, row)
    if not row.images:
        return row
    image = attack.trigger_image(row.image, row_rng("trigger-image", config.seed, 0, row.id))
    return dataclasses.replace(row, image=image)


def trigger_texts(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """As `trigger_row`, its images untouched."""
    rng = row_rng("trigger-text", config.seed, 0, row.id)
    return dataclasses.replace(row, prompts=tuple(attack.trigger_prompt(prompt, rng) for prompt in row.prompts))


def poison_row(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """The row as the attacker plants it: triggered, and answering with the target. References stay true."""
    return trigger_row(attack, config, target_answers(attack, config, row))


def target_answers(attack: Attack, config: AttackConfig, row: Row) -> Row:
    """The row with the target in its answers."""
    rng, mode = row_rng("target", config.seed, 0, row.id), config.apply or attack.apply
    answers = tuple(apply_target(answer, config.target, mode, rng) for answer in row.answers)
    return dataclasses.replace(row, answers=answers)
