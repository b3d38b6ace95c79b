"""The processes of one job: joining them, which of them writes, and what they tell each other."""

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
"""HOST:PORT of process 0, how many processes there are, and which this is (from 0)."""


def connect() -> None:
    """Join the other processes of the job, where the environment tells of any; before JAX touches a device.

    Raises:
        UserError: the environment tells half of it, or the others cannot be reached.
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
    """The arguments of `jax.distributed.initialize` for this process; None where it is alone.

    An explicit coordinator comes first; then Slurm (a step of several tasks; each then takes one of its node's GPUs);
    then, on a Cloud TPU host, what the machine's metadata or its pod's environment says, which JAX reads itself.

    Args:
        environment: of the process.
        tpu: whether JAX will run on TPU chips of this host.

    Raises:
        UserError: an explicit coordinator that is not wholly or not rightly described.
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
    """Whether this is the process that writes reports and talks to people."""
    return jax.process_index() == 0


def broadcast_from_main(value: bool | int) -> int:
    """What process 0 says, on every process."""
    return int(value) if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def gather(lines: Sequence[str]) -> list[str]:
    """The lines of all processes, one process after the other, on every process."""
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
        raise UserError(f"{given[0]} is set but {' and '.join(missing)} not: all three describe a job of processes")
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
    """Chips show as device files; `libtpu` alone may be there for compiling ahead of time."""
    wanted = os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] in ("", "tpu")
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None
