"""Ahead-of-time compilation of a run for hardware that is not present: fit, memory and communication of its chips.

The step is that of `jaxguard train`, traced from shapes alone. For a TPU slice, libtpu compiles it for those chips. For
GPUs it is compiled for the same number of CPU devices: sharding and collectives are the same, but CPUs compute bfloat16
matmuls in float32, so temporaries are overestimated and `fits` is conservative.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguard.batch import Batch
from jaxguard.bench import hlo
from jaxguard.bench.hardware import Hardware
from jaxguard.bench.traced import kept_bytes, matrix_flops
from jaxguard.config import Config, DataConfig, Remat, ViewConfig
from jaxguard.data.views import kept_patches
from jaxguard.errors import UserError
from jaxguard.evaluate.run import decoding
from jaxguard.models import folders
from jaxguard.models.families.registry import open_processor
from jaxguard.objective.fused import reference_fits_accelerators
from jaxguard.train.forward import HeadKind
from jaxguard.train.setup import Model, ModelSpec, Setup, check_rows, describe_model, prepare, trace_step
from jaxguard.train.sharding import batch_sharding, check_batch_size, replicated
from jaxguard.train.step import StepPlan

END_TOKEN = 2
"""Arbitrary: no shape depends on it."""
USABLE = {True: 0.975, False: 0.92}
"""Usable share of the published memory, for TPUs (True) and GPUs (False): the runtime takes the rest."""


@dataclass(frozen=True)
class Rehearsal:
    """Memory, computation and communication of one chip in one step. Bytes and operations are per chip."""

    name: str
    hardware: str
    chips: int
    memory: float
    """Published memory of the chip."""
    mesh: dict[str, int]
    rows: int
    """Rows of one micro-batch for each group of `tensor` chips."""
    accumulate: int
    remat: Remat
    weights: float
    optimizer: float
    inputs: float
    """Bytes of one batch."""
    activations: float
    """Bytes that layer loops keep for the backward pass, if split like the rows."""
    temporaries: float
    """Peak of everything else: gradients, gathered weights, temporaries of one layer."""
    total: float
    fits: bool
    reason: str = ""
    """Message of the compiler, if compilation failed."""
    collectives: dict[str, float] = field(default_factory=dict)
    """Bytes sent, by kind of collective."""
    flops: float = 0.0
    """Operations, recomputation included."""
    useful_flops: float = 0.0
    """Operations without recomputation."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Lower bounds of the step time by resource: arithmetic, memory, links."""
    compile_seconds: float = 0.0
    compiled_for: str = ""

    @property
    def least(self) -> float:
        """Lower bound of the step time in seconds, if everything overlaps."""
        return max(self.seconds.values(), default=math.inf)

    @property
    def bound(self) -> str:
        return max(self.seconds, key=self.seconds.__getitem__, default="-")


