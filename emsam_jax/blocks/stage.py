"""A stage: what is done to each block of a volume, in any order, by any worker; its data; how its run ended."""

import zlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from emsam_jax.blocks.block import Block
from emsam_jax.blocks.ledger import Entry
from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Volume

_LISTED = 20  # failed blocks that a message names
EMPTY = "empty"  # all zeros: such a shard makes no file
SKIPPED = "skipped"  # nothing was to be computed
DROPPED = "dropped"  # was written, and deleted once it was no longer needed


@runtime_checkable
class Stage(Protocol):
    """A picklable object, such as a frozen dataclass, that travels to the workers."""

    @property
    def name(self) -> str:
        """The name of the stage in the ledger."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns flat JSON facts that the result depends on."""
        ...

    def run(self, block: Block) -> str:
        """Reads, computes and writes a block, durably; returns the checksum for the ledger. May be repeated."""
        ...

    def is_intact(self, block: Block, entry: Entry) -> bool:
        """Returns whether the stored data match the entry's checksum."""
        ...


class StageReport(NamedTuple):
    done: int  # in this run
    skipped: int  # were done before it
    failed: list[tuple[str, str]]  # name of the block, last line of its traceback
    seconds: float


def describe_failures(stage: str, failed: list[tuple[str, str]]) -> str:
    lines = [f"{len(failed)} blocks of {stage} failed; the same command tries them again:"]
    lines += [f"  {block}  {why}" for block, why in failed[:_LISTED]]
    if len(failed) > _LISTED:
        lines.append(f"  and {len(failed) - _LISTED} more; --status lists them")
    return "\n".join(lines)


def checksum(values: Shaped[np.ndarray, "*c z y x"]) -> str:
    if not values.any():
        return EMPTY
    # Of accidents, not of attacks: as fast as memory, where a cryptographic hash would hold up what is written.
    return f"{zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data):08x}"


def write_block(volume: Volume, box: Box, values: Shaped[np.ndarray, "*c z y x"]) -> str:
    """Writes a block, durably, and returns its checksum. TensorStore ends a write to files with an fsync."""
    volume[(..., *box.slices)] = values
    return checksum(values)


def is_intact(volume: Volume, box: Box, expected: str) -> bool:
    """Returns whether the stored block has this checksum; a torn chunk cannot be read or has another."""
    try:
        return checksum(volume.read(box)) == (EMPTY if expected in (SKIPPED, DROPPED) else expected)
    except UserError:
        return False


def drop_block(volume: Volume, box: Box) -> None:
    """Deletes the block's shards, once they have served; record it as `DROPPED` first."""
    volume[(..., *box.slices)] = np.zeros((), volume.dtype)
