"""Checks shared by the sections. Each raises UserError with the full name of the option."""

from __future__ import annotations

import math

from jaxguard.errors import UserError


def require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def check_share(name: str, value: float) -> None:
    require(0.0 <= value <= 1.0, f"{name} is {value}: must be in [0, 1]")


def check_at_least(least: int, section: str, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(least <= value < math.inf, f"{section}.{name} is {value}: must be finite and at least {least}")


def check_seed(name: str, value: int) -> None:
    require(0 <= value < 2**32, f"{name} is {value}: must be in [0, 2**32)")
