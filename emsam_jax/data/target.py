"""What is to be learned: which affinities of which patch."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from emsam_jax.data.affinities import SHORT_OFFSETS, Offset, Widening
from emsam_jax.data.augmentation import Voxels

BACKGROUND, UNLABELLED = 0, -1  # in samples, whatever the volume's own ids are


class Margin(NamedTuple):
    """Voxels around a patch."""

    before: Voxels
    behind: Voxels


@dataclasses.dataclass(frozen=True)
class Target:
    patch: Voxels = (18, 160, 160)
    offsets: tuple[Offset, ...] = SHORT_OFFSETS
    widening: Widening = "2d"  # of borders: none, 2d (anisotropic voxels), faces or 3d (isotropic)
    radius: int = 1  # of the widening, voxels
    isotropic: bool = False  # all axes may be exchanged; the warp stays within planes

    @property
    def margin(self) -> Margin:
        """What affinities at the patch's faces look at, and the widening that channels to neighbours see there."""
        widened = {"none": (), "2d": (1, 2), "3d": (0, 1, 2), "faces": (0, 1, 2)}[self.widening]
        wide = [self.radius if axis in widened else 0 for axis in range(3)]
        short = [offset for offset in self.offsets if is_short(offset)]

        def sides(sign: int) -> Voxels:
            far, near = _reach(self.offsets, sign), _reach(short, sign)
            z, y, x = (max(a, b + more) for a, b, more in zip(far, near, wide, strict=True))
            return z, y, x

        return Margin(sides(-1), sides(1))


def is_short(offset: Offset) -> bool:
    """Whether the channel joins neighbours: these learn the widened borders."""
    return max(map(abs, offset)) == 1


def _reach(offsets: Iterable[Offset], sign: int) -> Voxels:
    z, y, x = (max((sign * offset[axis] for offset in offsets), default=0) for axis in range(3))
    return max(z, 0), max(y, 0), max(x, 0)
