"""A box of voxels [start, stop), z, y, x."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from emsam_jax.errors import UserError

Voxel = tuple[int, int, int]


class Box(NamedTuple):
    start: Voxel
    stop: Voxel  # the first voxel beyond

    @property
    def shape(self) -> Voxel:
        z, y, x = (max(0, stop - start) for start, stop in zip(*self, strict=True))
        return z, y, x

    @property
    def voxels(self) -> int:
        z, y, x = self.shape
        return z * y * x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(start, stop) for start, stop in zip(*self, strict=True))
        return z, y, x

    def __str__(self) -> str:
        """Formats the box as `--roi` takes it."""
        return ",".join(f"{start}:{stop}" for start, stop in zip(*self, strict=True))

    def shifted(self, by: Voxel) -> "Box":
        return Box(_add(self.start, by), _add(self.stop, by))

    def within(self, other: "Box") -> "Box":
        """Returns the intersection; of shape 0 where there is none."""
        starts = [max(pair) for pair in zip(self.start, other.start, strict=True)]
        stops = [min(pair) for pair in zip(self.stop, other.stop, strict=True)]
        z, y, x = (max(start, stop) for start, stop in zip(starts, stops, strict=True))
        return Box((starts[0], starts[1], starts[2]), (z, y, x))

    def middle(self, shape: Voxel) -> "Box":
        """Returns a box of this shape in the middle, cropped to this box."""
        z, y, x = (max(0, side - own) // 2 for side, own in zip(self.shape, shape, strict=True))
        return Box((0, 0, 0), shape).shifted(_add(self.start, (z, y, x))).within(self)

    def tiles(self, shape: Voxel) -> Iterator["Box"]:
        """Yields boxes of this shape that tile the box from its start, x fastest; the last ones are smaller."""
        ranges = [range(*bounds) for bounds in zip(self.start, self.stop, shape, strict=True)]
        for z, y, x in itertools.product(*ranges):
            yield Box((z, y, x), _add((z, y, x), shape)).within(self)


def box_of(shape: tuple[int, ...]) -> Box:
    z, y, x = shape
    return Box((0, 0, 0), (z, y, x))


def parse_box(text: str, whole: Box) -> Box:
    """Parses `z0:z1,y0:y1,x0:x1` in voxels; a side left out is that of `whole`, as are all of an empty text."""
    if not text:
        return whole
    expected = f"Region of interest: expected z0:z1,y0:y1,x0:x1 within {whole}; found {text!r}."
    parts = [part.split(":") for part in text.split(",")]
    if len(parts) != 3 or any(len(part) != 2 for part in parts):
        raise UserError(expected)
    try:
        start = [int(a) if a.strip() else first for (a, _), first in zip(parts, whole.start, strict=True)]
        stop = [int(b) if b.strip() else last for (_, b), last in zip(parts, whole.stop, strict=True)]
    except ValueError:
        raise UserError(expected) from None
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    if box.within(whole) != box or not box.voxels:
        raise UserError(expected)
    return box


def _add(a: Voxel, b: Voxel) -> Voxel:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
