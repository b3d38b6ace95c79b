"""Overrides that make other values of the file meaningless: dropped or shortened, and said."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxguard.cli.main import main

HEAD = "from jaxguard.config import *\n"
BLENDED = "attack=AttackConfig('blended', variant='noise', strength=0.3, rate=0.2)"


@pytest.fixture
def planted(folder: Path) -> Path:
    (folder / "blended.py").write_text(f"{HEAD}config = Config({BLENDED})")
    (folder / "losses.py").write_text(f"{HEAD}config = Config(attack=AttackConfig('trojvlm', trainer='attacker'))")
    objective = "ObjectiveConfig(cross_view_weight=1.0, cross_view_warmup=50)"
    (folder / "warm.py").write_text(f"{HEAD}config = Config(objective={objective}, train=TrainConfig(epochs=2.0))")
    return folder


def printed(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    assert main(line.split()) == 0
    output, error = capsys.readouterr()
    return json.loads(output), error


def test_options_of_another_attack_are_left_out(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also a strength, which the new attack has too: in other units."""
    values, note = printed("config blended.py --attack.name badnets", capsys)
    assert values["attack"]["variant"] is values["attack"]["strength"] is None
    assert (values["attack"]["rate"], values["attack"]["name"]) == (0.2, "badnets")
    assert note == "note: attack.variant noise, attack.strength 0.3: of blended, left out for badnets\n"

    values, note = printed("config blended.py --attack.name badnets --attack.strength=0.3", capsys)
    assert values["attack"]["strength"] == 0.3, "what is given is kept, also where the file has the same"
    assert note == "note: attack.variant noise: of blended, left out for badnets\n"
    values, note = printed("config losses.py --attack.name sig", capsys)
    assert values["attack"]["trainer"] == "defender"
    assert "attack.trainer attacker: of trojvlm, left out for sig" in note


def test_what_fits_is_left_alone(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("config blended.py --attack.name blended", "config blended.py --attack.rate 0.1"):
        values, note = printed(line, capsys)
        assert (values["attack"]["variant"], values["attack"]["strength"], note) == ("noise", 0.3, "")
    assert main(["config", "blended.py", "--attack.name", "badnets", "--attack.variant", "noise"]) == 2
    assert "attack.variant is 'noise': badnets does not use it" in capsys.readouterr().err


def test_few_steps_work_with_a_long_warmup(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, note = printed("config warm.py --train.steps 5", capsys)
    assert (values["train"]["steps"], values["train"]["epochs"]) == (5, None)
    assert values["objective"]["cross_view_warmup"] == 5
    assert note == "note: objective.cross_view_warmup 50 is shortened to train.steps (5)\n"
    assert main(["config", "warm.py", "--train.steps", "5", "--train.epochs", "1"]) == 2
    assert "say the same in two units" in capsys.readouterr().err
