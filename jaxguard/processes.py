"""The processes of a distributed job: joining, the main process, broadcast and gather."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxguard.errors import UserError

ADDRESS, COUNT, ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Environment variables: HOST:PORT of process 0, number of processes, index of this process (from 0)."""


def connect() -> None:
    """Join the other processes of the job if the environment describes one. Call it before JAX uses a device.

    Raises:
        UserError: The description is incomplete, or the other processes cannot be reached.
    """
    if jax.distributed.is_initialized():
        return
    job = find(os.environ, tpu=_on_tpu())
    if job is None:
        return
    try:
        jax.distributed.initialize(**job)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot join the other processes of the job ({reason}); check {ADDRESS}, {COUNT} and {ID}, "
            f"or set {COUNT}=1 to run alone"
        ) from error


def find(environment: Mapping[str, str], *, tpu: bool) -> dict[str, Any] | None:
    """Find the arguments of `jax.distributed.initialize` for this process; None if it runs alone.

    In this order: an explicit coordinator; a Slurm step of several tasks (each task takes one GPU of its node); on a
    Cloud TPU host, the metadata of the machine or of its pod, which JAX reads itself.

    Args:
        environment: Environment variables of the process.
        tpu: True if JAX will use TPU chips of this host.

    Raises:
        UserError: The coordinator is described incompletely or incorrectly.
    """
    if environment.get(COUNT) == "1":
        return None
    given = [name for name in (ADDRESS, COUNT, ID) if environment.get(name)]
    if given:
        return _explicit(environment, given)
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return {"cluster_detection_method": "slurm"}
    return {} if tpu else None


def is_main() -> bool:
    """True on process 0, which writes reports and prints."""
    return jax.process_index() == 0


def broadcast_from_main(value: bool | int) -> int:
    """Return process 0's value on every process."""
    return int(value) if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def gather(lines: Sequence[str]) -> list[str]:
    """Return the lines of all processes, in process order, on every process."""
    if jax.process_count() == 1:
        return list(lines)
    text = np.frombuffer("".join(f"{line}\n" for line in lines).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    parts = np.asarray(multihost_utils.process_allgather(padded))
    texts = [part[:size].tobytes().decode() for part, size in zip(parts, sizes, strict=True)]
    return [line for text in texts for line in text.split("\n")[:-1]]


def _explicit(environment: Mapping[str, str], given: list[str]) -> dict[str, Any]:
    missing = [name for name in (ADDRESS, COUNT, ID) if name not in given]
    if missing:
        raise UserError(f"{given[0]} is set but {' and '.join(missing)} not: set all three to describe a job")
    address, count, number = (environment[name] for name in (ADDRESS, COUNT, ID))
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise UserError(f"{ID} is {number!r}, {COUNT} {count!r}: must be whole numbers, the first below the second")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UserError(f"{ADDRESS} is {address!r}: must be HOST:PORT")
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(number),
        "cluster_detection_method": "deactivate",
    }


def _on_tpu() -> bool:
    """True if the host has TPU device files; an installed libtpu may only serve ahead-of-time compilation."""
    wanted = os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] in ("", "tpu")
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None
