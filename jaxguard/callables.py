"""Packages that can be called like the function they are named after: `jaxguard.train(config)`."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, module: str, function: str) -> None:
    """Let a package be called as one of its functions, which is imported at the call.

    Args:
        package: its dotted name; it is being imported.
        module: dotted name of the module that holds the function.
        function: its name.
    """

    class Package(ModuleType):
        def __call__(self, *args: Any, **options: Any) -> Any:
            return getattr(import_module(module), function)(*args, **options)

    sys.modules[package].__class__ = Package
