"""Whether memory and disk have room for so many blocks at all: a volume may say of itself that it is of any size."""

from emsam_jax.blocks.plan import Plan
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.machine import free_disk, free_memory

_LISTED = 100  # bytes of a block in the list of what is to be done
_ENTRY = 1 << 12  # bytes of an entry's file


def check_room(plan: Plan, url: str) -> None:
    """Raises before anything is written at `url`, where the blocks' list or their ledger would fit nowhere."""
    blocks, memory, disk = len(plan), free_memory(), free_disk(url)
    needs = [(blocks * _LISTED, memory, "bytes of memory for the list of its blocks")]
    if disk is not None:
        needs += [(blocks * _ENTRY, disk.bytes, f"bytes at {url} for the record of its blocks")]
        needs += [(blocks, disk.files, f"files at {url}, one for each of its blocks")]
    for needed, free, what in needs:
        if free is not None and needed > free:
            sides, block = (" x ".join(map(str, shape)) for shape in (plan.region.shape, plan.block))
            raise VolumeError(
                f"{sides} voxels (z, y, x) in blocks of {block} need {needed:.3g} {what}, but {free:.3g} are free; "
                "choose larger blocks, or a part of the volume."
            )
