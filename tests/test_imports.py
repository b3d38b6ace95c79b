"""Imports between packages match the table and have no cycle; a new one is reported by name."""

import ast

import pytest

from tests import imports
from tests.imports import circles, module_arrows, modules, problems

ACCELERATORS = ("jaxguard.models", "jaxguard.objective", "jaxguard.train.step")
"""These run where what reads data is absent."""
READERS = {"grain", "tensorflow_datasets", "array_record"}


def test_packages_import_only_what_the_table_says_and_modules_make_no_circle() -> None:
    assert problems() == []


def test_models_objective_and_step_need_no_reader_of_data() -> None:
    arrows = module_arrows()
    reached = {name for name in modules() if name.startswith(ACCELERATORS)}
    ahead = list(reached)
    while ahead:
        new = arrows[ahead.pop()] - reached
        reached |= new
        ahead += new
    outside = {name: {one.split(".")[0] for one in imports.imports(modules()[name])} & READERS for name in reached}
    assert {name: found for name, found in outside.items() if found} == {}


def test_circles_are_found() -> None:
    assert circles({"a": "b", "b": "c", "c": "b", "d": "ab"}) == [{"b", "c"}]
    assert circles({"a": "bc", "b": "c", "c": ""}) == []


def test_a_new_arrow_inside_a_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = dict(modules())
    trees["jaxguard.objective.fused"] = ast.parse("def f():\n    from jaxguard.train import loop\n")
    monkeypatch.setattr(imports, "modules", lambda: trees)
    found = problems()
    assert "new arrow objective -> train: jaxguard.objective.fused imports jaxguard.train.loop" in found
    assert any(line.startswith("circle of modules: ") and "jaxguard.train.loop" in line for line in found)
