"""Counts contingency tables of volumes in memory or on disk, block by block, under stated conventions."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from bioimage_cpp.distance import distance_transform
from jaxtyping import Bool, Integer

from emsam_jax.errors import UserError
from emsam_jax.scores.contingency import ContingencyTable, check_same_shape, count_pairs, merge_tables

_UNSEGMENTED = ("object", "ignore", "singletons")
_PLANES = ("2d", "3d")
BLOCK_ZYX = (32, 512, 512)  # voxels read at a time: whole chunks of common formats
_MERGED_TOGETHER = 64  # blocks whose tables wait before they are merged
Box = tuple[slice, slice, slice]


@dataclasses.dataclass(frozen=True)
class Conventions:
    """The defaults are the field's: truth label 0 is left out, all else counted."""

    ignore_truth: tuple[int, ...] = (0,)  # ids of the truth whose voxels are left out
    unsegmented: str = "object"  # voxels of segment 0: one "object", "ignore"d, or "singletons", each by itself
    border: int = 0  # voxels left out on each side of a border of the truth
    border_plane: str = "3d"  # borders seen in 3D, or section by section (CREMI: 2d)
    margin_zyx: tuple[int, int, int] = (0, 0, 0)  # voxels left out at each face of the volume

    def __post_init__(self) -> None:
        if self.unsegmented not in _UNSEGMENTED:
            raise UserError(f"`unsegmented` must be one of {', '.join(_UNSEGMENTED)}, but is {self.unsegmented!r}.")
        if self.border_plane not in _PLANES:
            raise UserError(f"`border_plane` must be one of {', '.join(_PLANES)}, but is {self.border_plane!r}.")
        if self.border < 0 or min(self.margin_zyx) < 0:
            raise UserError(
                f"`border` and `margin_zyx` are voxels from 0 up, but are {self.border} and {self.margin_zyx}."
            )

    def describe(self) -> dict[str, Any]:
        """Returns the conventions as JSON."""
        return {
            **dataclasses.asdict(self),
            "ignore_truth": [int(i) for i in self.ignore_truth],
            "margin_zyx": list(self.margin_zyx),
            "voi": "bits; split = H(labels | truth), merge = H(truth | labels)",
            "rand": "ordered pairs of different voxels; precision of the pairs in labels, recall of those in truth",
            "cremi_score": "sqrt(voi * arand)",
        }


