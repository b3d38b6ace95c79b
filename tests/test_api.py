"""The public names: a short list, imported lazily, independent of earlier imports."""

import subprocess
import sys

import jaxguard
from jaxguard.config import Config
from jaxguard.config.files import load
from jaxguard.evaluate.run import evaluate
from jaxguard.train.loop import train


def test_names_are_the_functions_although_packages_have_the_same_names() -> None:
    assert jaxguard.train is train
    assert jaxguard.evaluate is evaluate
    assert jaxguard.load is load
    assert jaxguard.Config is Config
    assert all(getattr(jaxguard, name) is not None for name in jaxguard.__all__)
    assert not hasattr(jaxguard, "trian")


def test_importing_and_configuring_imports_no_jax() -> None:
    code = "import sys, jaxguard; jaxguard.Config(), jaxguard.load, jaxguard.UserError; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
