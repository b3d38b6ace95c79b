"""Data-sheet figures of chips, and names of TPU slices and GPU machines. Imports no JAX."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from math import prod

from jaxguard.config import suggestion
from jaxguard.errors import UserError

GB = 1e9
COMPILE_ONLY = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Environment in which libtpu compiles without looking for chips."""


@dataclass(frozen=True)
class Chip:
    """Published figures of one chip."""

    kind: str
    """Prefix of JAX's device kind."""
    flops: float
    """Peak dense bfloat16 operations per second."""
    memory: float
    """Memory in bytes."""
    bandwidth: float
    """Memory bandwidth in bytes per second."""
    links: float
    """Bytes per second that the chip sends over all links; it receives at the same rate."""

    @property
    def tpu(self) -> bool:
        return self.kind.startswith("TPU")


CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 275e12, 32 * GB, 1228 * GB, 300 * GB),
    "v5e": Chip("TPU v5 lite", 197e12, 16 * GB, 819 * GB, 200 * GB),
    "v5p": Chip("TPU v5", 459e12, 95 * GB, 2765 * GB, 600 * GB),
    "v6e": Chip("TPU v6 lite", 918e12, 32 * GB, 1600 * GB, 400 * GB),
    "A100": Chip("NVIDIA A100", 312e12, 80 * GB, 2039 * GB, 300 * GB),
    "H100": Chip("NVIDIA H100", 989e12, 80 * GB, 3350 * GB, 450 * GB),
    "H200": Chip("NVIDIA H200", 989e12, 141 * GB, 4800 * GB, 450 * GB),
}
"""cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} and NVIDIA's data sheets (SXM modules)."""


@dataclass(frozen=True)
class Hardware:
    """A number of chips of one kind: a TPU slice ("v5e:4x4") or GPUs ("8xH100")."""

    name: str
    chip: Chip
    count: int

    @classmethod
    def parse(cls, name: str) -> Hardware:
        """Parse a name. Raises UserError if it is unknown, or if the compiler for it is not installed."""
        slice_, gpus = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name), re.fullmatch(r"(\d+)x(\w+)", name)
        kind = slice_[1] if slice_ else gpus[2] if gpus else ""
        chip = CHIPS.get(kind)
        if chip is None or chip.tpu != bool(slice_):
            known = [f"{kind}:4x4" if chip.tpu else f"8x{kind}" for kind, chip in CHIPS.items()]
            hint = suggestion(name, known) or f"; give a slice or GPUs, such as {', '.join(known)}"
            raise UserError(f"no hardware {name!r}{hint}")
        count = prod(map(int, slice_[2].split("x"))) if slice_ else int(gpus[1]) if gpus else 0
        if count < 1:
            raise UserError(f"no hardware {name!r}: it has no chips")
        if chip.tpu and importlib.util.find_spec("libtpu") is None:
            raise UserError(
                f"compiling for {name} needs libtpu: pip install 'jaxguard[rehearse]' into an environment of its own"
            )
        return cls(name, chip, count)
