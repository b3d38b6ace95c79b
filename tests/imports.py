"""Imports between the modules of jaxguard, read from the sources; imports inside functions count.

python -m tests.imports    prints the table of packages, and fails if it differs from the one below
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1] / "jaxguard"

ARROWS = {
    "version": "",
    "callables": "",
    "errors": "",
    "files": "errors",
    "processes": "errors",
    "config": "errors files",
    "batch": "",
    "models": "errors files config",
    "objective": "config models",
    "data": "errors files config batch models",
    "attacks": "errors config models data",
    "train": "callables errors files processes config batch models objective data attacks",
    "audit": "callables errors files processes config models data attacks train",
    "evaluate": "version callables errors files processes config batch models data attacks train",
    "report": "errors files config data attacks train audit evaluate",
    "experiments": "version errors files processes config models data attacks train audit evaluate report",
    "bench": "version errors files config batch models objective data train evaluate report experiments",
    "cli": "version errors files processes config models data attacks train audit evaluate report experiments bench",
    "__main__": "cli",
    "jaxguard": "version errors config train audit evaluate",
    "zoo": "errors config models data train",
}
"""What each package imports: only those above it, so that there is no circle. `jaxguard` only names what users call."""


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax trees of all modules, by their dotted names."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(), str(path))
    return found


def imports(tree: ast.Module) -> set[str]:
    """The modules that a module names in its import statements; of `from package import module`, the module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules() else node.module for name in whole}
    return names


def module_arrows() -> dict[str, set[str]]:
    """For each module, those of jaxguard that it imports."""
    return {name: (imports(tree) & modules().keys()) - {name} for name, tree in modules().items()}


def package(module: str) -> str:
    """The first folder or file under jaxguard; the root's own is `jaxguard`."""
    return [*module.split("."), module][1]


def package_arrows() -> dict[str, dict[str, list[str]]]:
    """For each package, those that it imports, with the pairs of modules that do so as texts."""
    table: dict[str, dict[str, list[str]]] = {}
    for module, imported in module_arrows().items():
        row = table.setdefault(package(module), {})
        for other in sorted(imported):
            if package(other) != package(module):
                row.setdefault(package(other), []).append(f"{module} imports {other}")
    return table


def circles(arrows: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Groups of names of which each leads to every other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            new = set(arrows.get(ahead.pop(), ())) - seen
            seen |= new
            ahead += new
        return seen

    behind = {name: reached(name) for name in arrows}
    groups = {frozenset(other for other in seen if name in behind.get(other, ())) for name, seen in behind.items()}
    return [set(group) for group in groups if group]


def problems() -> list[str]:
    """What the sources and `ARROWS` do not agree on, a line each."""
    found, lines = package_arrows(), []
    order = list(ARROWS)
    for name, row in found.items():
        allowed = ARROWS.get(name, "").split()
        for other, why in row.items():
            if other not in allowed:
                lines.append(f"new arrow {name} -> {other}: {'; '.join(why)}")
        lines += [f"arrow {name} -> {other} is gone; take it out of ARROWS" for other in allowed if other not in row]
        lines += [f"{name} -> {other} points down" for other in allowed if order.index(other) >= order.index(name)]
    lines += [f"circle of modules: {', '.join(sorted(group))}" for group in circles(module_arrows())]
    return lines + [f"no such package: {name}" for name in ARROWS if name not in found]


if __name__ == "__main__":
    for name, row in sorted(package_arrows().items(), key=lambda item: [*ARROWS, item[0]].index(item[0])):
        print(f"{name:12} <- {', '.join(f'{other} {len(why)}' for other, why in sorted(row.items())) or '-'}")
    print("\n".join(found := problems()), file=sys.stderr)
    sys.exit(bool(found))
