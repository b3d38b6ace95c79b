"""Benchmark against torch: the same weights, batch and loss in a train step with transformers and torch.

Of LLaVA alone: what is frozen is named as `transformers` names it there.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxguard.batch import Batch
from jaxguard.bench.step import PAIRED, Case, TimedStep, first_batch
from jaxguard.bench.timing import milliseconds, publish, ratio, take_turns
from jaxguard.config import Config, ObjectiveConfig, to_dict
from jaxguard.data.encode import Encoder
from jaxguard.errors import UserError
from jaxguard.files import read_object
from jaxguard.models import folders
from jaxguard.models.architecture import Architecture
from jaxguard.report.tables import Column
from jaxguard.train.forward import answer_positions
from jaxguard.train.setup import load_model

SAME = 1e-3
"""Largest relative difference of the first losses."""


class TorchStep:
    """A float32 train step: forward pass of all views at once, answer-only head, our loss, clipping, AdamW."""

    def __init__(self, config: Config, arch: Architecture, folder: Path, batch: Batch):
        import torch
        from transformers import LlavaForConditionalGeneration

        self.config, self.loss = config, _loss(config.objective)
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.model = model.train()
        vision, projector = model.model.vision_tower, model.model.multi_modal_projector
        frozen = {"all": [], "language": [vision], "decoder": [vision]}
        frozen["projector"] = [vision, model.model.language_model]
        for part in frozen[config.model.trainable]:
            part.requires_grad_(False)
        projector.requires_grad_(True)
        self.trained = [value for value in model.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=config.train.learning_rate, weight_decay=config.train.weight_decay
        )
        rows, views = batch.images.shape[:2]
        mean, std = (np.asarray(value, np.float32) for value in (arch.config.image_mean, arch.config.image_std))
        pixels = (
            np.moveaxis(np.asarray(batch.images), 1, 0).reshape(views * rows, *batch.images.shape[3:]) / 255 - mean
        ) / std
        at = np.asarray(answer_positions(batch.answer_mask, config.data.answer_length))
        self.inputs = {
            "input_ids": torch.from_numpy(np.tile(batch.tokens, (views, 1))).long(),
            "attention_mask": torch.from_numpy(np.tile(batch.segments > 0, (views, 1))).long(),
            "pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)).contiguous(),
        }
        self.at = torch.from_numpy(np.tile(at, (views, 1))).long()
        self.targets = torch.from_numpy(np.take_along_axis(batch.tokens[:, 1:], at, 1)).long()
        self.where = torch.from_numpy(np.take_along_axis(batch.answer_mask[:, 1:], at, 1))
        self.total: Callable[[], Any] = self._total

    def compile(self) -> None:
        """Switch to torch.compile."""
        import torch

        self.total = torch.compile(self._total)

    def __call__(self) -> float:
        """Run one step. Returns the loss before it."""
        import torch

        self.optimizer.zero_grad(set_to_none=True)
        loss = self.total()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.config.train.max_grad_norm)
        self.optimizer.step()
        return loss.item()

    def _total(self) -> Any:
        hidden = self.model.model(**self.inputs, use_cache=False).last_hidden_state
        hidden = hidden.gather(1, self.at[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.loss(self.model.lm_head(hidden).float().log_softmax(-1), self.targets, self.where)


def _loss(objective: ObjectiveConfig) -> Callable[..., Any]:
    """Implement `objective.paper` in torch, for `positions="answer"` and lambda at its full value."""

    def loss(log: Any, targets: Any, where: Any) -> Any:
        count, rows = where.sum().clamp(min=1), len(targets)

        def mean(values: Any) -> Any:
            return (values * where).sum() / count

        def nll(log_p: Any) -> Any:
            return mean(-log_p.gather(-1, targets[..., None])[..., 0])

        log_p, log_q = log[:rows], log[rows:]
        total = nll(log_p)
        if objective.entropy_weight:
            entropy, none = -(log_p.exp() * log_p).sum(-1), float("inf")
            over = (entropy - (none if objective.entropy_max is None else objective.entropy_max)).clamp(min=0)
            under = ((-none if objective.entropy_min is None else objective.entropy_min) - entropy).clamp(min=0)
            total = total + objective.entropy_weight * mean(over + under)
        if objective.views == 2:
            divergence = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
            cross = (objective.margin - divergence).clamp(min=0) if objective.direction == "repel" else divergence
            total = total + objective.alpha * nll(log_q) + objective.cross_view_weight * mean(cross)
        return total

    return loss


def bench_torch(config: Config, rounds: int, out: Path) -> list[dict[str, Any]]:
    """Time our step against torch, eager and compiled, alternating; write torch.md and torch.json to `out`.

    Raises:
        UserError: torch is missing, or the torch step does not support the configuration.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError('bench torch: torch is not installed; pip install "jaxguard[parity]"') from error
    folder = folders.resolve(config.model.path)
    kind = read_object(folder / "config.json").get("model_type")
    if kind != "llava" or config.model.trainable == "lora":
        raise UserError("bench torch: needs a checkpoint of model_type llava, and another model.trainable than lora")
    if config.data.pack > 1 or config.model.dtype != "float32" or config.objective.positions != "answer":
        raise UserError("bench torch: needs data.pack 1, model.dtype float32 and objective.positions answer")
    paired = config.objective if config.objective.views == 2 else PAIRED
    view = dataclasses.replace(config.view, rows=1.0)
    if view.mask_fill == "drop":
        view = dataclasses.replace(view, mask_fill="zero")
    model = load_model(config.model, config.mesh, config.seed)
    encoder = Encoder.from_checkpoint(model.folder)
    rows: list[dict[str, Any]] = []
    steady = dataclasses.replace(paired, cross_view_warmup=0, cross_view_schedule="constant")
    for name, objective in (("undefended", ObjectiveConfig()), ("two views", steady)):
        case = dataclasses.replace(config, objective=objective, view=view)
        batch = first_batch(case, encoder)
        compile_seconds = {}
        ours = TimedStep(Case(case, "reference"), model, encoder, batch)
        compile_seconds["jaxguard"] = ours.compile_seconds
        eager, compiled = (TorchStep(case, model.architecture, model.folder, batch) for _ in range(2))
        losses = {"jaxguard": float(ours()["loss"]), "torch eager": eager()}
        compiled.compile()
        began = time.perf_counter()
        losses["torch compiled"] = compiled()
        compile_seconds["torch compiled"] = time.perf_counter() - began
        for which, value in losses.items():
            if abs(value - losses["jaxguard"]) > SAME * abs(losses["jaxguard"]):
                raise RuntimeError(f"{which} has loss {value}, jaxguard {losses['jaxguard']}: not the same computation")
        print(f"{name}: first loss {losses['jaxguard']:.5f} everywhere", file=sys.stderr)
        timings = take_turns({"jaxguard": ours, "torch eager": eager, "torch compiled": compiled}, rounds)
        for which, timing in timings.items():
            rows.append(
                {
                    "case": name,
                    "implementation": which,
                    "step": timing,
                    "speed": timing.median / timings["jaxguard"].median,
                    "loss": losses[which],
                    "compile_seconds": compile_seconds.get(which),
                }
            )
    columns = [
        Column("step", lambda row: row["case"]),
        Column("by", lambda row: row["implementation"]),
        milliseconds("step"),
        ratio("its time / ours", "speed"),
    ]
    title = f"{config.model.path}, {config.train.batch_size} rows of {config.data.length} tokens, {rounds} rounds"
    threads = torch.get_num_threads()
    more: dict[str, Any] = {"torch": torch.__version__, "torch_threads": threads, "config": to_dict(config)}
    publish("torch", title, rows, columns, out, rounds=rounds, **more)
    return rows
