"""Contingency tables of volumes in memory or on disk, block by block."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np

from emsam_jax.scores.borders import find_borders
from emsam_jax.scores.contingency import ContingencyTable, ScoreError, check_same_shape, count_pairs, merge_tables
from emsam_jax.scores.conventions import Conventions

BLOCK_ZYX = (32, 512, 512)  # voxels read at a time: whole chunks of common formats
_MERGED_TOGETHER = 64  # blocks whose tables wait before they are merged

Box = tuple[slice, slice, slice]


@runtime_checkable
class Volume(Protocol):
    """An array, or anything on disk that is read as one by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, box: Any, /) -> Any: ...


def tabulate(
    labels: Volume,
    truth: Volume,
    conventions: Sequence[Conventions],
    *,
    mask: Volume | None = None,
    block_zyx: tuple[int, ...] | None = None,
    threads: int = 1,
) -> list[ContingencyTable]:
    """For each set of conventions, the table of the voxels [z, y, x] that it compares.

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


def check_volumes(labels: Volume, truth: Volume, mask: Volume | None = None) -> None:
    """Volumes that can be compared."""
    for name, volume in (("Labels", labels), ("Truth", truth)):
        if np.dtype(volume.dtype).kind not in "iu":
            raise ScoreError(f"{name} must be integer ids, but are {volume.dtype}.")
    check_same_shape(labels.shape, truth.shape)
    if len(truth.shape) != 3:
        raise ScoreError(f"Labels must be [z, y, x], but have {len(truth.shape)} axes, shape {truth.shape}.")
    if 0 in truth.shape:
        raise ScoreError(f"Labels must have voxels, but their shape is {truth.shape}: choose a box that is not empty.")
    if mask is not None and tuple(mask.shape) != tuple(truth.shape):
        raise ScoreError(f"The mask must have the truth's shape {truth.shape}, but has {mask.shape}.")


def split_into_blocks(shape: tuple[int, ...], block_zyx: tuple[int, ...]) -> Iterator[Box]:
    ranges = ([slice(i, min(i + step, n)) for i in range(0, n, step)] for n, step in zip(shape, block_zyx, strict=True))
    return itertools.product(*ranges)  # type: ignore[reportReturnType]


def _count_block(
    labels: Volume, truth: Volume, mask: Volume | None, conventions: Sequence[Conventions], box: Box
) -> list[ContingencyTable]:
    halo = max(chosen.border for chosen in conventions)
    wide = tuple(slice(max(s.start - halo, 0), min(s.stop + halo, n)) for s, n in zip(box, truth.shape, strict=True))
    inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
    wide_truth, block = np.asarray(truth[wide]), np.asarray(labels[box])
    inside = None if mask is None else np.asarray(mask[box]) != 0
    tables = []
    for chosen in conventions:
        part = _away_from_faces(box, tuple(truth.shape), chosen.margin_zyx)
        if part is None:
            tables.append(merge_tables([]))
            continue
        keep = inside
        if chosen.border:
            apart = ~find_borders(wide_truth, chosen.border, chosen.border_plane)[inner]
            keep = apart if inside is None else apart & inside
        tables.append(count_pairs(block[part], wide_truth[inner][part], None if keep is None else keep[part]))
    return tables


def _away_from_faces(box: Box, shape: tuple[int, ...], margin_zyx: tuple[int, int, int]) -> Box | None:
    """The part of the box that is at least the margin away from the volume's faces."""
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
