"""How many windows at once: as many as fit into the device's memory."""

import dataclasses
from typing import Any

import jax

from emsam_jax.volumes.machine import free_memory

_SHARE = 0.9  # of the free memory that may be used
_USUAL = {"cpu": 1, "gpu": 8, "tpu": 8}  # windows at once on a device: more are hardly faster


@dataclasses.dataclass(frozen=True)
class Batch:
    columns: int  # a multiple of the devices
    depth: int  # windows of each column

    @property
    def windows(self) -> int:
        return self.columns * self.depth

    def __str__(self) -> str:
        return f"{self.windows} window" + "s" * (self.windows > 1)


def usual_batch() -> int:
    return _USUAL.get(jax.default_backend(), 8)


def batch_of(windows: int, devices: int, columns: int, depth: int) -> Batch:
    """About so many windows on each device, in few steps, where a block has so many columns of this depth."""
    at_once = min(max(1, windows), depth)
    steps = -(-depth // at_once)
    at_once = -(-depth // steps)
    side_by_side = min(max(1, windows // at_once), -(-columns // devices))
    return Batch(devices * side_by_side, at_once)


def free_bytes(device: Any) -> int | None:
    """Of the accelerator or, on the CPU, of the machine or the groups that the process is in; None: unknown."""
    if device.platform != "cpu":
        found = device.memory_stats() or {}
        return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None
    return free_memory()


def bytes_needed(compiled: Any) -> int:
    """On each device, for one call, beyond what it gives back in place of its arguments."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    return (
        found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    )


def fits(needed: int, devices: list[Any]) -> bool:
    """CPU devices share the machine's memory."""
    free = free_bytes(devices[0])
    return free is None or needed * (len(devices) if devices[0].platform == "cpu" else 1) <= _SHARE * free


def out_of_memory(error: Exception) -> bool:
    """The CPU's message comes wrapped into others, without the code."""
    said = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and ("RESOURCE_EXHAUSTED" in said or "Out of memory" in said)
