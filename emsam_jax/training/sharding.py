"""Shards everything over the devices by one rule; models know nothing of it.

Batches are sharded over all devices. Parameters, optimiser and running mean are replicated along `data` and sharded
along `fsdp`, each along its largest axis that divides; what is small is replicated everywhere, so that a gradient is
reduced once and only the encoder's large matrices are gathered.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from emsam_jax.config import Config
from emsam_jax.errors import UserError

DATA, FSDP = "data", "fsdp"
# Values from which on an array is sharded. All 3D kernels are smaller, 30 MB with their moments: TPUs would gather them
# as laid out for blocks of pixels, or convolve for a few channels at a time as parts of them come in.
SHARD_FROM = 2**18


def make_mesh(fsdp: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges devices as `data` x `fsdp`; between slices of TPUs, whose links are slower, lies `data` alone."""
    devices = list(devices or jax.devices())
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    within = len(devices) // slices
    if fsdp < 1 or within % fsdp:
        where = f"devices of a slice, {within}" if slices > 1 else f"devices, {within}"
        raise UserError(f"config.fsdp must divide the number of {where}; found {fsdp}. Choose another.")
    # Explicit axes, the default, would have to be named in every reshape of the models.
    types = (AxisType.Auto, AxisType.Auto)
    if slices > 1:
        arranged = mesh_utils.create_hybrid_device_mesh((within // fsdp, fsdp), (slices, 1), devices)
        return Mesh(arranged, (DATA, FSDP), axis_types=types)
    return jax.make_mesh((within // fsdp, fsdp), (DATA, FSDP), axis_types=types, devices=devices)


def check_batch(config: Config, mesh: Mesh) -> None:
    """Refuses a batch that does not divide over the devices, before anything is read or compiled."""
    batch, parts, devices, processes = config.optim.batch, config.optim.accumulate, mesh.size, jax.process_count()
    for what, number in (("processes", processes), ("devices times config.optim.accumulate", devices * parts)):
        if parts < 1 or batch < 1 or batch % number:
            nearest = max(round(batch / number), 1) * number
            raise UserError(
                f"config.optim.batch must be a multiple of the number of {what}, {number}; found {batch}. "
                f"The nearest that fits is {nearest}."
            )


def over_devices(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches, along their first axis."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def everywhere(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def place(mesh: Mesh, tree: Any) -> Any:
    """Returns the sharding of each leaf of a state, which may be abstract."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf.shape, mesh.shape[FSDP])), tree)


def abstract(mesh: Mesh, tree: Any) -> Any:
    """Returns shapes, types and shardings of a state."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, place(mesh, tree)
    )


def put(mesh: Mesh, values: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Shards parameters that every process holds."""
    shardings = place(mesh, values)
    return {
        name: jax.make_array_from_callback(value.shape, shardings[name], value.__getitem__)
        for name, value in values.items()
    }


def gather(values: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Gathers whole arrays in the memory of every process; a collective."""
    if any(not value.is_fully_addressable for value in values.values()):
        (mesh,) = {value.sharding.mesh for value in values.values()}  # type: ignore[reportAttributeAccessIssue]
        values = _repeat(mesh)(dict(values))
    return {name: np.array(value) for name, value in values.items()}


@functools.cache
def _repeat(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=everywhere(mesh))


def _spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    divisible = [axis for axis, side in enumerate(shape) if side % fsdp == 0]
    if fsdp == 1 or not divisible or np.prod(shape) < SHARD_FROM:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*(FSDP if axis == largest else None for axis in range(len(shape))))