def find_borders(
    truth: Integer[np.ndarray, "z y x"],
    width: int,
    plane: str,
    known: Bool[np.ndarray, "z y x"] | None = None,
) -> Bool[np.ndarray, "z y x"]:
    """Finds voxels up to `width` voxels deep on each side of a border, seen in each section or in 3D.

    Where not all is known a border lies between known voxels: the edge of a stroke is none.
    Width 1 is the voxels with a face neighbour of another id. CREMI's tolerance of d voxels is width d + 1 in 2D.
    """
    borders = np.zeros(truth.shape, bool)
    if width < 1:
        return borders
    for axis in (0, 1, 2) if plane == "3d" else (1, 2):
        here, before = (np.moveaxis(truth, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        changes = here != before
        if known is not None:
            there = np.moveaxis(known, axis, 0)
            changes &= there[1:] & there[:-1]
        at = np.moveaxis(borders, axis, 0)
        at[1:] |= changes
        at[:-1] |= changes
    if width == 1 or not borders.any():
        return borders
    if plane == "3d":
        return np.asarray(distance_transform(~borders)) <= width - 1
    deeper = [
        np.asarray(distance_transform(~section)) <= width - 1 if section.any() else section for section in borders
    ]
    return np.stack(deeper)


@runtime_checkable
class VoxelSource(Protocol):
    """An array, or anything on disk that is read as one by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, box: Any, /) -> Any: ...


def tabulate(
    labels: VoxelSource,
    truth: VoxelSource,
    conventions: Sequence[Conventions],
    *,
    mask: VoxelSource | None = None,
    block_zyx: tuple[int, ...] | None = None,
    threads: int = 1,
) -> list[ContingencyTable]:
    """Counts, for each set of conventions, the table of the voxels [z, y, x] that it compares.

    Memory grows with `threads` blocks and with the number of pairs. Arrays are counted in whole sections, without
    copies; what is on disk in blocks of `BLOCK_ZYX`.
    """
    check_volumes(labels, truth, mask)
    shape = tuple(truth.shape)
    if block_zyx is None:
        in_memory = isinstance(labels, np.ndarray) and isinstance(truth, np.ndarray)
        block_zyx = (BLOCK_ZYX[0], *shape[1:]) if in_memory else BLOCK_ZYX
    count = functools.partial(_count_block, labels, truth, mask, conventions)
    merged = [merge_tables([])] * len(conventions)
    with ThreadPoolExecutor(threads) as pool:
        for tables in _in_groups(pool.map(count, split_into_blocks(shape, block_zyx)), _MERGED_TOGETHER):
            merged = [
                merge_tables([whole, *parts]) for whole, parts in zip(merged, zip(*tables, strict=True), strict=True)
            ]
    return [_drop_ignored(table, chosen) for table, chosen in zip(merged, conventions, strict=True)]


def check_volumes(labels: VoxelSource, truth: VoxelSource, mask: VoxelSource | None = None) -> None:
    """Refuses volumes that cannot be compared."""
    for name, volume in (("Labels", labels), ("Truth", truth)):
        if np.dtype(volume.dtype).kind not in "iu":
            raise UserError(f"{name} must be integer ids, but are {volume.dtype}.")
    check_same_shape(labels.shape, truth.shape)
    if len(truth.shape) != 3:
        raise UserError(f"Labels must be [z, y, x], but have {len(truth.shape)} axes, shape {truth.shape}.")
    if 0 in truth.shape:
        raise UserError(f"Labels must have voxels, but their shape is {truth.shape}: choose a box that is not empty.")
    if mask is not None and tuple(mask.shape) != tuple(truth.shape):
        raise UserError(f"The mask must have the truth's shape {truth.shape}, but has {mask.shape}.")


def split_into_blocks(shape: tuple[int, ...], block_zyx: tuple[int, ...]) -> Iterator[Box]:
    ranges = ([slice(i, min(i + step, n)) for i in range(0, n, step)] for n, step in zip(shape, block_zyx, strict=True))
    return itertools.product(*ranges)  # type: ignore[reportReturnType]


def _count_block(
    labels: VoxelSource, truth: VoxelSource, mask: VoxelSource | None, conventions: Sequence[Conventions], box: Box
) -> list[ContingencyTable]:
    halo = max(chosen.border for chosen in conventions)
    wide = tuple(slice(max(s.start - halo, 0), min(s.stop + halo, n)) for s, n in zip(box, truth.shape, strict=True))
    inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
    wide_truth, block = np.asarray(truth[wide]), np.asarray(labels[box])
    known = None if mask is None else np.asarray(mask[wide]) != 0
    inside = None if known is None else known[inner]
    tables = []
    for chosen in conventions:
        part = _away_from_faces(box, tuple(truth.shape), chosen.margin_zyx)
        if part is None:
            tables.append(merge_tables([]))
            continue
        keep = inside
        if chosen.border:
            apart = ~find_borders(wide_truth, chosen.border, chosen.border_plane, known)[inner]
            keep = apart if inside is None else apart & inside
        tables.append(count_pairs(block[part], wide_truth[inner][part], None if keep is None else keep[part]))
    return tables


def _away_from_faces(box: Box, shape: tuple[int, ...], margin_zyx: tuple[int, int, int]) -> Box | None:
    """Crops the box to what is at least the margin away from the volume's faces."""
    part = []
    for here, size, margin in zip(box, shape, margin_zyx, strict=True):
        start, stop = max(here.start, margin), min(here.stop, size - margin)
        if start >= stop:
            return None
        part.append(slice(start - here.start, stop - here.start))
    return tuple(part)  # type: ignore[reportReturnType]


def _in_groups(tables: Iterator[list[ContingencyTable]], size: int) -> Iterator[list[list[ContingencyTable]]]:
    while group := list(itertools.islice(tables, size)):
        yield group


def _drop_ignored(table: ContingencyTable, conventions: Conventions) -> ContingencyTable:
    if not conventions.ignore_truth:
        return table
    return table.where(~np.isin(table.truth, np.array(conventions.ignore_truth, np.uint64)))
