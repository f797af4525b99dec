"""Which patch sample i is, and reading it: a pure function of (seed, i)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped

from emsam_jax.data.affinities import renumbered
from emsam_jax.data.augment import UNLABELLED, Windows
from emsam_jax.data.augmentation import Voxels
from emsam_jax.data.objects import ObjectIndex
from emsam_jax.volumes import Box, Specimen, VolumeError

_INT32_MAX = np.iinfo(np.int32).max
_TRIES = 200


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which patches are worth training on."""

    labelled: float = 0.3  # share of voxels that must be labelled
    largest: float = 0.7  # share of the labelled voxels that one object may fill
    by_object: bool = False  # draw an object first, whatever its size, then a place in it: thin processes are seen


class PatchSource:
    """Random access to samples, without end: windows of raw and labels around patches, as numpy arrays."""

    def __init__(
        self,
        specimens: Sequence[Specimen],
        patch: Voxels,
        window: Voxels,
        seed: int,
        *,
        weights: Sequence[float | int] | None = None,
        selection: Selection | None = None,
    ):
        """`weights`: how often each volume is chosen; by default as often as it has voxels."""
        self.specimens, self.patch, self.window, self.seed = tuple(specimens), patch, window, seed
        self.selection = selection or Selection()
        for specimen in self.specimens:
            _check_fits(specimen, patch)
        dtypes = {str(specimen.raw.dtype) for specimen in self.specimens}
        if not dtypes <= {"uint8", "uint16"}:
            raise VolumeError(f"Training takes raw volumes of uint8 or uint16; found {', '.join(sorted(dtypes))}.")
        self.dtype = np.uint8 if dtypes == {"uint8"} else np.uint16
        share = np.asarray(weights or [specimen.labelled_region.voxels for specimen in self.specimens], float)
        self.chances = share / share.sum()
        self._objects = [ObjectIndex(specimen) for specimen in self.specimens] if self.selection.by_object else []

    def __len__(self) -> int:
        return int(_INT32_MAX)

    def __getitem__(self, index: int) -> Windows:
        """Sample `index`, without a batch axis."""
        rng = np.random.default_rng([self.seed, index])
        for _ in range(_TRIES):
            number = int(rng.choice(len(self.specimens), p=self.chances))
            specimen = self.specimens[number]
            patch = self._place(rng, number)
            around = _around(patch, self.window)
            ids, labelled = specimen.read_labels(around)
            z, y, x = around.start
            inner = patch.shifted((-z, -y, -x)).slices
            if not self._accepts(ids[inner], labelled[inner]):
                continue
            low, high = specimen.intensity_range
            grey_range = np.array([high, low] if specimen.intensity.invert else [low, high], np.float32)
            raw = specimen.read_raw(around).astype(self.dtype, copy=False)
            return Windows(raw, as_int32(ids, labelled), grey_range, np.asarray(index, np.uint32))
        raise VolumeError(
            f"None of {_TRIES} places in {', '.join(specimen.name for specimen in self.specimens)} had a patch of "
            f"{self.patch} (z, y, x) with {self.selection.labelled:.0%} of it labelled and no object above "
            f"{self.selection.largest:.0%}; lower data.selection.labelled, raise data.selection.largest, or narrow the "
            "volume's roi to what is labelled."
        )

    def _place(self, rng: np.random.Generator, number: int) -> Box:
        region = self.specimens[number].labelled_region
        highest = [stop - side for stop, side in zip(region.stop, self.patch, strict=True)]
        start = rng.integers(region.start, np.asarray(highest) + 1)
        if self._objects:
            centre = self._objects[number].draw(rng) - np.asarray(self.patch) // 2
            start = np.clip(centre, region.start, highest)
        z, y, x = (int(n) for n in start)
        return Box((z, y, x), (z + self.patch[0], y + self.patch[1], x + self.patch[2]))

    def _accepts(self, ids: Shaped[np.ndarray, "z y x"], labelled: Shaped[np.ndarray, "z y x"]) -> bool:
        if labelled.mean() < self.selection.labelled:
            return False
        # Every second row and fourth column are enough to see whether one object fills the patch.
        ids, labelled = ids[:, ::2, ::4], labelled[:, ::2, ::4]
        _, counts = np.unique(ids[labelled & (ids > 0)], return_counts=True)
        return bool(counts.max(initial=0) <= self.selection.largest * labelled.sum())


def as_int32(ids: Shaped[np.ndarray, "z y x"], labelled: Shaped[np.ndarray, "z y x"]) -> Int[np.ndarray, "z y x"]:
    """Ids as the device takes them, which knows no 64 bits: numbered anew where they are too large."""
    if ids.itemsize >= 4 and ids.dtype != np.int32 and int(ids.max()) > _INT32_MAX:
        kept, places = renumbered(ids)
        ids = places + int(kept[0] > 0)
    numbers = ids.astype(np.int32)
    np.copyto(numbers, UNLABELLED, where=~labelled)
    return numbers


def _around(patch: Box, window: Voxels) -> Box:
    """The window with the patch's centre."""
    start = [
        first - (side - (last - first)) // 2 for first, last, side in zip(patch.start, patch.stop, window, strict=True)
    ]
    return Box((start[0], start[1], start[2]), (start[0] + window[0], start[1] + window[1], start[2] + window[2]))


def _check_fits(specimen: Specimen, patch: Voxels) -> None:
    region = specimen.labelled_region
    if any(side > there for side, there in zip(patch, region.shape, strict=True)):
        raise VolumeError(
            f"{specimen.name}: expected at least a patch of {patch} voxels (z, y, x), found {region.shape} in the "
            "region of interest with labels; choose a smaller patch or a larger volume."
        )
