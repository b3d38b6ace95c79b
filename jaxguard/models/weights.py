"""Read and write safetensors checkpoints, tensor by tensor. Pickled weights are never opened."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxguard.errors import UserError
from jaxguard.models.architecture import Architecture, Parameters
from jaxguard.models.convert import Layout, Rule, Table
from jaxguard.models.lora import A, B

PIECE = 4 * 2**20
"""Bytes of a tensor read at a time."""


def load(
    folder: Path,
    architecture: Architecture,
    shardings: Mapping[str, jax.sharding.Sharding],
    dtypes: Mapping[str, np.dtype],
) -> Parameters:
    """Load a checkpoint's parameters (without adapters, which it does not hold); each process reads only its shards.

    A stack of layers is assembled on the host before it is placed. The largest are loaded first, while the memory of
    the others is still free. `shardings` and `dtypes` are by parameter path.

    Raises:
        UserError: unreadable files, or tensors that are missing, unexpected or misshapen (all named in one line).
    """
    with _open(folder) as tensors:
        found = _canonical(architecture.table, tensors)
        plan = _plan(architecture, found, tensors, folder)
        sizes = {path: architecture.shapes[path].size * dtypes[path].itemsize for path in plan}
        order = sorted(plan, key=lambda path: (not plan[path][0].stacked, -sizes[path]))

        def read(path: str, index: tuple[slice, ...]) -> np.ndarray:
            (rule, names), shape = plan[path], architecture.shapes[path].shape
            lengths = (len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True))
            whole = np.empty(tuple(lengths), dtypes[path])
            if rule.stacked:
                for layer, name in zip(whole, names[index[0]], strict=True):
                    _read(layer, tensors[name], name, rule.layout, shape[1:], index[1:])
            else:
                _read(whole, tensors[names[0]], names[0], rule.layout, shape, index)
            return whole

        placed = {
            path: jax.make_array_from_callback(
                architecture.shapes[path].shape, shardings[path], functools.partial(read, path)
            )
            for path in order
        }
        return {path: placed[path] for path in plan}


def _read(
    out: np.ndarray, handle: Any, name: str, layout: Layout, shape: tuple[int, ...], index: tuple[slice, ...]
) -> None:
    """Fill `out`, `PIECE` bytes at a time, with part `index` of a tensor whose whole has our shape `shape`."""
    if layout.part is None:
        out[...] = layout.to_ours(handle.get_tensor(name), shape)[index]
        return
    axis = layout.rows % len(shape)
    start, stop, _ = index[axis].indices(shape[axis])
    step = max(1, PIECE // (out.nbytes // max(stop - start, 1) + 1))
    for low in range(start, stop, step):
        high = min(low + step, stop)
        part = (*index[:axis], slice(low, high), *index[axis + 1 :])
        place = (*[slice(None)] * axis, slice(low - start, high - start))
        out[place] = layout.to_ours(handle.get_slice(name)[layout.part(part)], shape)


def save(
    parameters: Mapping[str, jax.Array | np.ndarray],
    architecture: Architecture,
    source: Path,
    out: Path,
    dtype: np.dtype,
) -> None:
    """Write a checkpoint folder in the published layout: our weights, and the other files of `source`.

    Raises:
        UserError: `out` exists and is not empty.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, rule in _rules(architecture).items():
        value = np.asarray(parameters[path])
        layers = value if rule.stacked else value[None]
        tensors |= {
            name: rule.layout.to_theirs(layer) for name, layer in zip(rule.names(len(layers)), layers, strict=True)
        }
    with _folder(out) as partial:
        for file in sorted(source.iterdir()):
            if file.suffix in (".json", ".jinja", ".model", ".txt", ".md") and "safetensors" not in file.name:
                shutil.copyfile(file, partial / file.name)
        _write(tensors, partial / "model.safetensors", dtype)


