"""Whether a volume can be written at all, which is known before anything is."""

import math

from tqdm import tqdm

from emsam_jax.blocks import check_room
from emsam_jax.ingest.level import IN_FLIGHT, plan_shards
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.layout import Layout
from emsam_jax.volumes.machine import free_disk, free_memory

_COMPRESSED = 100  # times: hardly any voxels take less of a disk


def refuse_too_large(layout: Layout) -> None:
    """What could never be written, or only by more memory than there is."""
    plan = plan_shards(layout)
    check_room(plan, layout.url)
    size = math.prod(layout.shape) * layout.dtype.itemsize
    disk, memory = free_disk(layout.url), free_memory()
    if disk is not None and size > _COMPRESSED * disk.bytes:
        raise VolumeError(
            f"{layout.url}: {_bytes(size)} of voxels {layout.shape} would be too much for its disk even if they were "
            f"compressed {_COMPRESSED} times, {_bytes(disk.bytes)} are free; choose another place or a coarser "
            "--level, or say --nocheck_room."
        )
    held = math.prod(plan.block) * size // math.prod(layout.shape[-3:]) * (IN_FLIGHT + 1)
    if memory is not None and held > memory:
        raise VolumeError(
            f"{layout.url}: shards of {plan.block} voxels (z, y, x), of which {IN_FLIGHT + 1} are held at once, need "
            f"{_bytes(held)} of memory, {_bytes(memory)} are free; choose smaller ones by --shard."
        )


def _bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B", 1024)
