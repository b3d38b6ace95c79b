"""`mesh`: number of devices along each axis."""

from __future__ import annotations

from dataclasses import dataclass

from jaxguard.config.checks import require


@dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each axis. One axis may be -1: the remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    hardware: str | None = None
    """Intended hardware: a TPU slice ("v5e:4x4") or GPUs ("8xH100"). Used by `jaxguard rehearse` only."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("data", "fsdp", "tensor")}
        for name, size in sizes.items():
            require(size == -1 or size >= 1, f"mesh.{name} is {size}: must be at least 1, or -1 for what is left")
        rest = [f"mesh.{name}" for name, size in sizes.items() if size == -1]
        require(len(rest) <= 1, f"{' and '.join(rest)} are -1: only one axis can take what is left")