def save_adapter(
    parameters: Mapping[str, jax.Array | np.ndarray], architecture: Architecture, base: str, out: Path, dtype: np.dtype
) -> None:
    """Write the adapters alone in the layout of `peft`: adapter_config.json and adapter_model.safetensors.

    Args:
        parameters: at least the adapters'.
        architecture: one with adapters.
        base: name or path of the checkpoint that they adapt.
        out: must not exist, or be empty.
        dtype: of the tensors.

    Raises:
        UserError: the architecture has no adapters, or `out` exists and is not empty.
    """
    lora = architecture.lora
    if lora is None:
        raise UserError("there is no adapter to write: the run did not train with model.trainable lora")
    rules = {rule.ours: rule for rule in architecture.table.rules}
    tensors: dict[str, np.ndarray] = {}
    modules = []
    for path in sorted(path for path in parameters if path.endswith(A)):
        rule, stem = rules[path.removesuffix(A) + ".kernel"], path.removesuffix(A)
        a, b = (np.asarray(parameters[stem + end]) for end in (A, B))
        layers = zip(a, b, strict=True) if rule.stacked else [(a, b)]
        for name, (down, up) in zip(rule.names(len(a)), layers, strict=True):
            module = architecture.table.module(name.removesuffix(".weight"))
            modules.append(module)
            tensors[f"base_model.model.{module}.lora_A.weight"] = down.T
            tensors[f"base_model.model.{module}.lora_B.weight"] = up.T
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with _folder(out) as partial:
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        _write(tensors, partial / "adapter_model.safetensors", dtype)


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write into; it is renamed to `out` when it is complete."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty; name another folder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if out.exists():
        out.rmdir()
    os.replace(partial, out)


def _write(tensors: Mapping[str, np.ndarray], path: Path, dtype: np.dtype) -> None:
    whole = {name: np.ascontiguousarray(value, dtype) for name, value in tensors.items()}
    save_file(whole, path, metadata={"format": "pt"})


def _rules(architecture: Architecture) -> dict[str, Rule]:
    return {rule.ours: rule for rule in architecture.table.rules if rule.ours in architecture.shapes}


def check_files(folder: Path) -> None:
    """Check that every file of a checkpoint's weights can be opened.

    Raises:
        UserError: One cannot, or there are none.
    """
    with _open(folder):
        pass


@contextmanager
def _open(folder: Path) -> Iterator[dict]:
    """Open a single or sharded checkpoint: tensor name -> open file that holds it."""
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
    """Return canonical name -> name on disk."""
    return {name: stored for stored in tensors if (name := table.canonical(stored)) is not None}


def _plan(
    architecture: Architecture, found: dict[str, str], tensors: Mapping[str, Any], folder: Path
) -> dict[str, tuple[Rule, list[str]]]:
    """Return for each of our paths its rule and the names on disk it is read from."""
    wanted = expected_shapes(architecture)
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if "language.head.kernel" not in architecture.shapes:
        unexpected = [name for name in unexpected if not re.search(architecture.table.tied, name)]
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    if not missing:
        problems += _misshapen(wanted, found, tensors)
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise UserError(f"{folder}: weights do not fit config.json: {shown}")
    return {
        path: (rule, [found[name] for name in rule.names(architecture.shapes[path].shape[0])])
        for path, rule in _rules(architecture).items()
    }


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return what a checkpoint of this architecture must hold: canonical name -> shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, rule in _rules(architecture).items():
        ours = architecture.shapes[path].shape
        theirs = tuple(rule.layout.their_shape(ours[1:] if rule.stacked else ours))
        shapes |= dict.fromkeys(rule.names(ours[0]), theirs)
    return shapes


def _misshapen(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, str], tensors: Mapping[str, Any]
) -> Iterator[str]:
    for name, shape in wanted.items():
        actual = tuple(tensors[found[name]].get_slice(found[name]).get_shape())
        if actual != shape:
            yield f"{name} is {list(actual)}, config.json says {list(shape)}"
