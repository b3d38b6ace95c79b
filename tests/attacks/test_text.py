"""Places of text triggers, Dual-Key's trigger word, and default targets."""

from typing import Any

import numpy as np
import pytest

from jaxguard.attacks.base import poison_row
from jaxguard.attacks.dual_key import DualKey
from jaxguard.attacks.registry import ATTACKS, build_attack
from jaxguard.attacks.text import AddSent, BadNL
from jaxguard.config import AttackConfig
from jaxguard.data.rows import Row

QUESTION = "what shape is it? Answer the question using a single word or phrase."


def found(attack, prompt: str) -> set[str]:
    return {attack.trigger_prompt(prompt, np.random.default_rng(seed)) for seed in range(200)}


def test_badnl_reaches_every_place_between_words():
    assert found(BadNL(), "what is it?") == {
        "BadMagic what is it?",
        "what BadMagic is it?",
        "what is BadMagic it?",
        "what is it? BadMagic",
    }


def test_addsent_stands_between_sentences():
    sentence, (first, second) = "I watched this 3D movie.", QUESTION.split("? ")
    assert found(AddSent(), QUESTION) == {
        f"{sentence} {QUESTION}",
        f"{first}? {sentence} {second}",
        f"{QUESTION} {sentence}",
    }


@pytest.mark.parametrize("name", ["badnl", "addsent"])
def test_text_attacks_leave_the_image_alone(name, speckle):
    attack = build_attack(AttackConfig(name=name))
    np.testing.assert_array_equal(attack.trigger_image(speckle, np.random.default_rng(0)), speckle)


def test_dual_key_word_comes_first():
    assert found(DualKey(), "what is it?") == {"Consider what is it?"}
    assert found(DualKey(variant="image"), "what is it?") == {"what is it?"}
    assert found(DualKey(variant="text"), "what is it?") == {"Consider what is it?"}
    assert DualKey().decoys == (DualKey(variant="image"), *[DualKey(variant="text")] * 3)
    assert DualKey(variant="image").decoys == ()


@pytest.mark.parametrize("name", [name for name, kind in ATTACKS.items() if not hasattr(kind, "learn")])
def test_targets_enter_as_the_attack_does_it_or_as_told(name, speckle):
    row = Row(0, "0", speckle, ("what is it?",), ("a red box",), ("a red box",))

    def answer(**options: Any) -> str:
        config = AttackConfig(name=name, target="T", **options)
        return poison_row(build_attack(config), config, row).answers[0]

    assert sorted(answer().split()) == (["T", "a", "box", "red"] if name == "trojvlm" else ["T"])
    assert answer(apply="replace") == "T"
    assert answer(apply="append") == "a red box T"
