"""Cuts labelled volumes into regions for training, validation and test, with a guard between them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from emsam_jax.prepare.truth import Truth
from emsam_jax.volumes import Box, Voxel

SHARES = (0.64, 0.14, 0.22)  # of the labelled voxels that the guards leave: training, validation, test
_LOST = 0.3  # share of the labelled voxels that guards may cost
_GUARDS = (1.0, 0.75, 0.5, 0.25)  # of half a patch; a narrower one where it would cost more
_LEAST = 2  # sections, or voxels within the section, of a region to choose or to report on

Span = tuple[int, int]


class Regions(NamedTuple):
    """Parts of one volume; None where its labels are too few, or serve something else."""

    train: Box | None
    validation: Box | None
    test: Box | None
    axis: int  # along which they follow each other
    guard: int  # voxels between them
    wanted: int  # half a patch
    lost: float  # share of the labelled voxels that lie in the guards

    @property
    def parts(self) -> dict[str, Box]:
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: box for name, box in named.items() if box is not None}


def split_regions(truth: Truth, patch: Voxel, limits: Box) -> Regions | None:
    """Returns the regions, as many of the three as there can be; None where not even one patch fits.

    They follow each other along the axis whose guards are widest or, of those, cost least. `limits` is what training
    may see around the labels.
    """
    for parts in (3, 2):
        found = [
            regions
            for axis in range(3)
            for share in _GUARDS
            if (regions := _along(truth, patch, limits, axis, share=share, parts=parts)) is not None
            and regions.lost <= _LOST
        ]
        if found:
            return max(found, key=lambda r: (r.guard / r.wanted, -round(r.lost, 2), -r.axis))
    return whole_region(truth, patch, limits, "train")


def whole_region(truth: Truth, patch: Voxel, limits: Box, role: str) -> Regions | None:
    """Returns all that is labelled for one role; None where no patch of training fits."""
    box = _widened(truth.box, patch, limits) if role == "train" else truth.box
    if role == "train" and not _fits(patch, box):
        return None
    whole = Regions(None, None, None, axis=0, guard=0, wanted=patch[0] // 2, lost=0.0)
    return whole._replace(**{role: box})


def _along(truth: Truth, patch: Voxel, limits: Box, axis: int, *, share: float, parts: int) -> Regions | None:
    counts = truth.along[axis][truth.box.slices[axis]]
    wanted = -(-patch[axis] // 2)
    guard = max(1, round(share * wanted))
    spans = cut(counts, guard, SHARES[:parts])
    if spans is None or any(stop - start < _LEAST and len(truth.painted) > parts for start, stop in spans[1:]):
        return None
    first = truth.box.start[axis]
    boxes = [_replaced(truth.box, axis, (first + start, first + stop)) for start, stop in spans]
    # The raw in the guard belongs to nobody: training must not see what lies beside the validation region.
    seen = _replaced(limits, axis, (limits.start[axis], boxes[1].start[axis] - guard))
    train = _widened(boxes[0], patch, seen)
    if not _fits(patch, train):
        return None
    lost = 1 - sum(int(counts[start:stop].sum()) for start, stop in spans) / int(counts.sum())
    return Regions(train, boxes[1], boxes[2] if parts == 3 else None, axis, guard, wanted, lost)


def cut(counts: Int[np.ndarray, " n"], guard: int, shares: Sequence[float]) -> list[Span] | None:
    """Returns spans that hold these shares of as many counts as can be, at least `guard` apart; None: impossible.

    Each begins and ends where something is counted.
    """
    total = np.concatenate([[0], np.cumsum(counts)])
    best, low, high = None, 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        found = _laid(counts, total, guard, [middle * share / sum(shares) for share in shares])
        best, low, high = (found, middle, high) if found else (best, low, middle)
    return best


def _laid(
    counts: Int[np.ndarray, " n"], total: Int[np.ndarray, " m"], guard: int, shares: Sequence[float]
) -> list[Span] | None:
    spans, at = [], 0
    there = np.flatnonzero(counts)
    for number, share in enumerate(shares):
        ahead = there[there >= at]
        if not len(ahead):
            return None
        start = int(ahead[0])
        stop = int(np.searchsorted(total, total[start] + max(share * total[-1], 1)))
        if stop > len(counts):
            return None
        if number == len(shares) - 1:
            stop = int(there[-1]) + 1
        spans.append((start, stop))
        at = stop + guard
    return spans


def _widened(box: Box, patch: Voxel, limits: Box) -> Box:
    """Adds half a patch on all sides, so that what is labelled may lie anywhere in a patch, within the limits."""
    z, y, x = (side // 2 for side in patch)
    (z0, y0, x0), (z1, y1, x1) = box
    return Box((z0 - z, y0 - y, x0 - x), (z1 + z, y1 + y, x1 + x)).within(limits)


def _fits(patch: Voxel, box: Box) -> bool:
    return all(side <= there for side, there in zip(patch, box.shape, strict=True))


def _replaced(box: Box, axis: int, span: Span) -> Box:
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = span
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
