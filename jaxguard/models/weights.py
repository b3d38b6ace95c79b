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
from jaxguard.files import read_object
from jaxguard.models.adapters import Adapter
from jaxguard.models.architecture import Architecture, Parameters
from jaxguard.models.checkpoint_files import read_config
from jaxguard.models.convert import Layout, Rule, Table
from jaxguard.models.lora import A, B

PIECE = 4 * 2**20
"""Bytes of a tensor read at a time."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TAKEN_OVER = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|.*\.model"
    r"|chat_template\.(json|jinja)|(pre)?processor_config\.json|generation_config\.json"
    r"|(LICEN[CS]E|NOTICE|USE_POLICY)(\.(txt|md))?"
)
"""Files of a checkpoint that hold for every model trained from it."""
TYPES = ("F64", "F32", "F16", "BF16")
"""Types of stored weights that are read, as safetensors names them."""
QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|absmax|quant_map|quant_state|SCB|weight_(scale|packed|format|zero_point))"
)
"""Names that GPTQ, AWQ, bitsandbytes, fp8 and compressed-tensors checkpoints hold beside weights."""


def load(
    folder: Path,
    architecture: Architecture,
    shardings: Mapping[str, jax.sharding.Sharding],
    dtypes: Mapping[str, np.dtype],
    adapter: Adapter | None = None,
) -> Parameters:
    """Load a checkpoint's parameters (without adapters, which it does not hold); each process reads only its shards.

    A stack of layers is assembled on the host before it is placed. The largest are loaded first, while the memory of
    the others is still free. `shardings` and `dtypes` are by parameter path. An adapter is added to what it adapts.

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
                parts, own, within = list(zip(whole, names[index[0]], strict=True)), shape[1:], index[1:]
            else:
                parts, own, within = [(whole, names[0])], shape, index
            for part, name in parts:
                _read(part, tensors[name], name, rule.layout, own, within, folder)
                if adapter is not None:
                    adapter.add(part, str(architecture.table.canonical(name)), within)
            return whole

        placed = {
            path: jax.make_array_from_callback(
                architecture.shapes[path].shape, shardings[path], functools.partial(read, path)
            )
            for path in order
        }
        return {path: placed[path] for path in plan}