def rehearse(config: Config, hardware: Hardware, *, give_up: bool = False) -> Rehearsal:
    """Compile the train step.

    Args:
        config: The run.
        hardware: Hardware to compile for.
        give_up: Do not compile a step whose arrays alone exceed the memory.

    Raises:
        UserError: The mesh or the batch does not fit the hardware.
    """
    model, compiled_for = _model(config, hardware)
    check_rows(model.mesh, config.train, config.view.rows if config.objective.views == 2 else None)
    setup, _ = prepare(model, config.model.trainable, config.train)
    head, ways = head_kind(config, model), model.mesh.shape["data"] * model.mesh.shape["fsdp"]
    traced = trace(config, setup, head)
    batch = describe_batch(config.data, config.second_view, model, config.train.batch_size)
    weights = {**setup.frozen, **setup.abstract.parameters}
    state = _bytes(setup.abstract)
    held = {
        "weights": _bytes(weights),
        "optimizer": state - _bytes(setup.abstract.parameters),
        "inputs": _bytes(batch),
        "activations": kept_bytes(traced.jaxpr) / ways,
    }
    about: dict[str, Any] = {
        "name": config.name,
        "hardware": hardware.name,
        "chips": hardware.count,
        "memory": hardware.chip.memory,
        "mesh": dict(model.mesh.shape),
        "rows": config.train.batch_size // config.train.accumulate // ways,
        "accumulate": config.train.accumulate,
        "remat": config.model.remat,
        "compiled_for": compiled_for,
        "flops": matrix_flops(traced.jaxpr) / hardware.count,
        "useful_flops": _useful(config, setup) / hardware.count,
    } | held
    least = sum(held.values())
    if give_up and least > hardware.chip.memory:
        return Rehearsal(
            **about,
            temporaries=0,
            total=least,
            fits=False,
            reason="not compiled: exceeds the memory without temporaries",
        )
    compiled, seconds, reason = _compile(traced)
    about |= {"compile_seconds": seconds, "reason": reason}
    if compiled is None:
        total = _reported_bytes(reason, least - held["activations"]) or least
        return Rehearsal(**about, temporaries=max(0.0, total - least), total=total, fits=False)
    total = _total(compiled)
    sent = hlo.moved(hlo.collectives(compiled.as_text() or ""))
    passes, tensor = config.train.accumulate * (3 if config.model.remat == "full" else 2), model.mesh.shape["tensor"]
    read = passes * sum(leaf.size for leaf in weights.values()) * jnp.dtype(config.model.dtype).itemsize / tensor
    read += 2 * state + 2 * config.train.accumulate * held["activations"]
    return Rehearsal(
        **about,
        temporaries=total - least,
        total=total,
        fits=total <= USABLE[hardware.chip.tpu] * hardware.chip.memory,
        collectives=sent,
        seconds=_seconds(hardware, about["flops"], read, sum(sent.values())),
    )


def describe_batch(data: DataConfig, view: ViewConfig | None, model: ModelSpec, rows: int) -> Batch:
    """Describe the shapes of a batch of `rows` rows on the mesh; None is no second view."""
    processor, length, place = open_processor(model.folder), data.length, batch_sharding(model.mesh)

    def of(dtype: Any, *shape: int) -> jax.Array:
        return jnp.zeros((rows, *shape), dtype)

    def batch() -> Batch:
        kept = None
        if view is not None and view.mask_fill == "drop":
            assert processor.patch_size is not None  # `views.check`
            patches = kept_patches(view, processor.image_shape, processor.patch_size, np.random.default_rng(0))
            kept = of(jnp.int32, 1, patches.size)
        return Batch(
            images=of(jnp.uint8, 1 if view is None else 2, 1, *processor.image_shape, 3),
            tokens=of(jnp.int32, length),
            positions=of(jnp.int32, length, *processor.position_axes),
            segments=of(jnp.int32, length),
            answer_mask=of(jnp.bool_, length),
            ids=of(jnp.int32),
            pairs=of(jnp.int32),
            kept=kept,
            right_padded=data.pack == 1,
        )

    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), jax.eval_shape(batch)
    )


def trace(config: Config, setup: Setup, head: HeadKind) -> jax.stages.Traced:
    """Trace the train step from shapes alone."""
    batch = describe_batch(config.data, config.second_view, setup.model, config.train.batch_size)
    rows: Any = jax.ShapeDtypeStruct((config.train.batch_size,), jnp.bool_, sharding=replicated(setup.model.mesh))
    plan = StepPlan.of(config, END_TOKEN, head)
    return trace_step(setup, plan, batch, reference=setup.abstract.parameters, poisoned=rows)


def head_kind(config: Config, model: Model) -> HeadKind:
    """Choose the head as "auto" does on accelerators."""
    answers = config.train.batch_size // config.train.accumulate * config.data.answer_length
    vocabulary = model.architecture.vocabulary
    fits = reference_fits_accelerators(answers, config.objective.views, vocabulary, model.mesh.size)
    return "reference" if fits else "fused"


