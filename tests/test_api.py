"""The public names: few, lazy, and callable whatever was imported before."""

import subprocess
import sys
from pathlib import Path

import pytest

import jaxguard
from jaxguard.config import Config
from jaxguard.config.files import load


def test_packages_are_called_as_the_functions_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in {"train": "loop", "evaluate": "run"}.items():
        monkeypatch.setattr(f"jaxguard.{name}.{module}.{name}", lambda config, *_, name=name: Path(name) / config.name)
        assert getattr(jaxguard, name)(Config(name="mine")) == Path(name) / "mine"


def test_names_are_what_the_modules_define() -> None:
    assert jaxguard.load is load
    assert jaxguard.Config is Config
    assert all(getattr(jaxguard, name) is not None for name in jaxguard.__all__)
    assert not hasattr(jaxguard, "trian")


def test_importing_and_configuring_imports_no_jax() -> None:
    code = "import sys, jaxguard; jaxguard.Config(), jaxguard.load, jaxguard.train; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