def _read(
    out: np.ndarray,
    handle: Any,
    name: str,
    layout: Layout,
    shape: tuple[int, ...],
    index: tuple[slice, ...],
    folder: Path,
) -> None:
    """Fill `out`, `PIECE` bytes at a time, with part `index` of a tensor whose whole has our shape `shape`.

    Raises:
        UserError: it holds NaN or infinity; `folder` says where.
    """
    if layout.part is None:
        out[...] = layout.to_ours(_finite(handle.get_tensor(name), name, folder), shape)[index]
        return
    axis = layout.rows % len(shape)
    start, stop, _ = index[axis].indices(shape[axis])
    step = max(1, PIECE // (out.nbytes // max(stop - start, 1) + 1))
    for low in range(start, stop, step):
        high = min(low + step, stop)
        part = (*index[:axis], slice(low, high), *index[axis + 1 :])
        place = (*[slice(None)] * axis, slice(low - start, high - start))
        out[place] = layout.to_ours(_finite(handle.get_slice(name)[layout.part(part)], name, folder), shape)


def _finite(values: np.ndarray, name: str, folder: Path) -> np.ndarray:
    """Return the values. Raises UserError if one is NaN or infinite."""
    if _infinite(values):
        raise UserError(f"{folder}: {name} holds NaN or infinity; the checkpoint is damaged, get another")
    return values


def _infinite(values: np.ndarray) -> bool:
    """Return True if a value is NaN or infinite: its bits hold those of infinity."""
    whole = np.dtype(f"u{values.dtype.itemsize}")
    infinity = np.array(np.inf, values.dtype).view(whole)
    return bool(((values.view(whole) & infinity) == infinity).any())


def save(
    parameters: Mapping[str, jax.Array | np.ndarray],
    architecture: Architecture,
    source: Path,
    out: Path,
    dtype: np.dtype,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint folder in the published layout: our weights, and the tokenizer and processor of `source`.

    config.json states the type of the weights, and processor_config.json what the model's processor must know of it.
    What describes `source` itself (its model card, records of its training) is not taken over.

    Args:
        parameters: the weights, without adapters.
        architecture: of the model.
        source: the checkpoint that they started from.
        out: must not exist, or be empty.
        dtype: of the written weights.
        files: further text files, by path in the folder.

    Raises:
        UserError: `out` exists and is not empty, or a weight does not fit the type.
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
            if TAKEN_OVER.fullmatch(file.name) and file.is_file():
                shutil.copyfile(file, partial / file.name)
        for name, content in _described(architecture, source, dtype).items():
            _put(partial / name, json.dumps(content, indent=2) + "\n")
        for name, text in (files or {}).items():
            _put(partial / name, text)
        _write(tensors | _carried(architecture.table, source), partial / "model.safetensors", dtype)


def _described(architecture: Architecture, source: Path, dtype: np.dtype) -> dict[str, dict[str, Any]]:
    """Return config.json and processor_config.json of an export, by name."""
    config = read_object(source / "config.json")
    for part in (config, *(value for name, value in config.items() if name.endswith("_config"))):
        if isinstance(part, dict):
            for name in ("torch_dtype", "dtype", "_name_or_path"):
                part.pop(name, None)
    config["dtype"] = str(dtype)
    token = read_config(source).get("image_token_index")
    if token is not None and "image_token_id" not in config:
        config["image_token_index"] = token
    path = source / "processor_config.json"
    stated = read_object(path) if path.is_file() else {}
    processor = stated | architecture.family.processor(architecture.config)
    return {"config.json": config} | ({path.name: processor} if processor else {})


def _carried(table: Table, source: Path) -> dict[str, np.ndarray]:
    """Return the tensors of `source` that the model does not use and an export takes over, in the table's spelling."""
    if table.carried is None or not any((source / name).is_file() for name in (SINGLE, INDEX)):
        return {}
    with _open(source) as tensors:
        names = {table.canonical(name): name for name in tensors}
        return {
            name: tensors[stored].get_tensor(stored)
            for name, stored in names.items()
            if name is not None and re.search(table.carried, name)
        }


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def save_adapter(
    parameters: Mapping[str, jax.Array | np.ndarray],
    architecture: Architecture,
    base: str,
    out: Path,
    dtype: np.dtype,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write the adapters alone in the layout of `peft`: adapter_config.json and adapter_model.safetensors.

    Args:
        parameters: at least the adapters'.
        architecture: one with adapters.
        base: name or path of the checkpoint that they adapt.
        out: must not exist, or be empty.
        dtype: of the tensors.
        files: further text files, by path in the folder.

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
        _put(partial / "adapter_config.json", json.dumps(config, indent=2) + "\n")
        for name, text in (files or {}).items():
            _put(partial / name, text)
        _write(tensors, partial / "adapter_model.safetensors", dtype)


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write into; it is renamed to `out` when it is complete."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty; name another folder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    if out.exists():
        out.rmdir()
    os.replace(partial, out)


def _write(tensors: Mapping[str, np.ndarray], path: Path, dtype: np.dtype) -> None:
    whole = {}
    for name, value in tensors.items():
        with np.errstate(over="ignore"):
            whole[name] = np.ascontiguousarray(value, dtype)
        if _infinite(whole[name]):
            raise UserError(f"{name} does not fit {dtype}, or the run diverged: it would hold NaN or infinity")
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
    index, single = folder / INDEX, folder / SINGLE
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
    carried = architecture.table.carried
    unexpected = [name for name in unexpected if carried is None or not re.search(carried, name)]
    tied = set(_tied(architecture, found, tensors, folder))
    unexpected = [name for name in unexpected if name not in tied]
    if packed := [name for name in unexpected if QUANTISED.search(name)]:
        raise UserError(
            f"{folder}: this checkpoint is quantised (it holds {packed[0]}), which cannot be trained; give the "
            "full-precision one that it was made from"
        )
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    if not missing:
        problems += _misshapen(wanted, found, tensors)
        problems += _untypical(wanted, found, tensors)
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise UserError(f"{folder}: weights do not fit config.json: {shown}")
    return {
        path: (rule, [found[name] for name in rule.names(architecture.shapes[path].shape[0])])
        for path, rule in _rules(architecture).items()
    }


def _tied(architecture: Architecture, found: dict[str, str], tensors: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield the names of stored heads that equal the embedding which config.json ties them to.

    Raises:
        UserError: one does not; `transformers` would use it.
    """
    rules = {rule.ours: rule.theirs for rule in architecture.table.rules}
    for head, embedding in architecture.table.tied:
        own, shared = rules.get(head, ""), rules.get(embedding, "")
        if head in architecture.shapes or own not in found or shared not in found:
            continue
        if not _equal(tensors, found[own], found[shared]):
            raise UserError(
                f"{folder}: the weights hold an output head of their own ({found[own]}), which config.json ties to the "
                f"embedding; set tie_word_embeddings to false, in text_config too, or remove {found[own]}"
            )
        yield own


def _equal(tensors: Mapping[str, Any], first: str, second: str) -> bool:
    """Return True if two stored matrices are equal; reads a few rows at a time."""
    one, other = (tensors[name].get_slice(name) for name in (first, second))
    if one.get_shape() != other.get_shape():
        return False
    rows, columns = one.get_shape()
    step = max(1, PIECE // (4 * columns))
    parts = (slice(low, min(low + step, rows)) for low in range(0, rows, step))
    return all(np.array_equal(one[part], other[part]) for part in parts)


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return what a checkpoint of this architecture must hold: canonical name -> shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, rule in _rules(architecture).items():
        ours = architecture.shapes[path].shape
        theirs = tuple(rule.layout.their_shape(ours[1:] if rule.stacked else ours))
        shapes |= dict.fromkeys(rule.names(ours[0]), theirs)
    return shapes


def _untypical(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, str], tensors: Mapping[str, Any]
) -> Iterator[str]:
    for name in wanted:
        stored = tensors[found[name]].get_slice(found[name]).get_dtype()
        if stored not in TYPES:
            yield f"{name} is stored as {stored}; give weights of one of {', '.join(TYPES)}"


def _misshapen(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, str], tensors: Mapping[str, Any]
) -> Iterator[str]:
    for name, shape in wanted.items():
        actual = tuple(tensors[found[name]].get_slice(found[name]).get_shape())
        if actual != shape:
            yield f"{name} is {list(actual)}, config.json says {list(shape)}"
