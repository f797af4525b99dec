"""How large things are for the blocks of a plan: as for the largest, so that one compiled program serves all."""

from collections.abc import Iterable

import numpy as np

from emsam_jax.blocks import Plan
from emsam_jax.inference.grid import Grid
from emsam_jax.volumes import Box, reflect
from emsam_jax.volumes.box import Voxel


class Extent:
    def __init__(self, grid: Grid, plan: Plan, section_axes: Iterable[int] = (0,)):
        self.grid, self.plan = grid, plan
        read, total, windows = [], [], []
        for axis in range(3):
            reads, totals, counts = [], [], []
            for first, last in self._intervals(axis):
                start, stop = grid.span(axis, first, last)
                low, high = self._inside(axis, start, stop)
                reads.append(high - low)
                totals.append(max(stop - start, first - start + plan.block[axis]))
                counts.append(len(grid.starts(axis, first, last)))
            read.append(max(reads))
            total.append(max(totals))
            windows.append(max(counts))
        self.read_shape: Voxel = (read[0], read[1], read[2])  # of the raw
        self.total_shape: Voxel = (total[0], total[1], total[2])  # of all windows that touch a block
        self.sections = max(read[axis] for axis in section_axes)
        self.depth = max(windows[axis] for axis in section_axes)  # windows over each other
        self.columns = max(windows[0] * windows[1] * windows[2] // windows[axis] for axis in section_axes)

    def first(self, box: Box) -> Voxel:
        """Where the first of the windows that touch the box start."""
        z, y, x = (self.grid.starts(axis, box.start[axis], box.stop[axis])[0] for axis in range(3))
        return z, y, x

    def read_box(self, box: Box) -> Box:
        """What those windows see of the volume, mirrored or not."""
        bounds = [self._inside(axis, *self.grid.span(axis, box.start[axis], box.stop[axis])) for axis in range(3)]
        (z0, z1), (y0, y1), (x0, x1) = bounds
        return Box((z0, y0, x0), (z1, y1, x1))

    def _inside(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        indices = reflect(np.arange(start, stop), self.plan.volume.stop[axis])
        return int(indices.min()), int(indices.max()) + 1

    def _intervals(self, axis: int) -> Iterable[tuple[int, int]]:
        first, last = self.plan.region.start[axis], self.plan.region.stop[axis]
        for start in range(first, last, self.plan.block[axis]):
            yield start, min(start + self.plan.block[axis], last)
