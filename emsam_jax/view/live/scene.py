"""What is looked at: volumes that meet in world coordinates, and the places worth a look."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from emsam_jax.config import LabelRules
from emsam_jax.errors import UserError
from emsam_jax.view.colours import Rgb
from emsam_jax.view.live.comparison import AT_ONCE, Colours, Comparison, colour_by_hash, largest_ids
from emsam_jax.view.live.served import Levels
from emsam_jax.volumes import Sizes, Volume, check_meet

_SEARCHED = (64, 512, 512)  # voxels read at a time


@dataclasses.dataclass(frozen=True)
class Place:
    """Somewhere to jump to; `segments` and `neurons` are selected with it."""

    at_zyx_nm: Sizes
    text: str
    colour: Rgb
    segments: tuple[int, ...] = ()
    neurons: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    title: str
    raw: Levels | None = None
    affinities: Levels | None = None  # [c, z, y, x]
    segmentation: Levels | None = None
    truth: Levels | None = None
    mask: Volume | None = None  # truth counts where it is not 0
    rules: LabelRules = dataclasses.field(default_factory=LabelRules)
    intensity: tuple[float, float] | None = None  # raw values drawn black and white
    places: dict[str, tuple[Place, ...]] = dataclasses.field(default_factory=dict)  # by the name of their layer
    objects: str = ""  # folder of meshes and skeletons of the segmentation, as emsam objects writes it
    sections: int = 3  # that the report shows
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.volumes:
            raise UserError(f"{self.title}: found no volume there to show; give --raw, --labels or --affinities.")
        if self.objects and self.segmentation is None:
            raise UserError("--objects is drawn with its segmentation: expected --labels or --out, found neither.")
        first, *others = self.volumes.values()
        for other in others:
            check_meet(first.finest, other.finest)
        for name in ("segmentation", "truth"):
            levels = getattr(self, name)
            if levels and levels.finest.dtype.kind not in "iub":
                raise UserError(
                    f"{levels.finest.url}: expected ids of whole numbers as {name}, found {levels.finest.dtype}."
                )

    @property
    def volumes(self) -> dict[str, Levels]:
        """By the name of their layer, from the lowest."""
        found = {name: getattr(self, name) for name in ("raw", "affinities", "segmentation", "truth")}
        return {name: levels for name, levels in found.items() if levels is not None}

    @property
    def main(self) -> Volume:
        """The volume in whose voxels places are told."""
        return next(iter(self.volumes.values())).finest

    @functools.cached_property
    def comparison(self) -> Comparison | None:
        if self.segmentation is None or self.truth is None:
            return None
        return Comparison(self.segmentation, self.truth.finest, self.mask, self.rules)

    @functools.cached_property
    def colours(self) -> dict[str, Colours]:
        """Of the largest objects: the report's where there is a truth to compare with, else those of their hash."""
        ids = {name: largest_ids(self.volumes[name]) for name in ("segmentation", "truth") if name in self.volumes}
        if self.comparison and np.prod(self.comparison.finest.shape) <= AT_ONCE:
            segments, neurons = self.comparison.colour(ids["segmentation"], ids["truth"], self.sections)
            return {"segmentation": segments, "truth": neurons}
        return {name: colour_by_hash(found) for name, found in ids.items()}

    def range_of_raw(self) -> tuple[float, float]:
        """Raw values to be drawn black and white."""
        if self.intensity:
            return self.intensity
        assert self.raw
        *_, coarsest = self.raw.coarser()
        sample = coarsest[coarsest.box.middle((64, 256, 256)).slices].astype(np.float32)
        low, high = (float(value) for value in np.percentile(sample[np.isfinite(sample)], (0.5, 99.5)))
        return (low, high) if low < high else (low, low + 1)

    def find_object(self, number: int) -> Sizes:
        """A place of the segment, in nm."""
        levels = self.segmentation or self.truth
        if levels is None:
            raise UserError("--object is an id of a segmentation: expected --labels or --truth, found none.")
        for volume in reversed([*levels.coarser()]):
            for tile in volume.box.tiles(_SEARCHED):
                if volume.is_written(tile) and (found := np.argwhere(volume[tile.slices] == number)).size:
                    return centre_of(volume, (found[len(found) // 2] + tile.start).tolist())
        raise UserError(f"--object: expected an id of {levels.finest.url}, found {number}, which no voxel of it has.")


def centre_of(volume: Volume, voxel_zyx: Sequence[int]) -> Sizes:
    sides = zip(volume.offset_zyx, voxel_zyx, volume.voxel_size_zyx, strict=True)
    z, y, x = (float(offset + (at + 0.5) * size) for offset, at, size in sides)
    return z, y, x


def middle_of(volume: Volume) -> Sizes:
    return centre_of(volume, [side // 2 for side in volume.shape[-3:]])
