"""A block's data: written until it is durable, and checked against the checksum that its entry keeps."""

import hashlib

import numpy as np
from jaxtyping import Shaped

from emsam_jax.volumes import Box, Volume, VolumeError

EMPTY = "empty"  # all zeros: such a shard makes no file
SKIPPED = "skipped"  # nothing was to be computed
DROPPED = "dropped"  # was written, and deleted once it was no longer needed


def checksum(values: Shaped[np.ndarray, "*c z y x"]) -> str:
    if not values.any():
        return EMPTY
    return hashlib.blake2b(np.ascontiguousarray(values).view(np.uint8).data, digest_size=8).hexdigest()


def write_block(volume: Volume, box: Box, values: Shaped[np.ndarray, "*c z y x"]) -> str:
    """Returns the checksum once the data is on the disk: TensorStore ends a write to files with an fsync."""
    volume[(..., *box.slices)] = values
    return checksum(values)


def is_intact(volume: Volume, box: Box, expected: str) -> bool:
    """Whether what is stored is what was written; a torn chunk cannot be read or reads otherwise."""
    try:
        return checksum(volume.read(box)) == (EMPTY if expected in (SKIPPED, DROPPED) else expected)
    except VolumeError:
        return False


def drop_block(volume: Volume, box: Box) -> None:
    """Deletes the block's shards, for data that dwarfs what was made of it; record it as `DROPPED` first."""
    volume[(..., *box.slices)] = np.zeros((), volume.dtype)
