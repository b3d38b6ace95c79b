"""Safetensors in and out, tensor by tensor. Pickled weights are never opened."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxguard.errors import UserError
from jaxguard.models.convert import Rule, Table
from jaxguard.models.families import Architecture, Parameters


def load(
    folder: Path,
    architecture: Architecture,
    shardings: Mapping[str, jax.sharding.Sharding],
    dtypes: Mapping[str, np.dtype],
) -> Parameters:
    """A checkpoint's parameters, each process reading only what it holds, one layer's tensor at a time.

    `shardings` and `dtypes` are by parameter path.

    Raises:
        UserError: unreadable files, or tensors that are missing, unexpected or misshapen (all named in one line).
    """
    with _open(folder) as tensors:
        found = _canonical(architecture.table, tensors)
        plan = _plan(architecture, found, tensors, folder)

        def read(path: str, shape: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
            (rule, names), dtype = plan[path], dtypes[path]

            def part(index: tuple[slice, ...]) -> np.ndarray:
                if not rule.stacked:
                    return rule.layout.to_ours(tensors[names[0]].get_tensor(names[0]), shape)[index].astype(dtype)
                layers = (
                    rule.layout.to_ours(tensors[name].get_tensor(name), shape[1:])[index[1:]]
                    for name in names[index[0]]
                )
                return np.stack([layer.astype(dtype) for layer in layers])

            return part

        return {
            path: jax.make_array_from_callback(struct.shape, shardings[path], read(path, struct.shape))
            for path, struct in architecture.shapes.items()
        }


def save(
    parameters: Mapping[str, np.ndarray], architecture: Architecture, source: Path, out: Path, dtype: np.dtype
) -> None:
    """Write a checkpoint folder in the published layout: our weights, and the other files of `source`.

    Raises:
        UserError: `out` exists and is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty; name another folder")
    tensors: dict[str, np.ndarray] = {}
    for path, rule in _rules(architecture).items():
        value = np.asarray(parameters[path])
        if rule.stacked:
            for name, part in zip(rule.names(len(value)), value, strict=True):
                tensors[name] = rule.layout.to_theirs(part)
        else:
            tensors[rule.theirs] = rule.layout.to_theirs(value)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.suffix in (".json", ".jinja", ".model", ".txt", ".md") and "safetensors" not in file.name:
            shutil.copyfile(file, partial / file.name)
    save_file(
        {name: np.ascontiguousarray(value, dtype) for name, value in tensors.items()},
        partial / "model.safetensors",
        metadata={"format": "pt"},
    )
    if out.exists():
        out.rmdir()
    os.replace(partial, out)


def _rules(architecture: Architecture) -> dict[str, Rule]:
    return {rule.ours: rule for rule in architecture.table.rules if rule.ours in architecture.shapes}


@contextmanager
def _open(folder: Path) -> Iterator[dict]:
    """Every tensor name of a single or sharded checkpoint, with the open file that holds it."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        try:
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index}: not a safetensors index ({error!r})") from error
    elif single.is_file():
        files = [single.name]
    else:
        raise UserError(f"{folder} holds no model.safetensors (pickled weights are never opened); convert it first")
    with ExitStack() as stack:
        tensors = {}
        for name in files:
            if Path(name).name != name:
                raise UserError(f"{index}: names {name!r}, which is outside the folder; rebuild the index")
            try:
                handle = stack.enter_context(safe_open(folder / name, framework="numpy"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"{folder / name}: not a readable safetensors file ({error})") from error
            tensors.update(dict.fromkeys(handle.keys(), handle))
        yield tensors


def _canonical(table: Table, tensors: Mapping[str, object]) -> dict[str, str]:
    """Canonical name -> name on disk."""
    return {name: stored for stored in tensors if (name := table.canonical(stored)) is not None}


def _plan(
    architecture: Architecture, found: dict[str, str], tensors: Mapping[str, Any], folder: Path
) -> dict[str, tuple[Rule, list[str]]]:
    """For each of our paths: its rule, and the stored names it is read from."""
    rules = _rules(architecture)
    wanted = {path: rule.names(architecture.shapes[path].shape[0]) for path, rule in rules.items()}
    names = {name for group in wanted.values() for name in group}
    missing, unexpected = sorted(names - set(found)), sorted(set(found) - names)
    if "language.head.kernel" not in architecture.shapes:
        unexpected = [name for name in unexpected if not re.search(architecture.table.tied, name)]
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    if not missing:
        problems += _misshapen(architecture, rules, wanted, found, tensors)
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise UserError(f"{folder}: weights do not fit config.json: {shown}")
    return {path: (rules[path], [found[name] for name in group]) for path, group in wanted.items()}


def _misshapen(
    architecture: Architecture,
    rules: dict[str, Rule],
    wanted: dict[str, list[str]],
    found: dict[str, str],
    tensors: Mapping[str, Any],
) -> Iterator[str]:
    for path, group in wanted.items():
        shape = architecture.shapes[path].shape
        expected = rules[path].layout.their_shape(shape[1:] if rules[path].stacked else shape)
        for name in group:
            actual = tuple(tensors[found[name]].get_slice(found[name]).get_shape())
            if actual != tuple(expected):
                yield f"{name} is {list(actual)}, config.json says {list(expected)}"
