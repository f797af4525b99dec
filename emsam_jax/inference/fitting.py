"""Finds how many windows fit into the device's memory at once, by the two programs that need most of it."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from emsam_jax.errors import UserError
from emsam_jax.inference.grid import Extent
from emsam_jax.inference.programs import AffinityModel, Programs, Windows
from emsam_jax.model import program_bytes
from emsam_jax.storage import free_memory
from emsam_jax.targets import if_it_fits

_SHARE = 0.9  # of the free memory that may be used
_USUAL = {"cpu": 1, "gpu": 8, "tpu": 8}  # windows at once on a device: more are hardly faster


@dataclasses.dataclass(frozen=True)
class WindowBatch:
    columns: int  # a multiple of the devices
    depth: int  # windows of each column

    @property
    def windows(self) -> int:
        return self.columns * self.depth

    def __str__(self) -> str:
        return f"{self.windows} window" + "s" * (self.windows > 1)


def usual_batch(device: Any) -> int:
    return _USUAL.get(device.platform, 8)


def batch_of(windows: int, devices: int, columns: int, depth: int) -> WindowBatch:
    """Returns about `windows` on each device, in few steps, where a block has `columns` columns of `depth` windows."""
    at_once = min(max(1, windows), depth)
    steps = -(-depth // at_once)
    at_once = -(-depth // steps)
    side_by_side = min(max(1, windows // at_once), -(-columns // devices))
    return WindowBatch(devices * side_by_side, at_once)


def free_bytes(device: Any) -> int | None:
    """Returns the free bytes of the accelerator or, on the CPU, of the machine or the cgroups; None: unknown."""
    if device.platform != "cpu":
        found = device.memory_stats() or {}
        return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None
    return free_memory()


def fits(needed: int, devices: list[Any]) -> bool:
    """Returns whether a program fits; CPU devices share the machine's memory."""
    free = free_bytes(devices[0])
    return free is None or needed * (len(devices) if devices[0].platform == "cpu" else 1) <= _SHARE * free


class Fitted(NamedTuple):
    windows: int  # at once on each device
    batch: WindowBatch
    programs: dict[str, Any]  # decode; and encode, but where windows are encoded as they are decoded, or not at all
    arguments: dict[str, tuple[Any, ...]]  # of these, abstract but for the model
    at_once: int  # sections of each column that are encoded at once
    features: tuple[jax.ShapeDtypeStruct, ...]  # of all sections of the columns

    def bytes(self, extent: Extent, channels: int) -> int:
        """Returns what a device needs for a block, and for the ones before and after it."""
        # Sums and results of this block and the next one, and what is read for two more.
        others = 4 * (2 * channels * math.prod(extent.total_shape) + 3 * math.prod(extent.read_shape))
        return others + max(map(program_bytes, self.programs.values()))


def fit(
    model: AffinityModel, programs: Programs, extent: Extent, *, windows: int, channels: int, encode_once: bool
) -> Fitted:
    """Returns `windows` on each device, or fewer that fit."""
    devices = list(programs.everywhere.device_set)
    while True:
        fitted = if_it_fits(compile_for, windows, model, programs, extent, encode_once=encode_once)
        if fitted is None:
            windows = fewer(windows, extent)
            continue
        needed = fitted.bytes(extent, channels)
        if fits(needed, devices):
            return fitted
        free = free_bytes(devices[0])
        found = (
            f"{fitted.batch} at once would take {needed / 1e9:.3g} GB of the {(free or 0) / 1e9:.3g} GB that are free"
        )
        if windows == 1:
            logging.warning("Prediction: %s; a smaller predict.block would be safer.", found)
            return fitted
        logging.warning("Prediction: %s; trying fewer.", found)
        windows = fewer(windows, extent)


def fewer(windows: int, extent: Extent) -> int:
    if windows == 1:
        raise UserError(
            f"The device has too little memory for one window of {extent.grid.window} in a block of "
            f"{extent.plan.block} (z, y, x); choose a smaller predict.block in the config."
        )
    return windows // 2


def compile_for(windows: int, model: AffinityModel, programs: Programs, extent: Extent, *, encode_once: bool) -> Fitted:
    batch = batch_of(windows, programs.devices, extent.columns, extent.depth)

    def columns(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch.columns, *shape), dtype, sharding=programs.columns)

    z, y, x = extent.grid.window
    tiles = columns(extent.sections, y, x)
    indices: Any = jax.ShapeDtypeStruct((batch.depth, z), jnp.int32)
    parts = -(-extent.sections // (batch.depth * z))
    at_once = -(-extent.sections // parts)
    features: tuple[jax.ShapeDtypeStruct, ...] = ()
    arguments: dict[str, tuple[Any, ...]] = {}
    if encode_once:
        length = parts * at_once
        seen = jax.eval_shape(lambda m, s: m.encode(s), model, jax.ShapeDtypeStruct((1, y, x, 1), jnp.float32))
        features = tuple(columns(length, *f.shape[1:], dtype=f.dtype) for f in seen)
    if features:
        chosen = jax.ShapeDtypeStruct((at_once,), jnp.int32)
        place = jax.ShapeDtypeStruct((), jnp.int32)
        arguments["encode"] = (model, tiles, chosen, features, place)
    arguments["decode"] = (model, tiles, features, Windows(indices, indices))
    compiled = {name: programs.compiled(name, *each) for name, each in arguments.items()}
    return Fitted(windows, batch, compiled, arguments, at_once, features)
