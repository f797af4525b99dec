"""Windows on one grid over space, anchored at the volume's first voxel; blending weights; extents of a plan."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from emsam_jax.blocks import Plan
from emsam_jax.volumes import Box, Voxel, reflect

_SIGMA = 0.2  # of the Gaussian, where the window is [-1, 1]


@dataclasses.dataclass(frozen=True)
class Grid:
    window: Voxel
    stride: Voxel

    def starts(self, axis: int, first: int, last: int) -> range:
        """Returns the starts of the windows that touch [first, last)."""
        window, stride = self.window[axis], self.stride[axis]
        return range(((first - window) // stride + 1) * stride, last, stride)

    def span(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """Returns the extent of those windows, from the first voxel to behind the last."""
        starts = self.starts(axis, first, last)
        return starts[0], starts[-1] + self.window[axis]

    def gaussian(self, offset: Voxel) -> Float[np.ndarray, "z y x"]:
        """Evaluates the Gaussian at the middle of the edge from each voxel to the one at this offset.

        So the weight is the same seen in a mirror, where the edge is the other voxel's.
        """
        sides = []
        for n, step in zip(self.window, offset, strict=True):
            places = (2 * np.arange(n) + step + 1) / n - 1  # the window is [-1, 1]
            sides.append(np.exp(-0.5 * (places / _SIGMA) ** 2))
        return sides[0][:, None, None] * sides[1][:, None] * sides[2]

    def holds_both(self, offset: Voxel) -> Bool[np.ndarray, "z y x"]:
        """Returns where in a window the voxel at the offset lies in the window too."""
        partners = [np.arange(side) + step for side, step in zip(self.window, offset, strict=True)]
        z, y, x = ((at >= 0) & (at < side) for at, side in zip(partners, self.window, strict=True))
        return z[:, None, None] & y[:, None] & x

    def over_windows(self, weights: Float[np.ndarray, "z y x"]) -> Float[np.ndarray, "z y x"]:
        """Sums the weights of all windows over a voxel, for each voxel of one window."""
        total = weights
        for axis, (side, stride) in enumerate(zip(self.window, self.stride, strict=True)):
            padded = np.moveaxis(total, axis, 0)
            padded = np.concatenate([padded, np.zeros((-side % stride, *padded.shape[1:]))])
            summed = padded.reshape(-1, stride, *padded.shape[1:]).sum(0)
            total = np.moveaxis(summed[np.arange(side) % stride], 0, axis)
        return total


class Along(NamedTuple):
    """The windows that touch a block, along one axis."""

    windows: int
    read: int  # voxels that they see
    span: int  # voxels from the first one's start to behind the last, or the block


class Extent:
    def __init__(self, grid: Grid, plan: Plan, section_axes: Iterable[int] = (0,)):
        self.grid, self.plan = grid, plan
        sides = [list(self.intervals(axis)) for axis in range(3)]
        windows, read, total = ([max(along[field] for along in side) for side in sides] for field in range(3))
        self.read_shape: Voxel = (read[0], read[1], read[2])  # of the raw
        self.total_shape: Voxel = (total[0], total[1], total[2])  # of all windows that touch a block
        self.sections = max(read[axis] for axis in section_axes)
        self.depth = max(windows[axis] for axis in section_axes)  # windows over each other
        self.columns = max(windows[0] * windows[1] * windows[2] // windows[axis] for axis in section_axes)

    def first(self, box: Box) -> Voxel:
        """Returns the start of the first windows that touch the box."""
        z, y, x = (self.grid.starts(axis, box.start[axis], box.stop[axis])[0] for axis in range(3))
        return z, y, x

    def read_box(self, box: Box) -> Box:
        """Returns the box of the volume that those windows see, mirrored or not."""
        bounds = [self._inside(axis, *self.grid.span(axis, box.start[axis], box.stop[axis])) for axis in range(3)]
        (z0, z1), (y0, y1), (x0, x1) = bounds
        return Box((z0, y0, x0), (z1, y1, x1))

    def _inside(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        indices = reflect(np.arange(start, stop), self.plan.volume.stop[axis])
        return int(indices.min()), int(indices.max()) + 1

    def intervals(self, axis: int) -> Iterator[Along]:
        """Yields what each block's windows are along an axis."""
        first, last = self.plan.region.start[axis], self.plan.region.stop[axis]
        for start in range(first, last, self.plan.block[axis]):
            yield self.along(axis, start, min(start + self.plan.block[axis], last))

    def along(self, axis: int, first: int, last: int) -> Along:
        start, stop = self.grid.span(axis, first, last)
        low, high = self._inside(axis, start, stop)
        span = max(stop - start, first - start + self.plan.block[axis])
        return Along(len(self.grid.starts(axis, first, last)), high - low, span)