def rehearse_decoding(config: Config, hardware: Hardware) -> Rehearsal:
    """Compile the decoding of one batch of prompts. No times: they depend on the answers.

    Raises:
        UserError: The mesh or the batch does not fit the hardware.
    """
    model, compiled_for = _model(config, hardware)
    rows = config.evaluate.batch_size
    check_batch_size("evaluate.batch_size", rows, model.mesh)
    batch = describe_batch(config.data, None, model, rows)
    traced = decoding(config.evaluate, model, END_TOKEN).trace(model.parameters, batch)
    compiled, seconds, reason = _compile(traced)
    weights, inputs = _bytes(model.parameters), _bytes(batch)
    total = (_reported_bytes(reason, weights + inputs) or weights + inputs) if compiled is None else _total(compiled)
    return Rehearsal(
        name=f"{config.name}, decoding",
        hardware=hardware.name,
        chips=hardware.count,
        memory=hardware.chip.memory,
        mesh=dict(model.mesh.shape),
        rows=rows // (model.mesh.shape["data"] * model.mesh.shape["fsdp"]),
        accumulate=1,
        remat="none",
        weights=weights,
        optimizer=0,
        inputs=inputs,
        activations=0,
        temporaries=total - weights - inputs,
        total=total,
        fits=compiled is not None and total <= USABLE[hardware.chip.tpu] * hardware.chip.memory,
        reason=reason,
        collectives={} if compiled is None else hlo.moved(hlo.collectives(compiled.as_text() or "")),
        compile_seconds=seconds,
        compiled_for=compiled_for,
    )


def _model(config: Config, hardware: Hardware) -> tuple[Model, str]:
    devices, compiled_for = _devices(hardware)
    return describe_model(config.model, config.mesh, folders.describe(config.model.path), devices), compiled_for


def _devices(hardware: Hardware) -> tuple[Sequence[jax.Device], str]:
    """Find the devices to compile for, and their kind."""
    if not hardware.chip.tpu:
        devices = jax.devices("cpu")[: hardware.count]
        if len(devices) < hardware.count:
            raise UserError(f"{hardware.name} needs {hardware.count} CPU devices; this process has {len(devices)}")
        return devices, "CPU devices in their place"
    from jax.experimental import topologies

    one = {"chips_per_host_bounds": (1, 1, 1)} if hardware.count == 1 else {}
    try:
        slice_ = topologies.get_topology_desc(platform="tpu", topology_name=hardware.name, **one)
    except Exception as error:  # libtpu's own exception class is not public
        raise UserError(f"no slice {hardware.name}: {str(error).splitlines()[0]}") from error
    devices = list(slice_.devices)
    return devices, devices[0].device_kind


def _compile(traced: jax.stages.Traced) -> tuple[jax.stages.Compiled | None, float, str]:
    """Compile: (program, seconds, "") or, out of memory, (None, seconds, the compiler's message)."""
    began = time.perf_counter()
    try:
        return traced.lower().compile(), time.perf_counter() - began, ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, time.perf_counter() - began, str(error).strip().splitlines()[0]


def _reported_bytes(reason: str, arguments: float) -> float:
    """Parse the bytes that the compiler would need, including `arguments`; 0 if the message has none.

    libtpu reports the total ("Used 17.40G of 15.75G hbm.") or, if they alone are too large, the temporaries.
    """
    match = re.search(r"(Used|HLO temporaries) \(?([\d.]+)([KMGT])", reason)
    if match is None:
        return 0.0
    reported = float(match[2]) * 1024 ** (" KMGT".index(match[3]))
    return reported if match[1] == "Used" else arguments + reported


def _total(compiled: jax.stages.Compiled) -> float:
    memory = compiled.memory_analysis()
    assert memory is not None  # available on TPUs and CPUs
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def _useful(config: Config, setup: Setup) -> float:
    """Count the operations of the step without recomputation."""
    plain = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat="none"),
        train=dataclasses.replace(config.train, accumulate=1),
    )
    model = describe_model(plain.model, plain.mesh, setup.model.folder, list(setup.model.mesh.devices.flat))
    return matrix_flops(trace(plain, prepare(model, plain.model.trainable, plain.train)[0], "reference").jaxpr)


def _seconds(hardware: Hardware, flops: float, read: float, sent: float) -> dict[str, float]:
    chip = hardware.chip
    return {"arithmetic": flops / chip.flops, "memory": read / chip.bandwidth, "links": sent / chip.links}


def _bytes(tree: Any) -> int:
    """Sum the bytes of a tree on one device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )
