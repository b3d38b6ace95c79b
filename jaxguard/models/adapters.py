"""LoRA adapters in the layout of `peft`, as the start of training, evaluation and export: merged into the base."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxguard.errors import UserError
from jaxguard.files import read_object
from jaxguard.models.architecture import Architecture
from jaxguard.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS

PLAIN = {"use_dora": False, "fan_in_fan_out": False, "lora_bias": False, "bias": "none"}
"""Entries of adapter_config.json that must have these values where they are given."""
EMPTY = ("modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication", "corda_config")
"""Entries that must be empty: they change more than the weights of linear layers."""
STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base's own weights as they are."""
NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(\.default)?\.weight")


@dataclass(frozen=True)
class _Pair:
    """The two matrices of one linear layer of theirs, and the scale of their product."""

    down: Float[np.ndarray, "rank D_in"]
    up: Float[np.ndarray, "D_out rank"]
    scale: float


class Adapter:
    """A LoRA adapter: what it adds to the weights of a checkpoint."""

    def __init__(self, folder: Path, architecture: Architecture):
        """Read an adapter folder.

        Raises:
            UserError: it is unreadable, asks for something unsupported, or does not fit the architecture.
        """
        config = read_object(folder / ADAPTER_CONFIG)
        _check(config, folder / ADAPTER_CONFIG)
        try:
            tensors = load_file(folder / ADAPTER_WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / ADAPTER_WEIGHTS}: not a readable safetensors file ({error})") from error
        self._pairs = _pairs(tensors, config, architecture, folder / ADAPTER_WEIGHTS)

    def add(self, weights: np.ndarray, name: str, index: tuple[slice, ...]) -> None:
        """Add the adapter's product to part `index` of a linear layer's kernel [inputs, outputs], in place.

        Args:
            weights: the part.
            name: the layer's name on disk, in the table's spelling.
            index: which part of the kernel it is.
        """
        pair = self._pairs.get(name)
        if pair is not None:
            rows, columns = index
            product = pair.down.T[rows] @ pair.up.T[:, columns] * np.float32(pair.scale)
            weights[...] = weights.astype(np.float32) + product


def _check(config: Mapping[str, Any], path: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type {config.get('peft_type')!r} is not supported; merge it into its base first")
    for name, plain in PLAIN.items():
        if config.get(name, plain) not in (plain, None):
            raise UserError(f"{path}: {name} {config[name]!r} is not supported; merge the adapter into its base first")
    for name in EMPTY:
        if config.get(name):
            raise UserError(f"{path}: {name} is not supported; merge the adapter into its base first")
    if config.get("init_lora_weights") not in STARTS:
        raise UserError(
            f"{path}: init_lora_weights {config['init_lora_weights']!r} changes the base's own weights; merge the "
            "adapter into its base first"
        )
    for name in ("r", "lora_alpha"):
        if type(config.get(name)) not in (int, float) or config[name] <= 0:
            raise UserError(f"{path}: {name} is {config.get(name)!r}: must be a positive number")


def _pairs(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], architecture: Architecture, path: Path
) -> dict[str, _Pair]:
    """Return name of a linear layer, in the table's spelling -> its matrices. Names all problems at once."""
    halves: dict[str, dict[str, np.ndarray]] = {}
    modules: dict[str, str] = {}
    problems = []
    for name, value in tensors.items():
        found = NAME.fullmatch(name)
        layer = architecture.table.canonical(f"{found[1]}.weight") if found else None
        if found is None or layer is None:
            problems.append(f"unexpected {name}")
        elif not np.isfinite(value.astype(np.float32)).all():
            problems.append(f"{name} holds NaN or infinity")
        else:
            halves.setdefault(layer, {})[found[2]] = value.astype(np.float32)
            modules[layer] = found[1]
    kernels = _kernels(architecture)
    pairs = {}
    for layer, half in halves.items():
        if layer not in kernels:
            problems.append(f"the model has no linear layer {modules[layer]}")
        elif half.keys() != {"A", "B"}:
            problems.append(f"one of the two matrices of {modules[layer]} is missing")
        elif (half["A"].shape[1], half["B"].shape[0]) != kernels[layer] or half["A"].shape[0] != half["B"].shape[1]:
            problems.append(f"the matrices of {modules[layer]} do not fit its shape {list(kernels[layer])}")
        else:
            pairs[layer] = _Pair(half["A"], half["B"], _scale(config, modules[layer], len(half["A"])))
    if problems or not pairs:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise UserError(f"{path}: does not fit the model: {shown or 'it holds no LoRA matrices'}")
    return pairs


def _kernels(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Return name of each linear layer on disk -> (inputs, outputs)."""
    kernels: dict[str, tuple[int, int]] = {}
    for rule in architecture.table.rules:
        if rule.ours.endswith(".kernel") and rule.ours in architecture.shapes and rule.ours != "vision.patch.kernel":
            shape = architecture.shapes[rule.ours].shape
            kernels |= dict.fromkeys(rule.names(shape[0]), shape[-2:])
    return kernels


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what the product is scaled by: alpha / rank, or alpha / sqrt(rank) if the adapter is rank-stabilised."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
