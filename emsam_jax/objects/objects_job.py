"""What all stages of one run share: the labels, the output, and how skeletons are traced."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt64

from emsam_jax.blocks import Plan, content_of, hash_of, plan_blocks
from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise import usual_block
from emsam_jax.storage import normalise, open_folder, read_key
from emsam_jax.volumes import Box, Sizes, Volume, Voxel, box_of, open_volume

_GROUP = 16  # objects whose shapes are made, and recorded, together


@dataclasses.dataclass(frozen=True)
class Tracing:
    """TEASAR's settings. A path covers the voxels within scale x radius + constant of it."""

    scale: float = 1.5
    constant: float = 300.0  # nm
    most_voxels: int = 1 << 28  # in an object's box, about 10 bytes each; larger ones are traced at half the resolution

    def __post_init__(self) -> None:
        if not (0 <= self.scale < math.inf and 0 <= self.constant < math.inf):
            raise UserError(f"Skeletons: expected a scale and a constant of 0 or more, found {self}.")
        if self.most_voxels < 1 << 12:
            raise UserError(f"Skeletons: expected boxes of 4096 voxels or more, found {self.most_voxels}.")


@dataclasses.dataclass(frozen=True)
class ObjectsJob:
    """A picklable description of one run: volumes are opened where they are needed."""

    labels: str  # URL
    level: int  # of the labels' pyramid
    voxel_size_zyx: Sizes  # nm
    offset_zyx: Sizes  # nm
    background: tuple[int, ...]  # ids that are no objects
    out: str  # folder of tables, meshes, skeletons and their ledger
    plan: Plan
    tracing: Tracing
    content: str  # of the labels

    @property
    def whole(self) -> Plan:
        """Plans one block, for stages that hold the tables of all blocks."""
        return Plan(self.plan.volume, self.plan.region, self.plan.region.shape)

    def plan_groups(self, objects: int) -> Plan:
        """Plans groups of objects, numbered along x."""
        row = box_of((1, 1, objects))
        return Plan(row, row, (1, 1, _GROUP))

    def open_labels(self) -> Volume:
        return open_volume(self.labels, level=self.level)

    def read_ids(self, box: Box) -> UInt64[np.ndarray, "z y x"]:
        """Reads ids; what lies beyond the volume is background."""
        found = self.open_labels().read(box)
        if found.dtype.kind == "i":
            found = np.maximum(found, 0)
        ids = np.ascontiguousarray(found, np.uint64)
        for other in self.background:
            if other > 0:
                ids[ids == np.uint64(other)] = 0
        return ids

    def facts_of_labels(self) -> dict[str, Any]:
        """Returns what objects and their voxels depend on."""
        return {
            "labels": self.labels,
            "level": self.level,
            "shape": list(self.plan.volume.shape),
            "content": self.content,
            "voxel_size": list(self.voxel_size_zyx),
            "offset": list(self.offset_zyx),
            "background": list(self.background),
            "blocks": list(self.plan.block),
        }

    def facts_of_shapes(self) -> dict[str, Any]:
        return self.facts_of_labels() | dataclasses.asdict(self.tracing)


def plan_objects(
    labels: str,
    out: str,
    *,
    level: int = 0,
    voxel_size_zyx: Sequence[float] | None = None,
    offset_zyx: Sequence[float] | None = None,
    background: Sequence[int] = (0,),
    block: Voxel | None = None,
    tracing: Tracing | None = None,
) -> ObjectsJob:
    volume = open_volume(labels, level=level, voxel_size_zyx=voxel_size_zyx, offset_zyx=offset_zyx)
    if volume.dtype.kind not in "iu" or len(volume.shape) != 3:
        raise UserError(
            f"{volume.url}: expected labels, whole numbers z, y, x; found {volume.dtype} of the shape {volume.shape}."
        )
    if not volume.voxel_size_known:
        raise UserError(
            f"{volume.url}: expected a voxel size, by which shapes are measured, found none; give --voxel_size=z,y,x."
        )
    box = volume.box
    return ObjectsJob(
        labels=volume.url,
        level=level,
        voxel_size_zyx=volume.voxel_size_zyx,
        offset_zyx=volume.offset_zyx,
        background=tuple(background),
        out=normalise(out),
        plan=plan_blocks(box, box, block or usual_block(box.shape, volume.voxel_size_zyx), (1, 1, 1)),
        tracing=tracing or Tracing(),
        content=content_of(volume.read, box),
    )


def digest_of(contents: Iterable[bytes]) -> str:
    """Returns one checksum of files in a fixed order."""
    return hash_of([hashlib.blake2b(content, digest_size=8).hexdigest() for content in contents])


def read_files(url: str, keys: Iterable[str]) -> Iterable[bytes]:
    """Yields the files; a missing one is empty."""
    folder = open_folder(url)
    return (read_key(folder, key) or b"" for key in keys)
