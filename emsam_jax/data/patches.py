"""Chooses and reads patches: sample i is a pure function of (seed, i).

What lies outside a volume's region of interest does not exist: raw is mirrored there, as prediction mirrors it at the
end of a volume, and labels are unlabelled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped, UInt32

from emsam_jax.config import Augmentation, Selection, Voxels
from emsam_jax.data.affinities import UNLABELLED, Target, renumbered
from emsam_jax.data.warp import Turn, WarpField, draw_field, sample_linear, sample_nearest, turns
from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Specimen, read_mirrored

_TILE = (32, 256, 256)
_PLACES = 8  # remembered of an object in a tile
_INT32_MAX = np.iinfo(np.int32).max
_TRIES = 200
Array = jax.Array | np.ndarray


class ObjectIndex:
    """A few places in each object, from one pass over the labels, tile by tile."""

    def __init__(self, specimen: Specimen):
        ids, places, sizes = [], [], []
        for tile in specimen.labelled_region.tiles(_TILE):
            labels, _ = specimen.read_labels(tile)
            flat = labels.ravel()
            order = np.argsort(flat, kind="stable")
            present, first, counts = np.unique(flat[order], return_index=True, return_counts=True)
            for label, start, count in zip(present, first, counts, strict=True):
                if label:
                    chosen = order[start + np.arange(_PLACES) * count // _PLACES]
                    places.append(np.column_stack(np.unravel_index(chosen, labels.shape)) + tile.start)
                    ids.append(label)
                    sizes.append(count)
        if not ids:
            raise UserError(f"{specimen.name}: its labels hold no object in the region of interest.")
        _, numbers = np.unique(ids, return_inverse=True)
        self.places = np.stack(places)
        # An object is drawn whatever its size; its tiles as often as it has voxels in them.
        whole = np.bincount(numbers, weights=sizes)
        share = np.asarray(sizes) / whole[numbers]
        self.chances = share / share.sum()

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, "3"]:
        tile = rng.choice(len(self.chances), p=self.chances)
        return self.places[tile, rng.integers(_PLACES)]


class Samples(NamedTuple):
    """Warped patches, stacked along a leading axis where they are several."""

    raw: Float32[Array, "*b z y x"]  # on [0, 1]
    labels: Int32[Array, "*b zl yl xl"]  # neurons > 0; with the target's margin
    number: UInt32[Array, "*b"]


class PatchSource:
    """Random access to an endless sequence of samples, as numpy arrays."""

    def __init__(
        self,
        specimens: Sequence[Specimen],
        target: Target,
        augmentation: Augmentation,
        seed: int,
        *,
        weights: Sequence[float | int] | None = None,
        selection: Selection | None = None,
    ):
        """`weights`: how often each volume is chosen; by default in proportion to its voxels."""
        self.specimens, self.target, self.augmentation, self.seed = tuple(specimens), target, augmentation, seed
        self.selection = selection or Selection()
        share = np.asarray(weights or [specimen.labelled_region.voxels for specimen in self.specimens], float)
        self.chances = share / share.sum()
        self._turns = [_turns(specimen, target, augmentation) for specimen in self.specimens]
        self._objects = [ObjectIndex(specimen) for specimen in self.specimens] if self.selection.by_object else []

    def __len__(self) -> int:
        return int(_INT32_MAX)

    def __getitem__(self, index: int) -> Samples:
        """Returns sample `index`, without a batch axis."""
        specimen, field = self.locate(index)
        inner = field.crop(self.target.margin.before, self.target.patch)
        raw = sample_linear(lambda box: read_mirrored(specimen, box), inner)
        labels = sample_nearest(lambda box: _read_labels(specimen, box), field)
        return Samples(specimen.normalised(raw), labels, np.asarray(index, np.uint32))

    def locate(self, index: int) -> tuple[Specimen, WarpField]:
        """Returns the volume of sample `index`, and the field by which its patch with margin is read."""
        rng = np.random.default_rng([self.seed, index])
        specimen, turn, place = self._choose(rng)
        return specimen, draw_field(rng, self.augmentation, self.target, turn, place)

    def _choose(self, rng: np.random.Generator) -> tuple[Specimen, Turn, Box]:
        """Chooses a place within a region whose labels pass the selection, and the patch's orientation."""
        for _ in range(_TRIES):
            number = int(rng.choice(len(self.specimens), p=self.chances))
            specimen, fitting = self.specimens[number], self._turns[number]
            turn = fitting[rng.integers(len(fitting))]
            place = self._place(rng, number, turn.shape(self.target.patch))
            if self._accepts(*specimen.read_labels(place)):
                return specimen, turn, place
        raise UserError(
            f"None of {_TRIES} places in {', '.join(specimen.name for specimen in self.specimens)} had a patch of "
            f"{self.target.patch} (z, y, x) with {self.selection.labelled:.0%} of it labelled and no object above "
            f"{self.selection.largest:.0%}; lower data.selection.labelled, raise data.selection.largest, or narrow the "
            "volume's roi to what is labelled."
        )

    def _place(self, rng: np.random.Generator, number: int, shape: Voxels) -> Box:
        region = self.specimens[number].labelled_region
        highest = np.subtract(region.stop, shape)
        if self._objects:
            start = np.clip(self._objects[number].draw(rng) - np.asarray(shape) // 2, region.start, highest)
        else:
            start = rng.integers(region.start, highest, endpoint=True)
        z, y, x = start.tolist()
        return Box((z, y, x), (z + shape[0], y + shape[1], x + shape[2]))

    def _accepts(self, ids: Shaped[np.ndarray, "z y x"], labelled: Shaped[np.ndarray, "z y x"]) -> bool:
        if labelled.mean() < self.selection.labelled:
            return False
        # Every second row and fourth column are enough to see whether one object fills the patch.
        ids, labelled = ids[:, ::2, ::4], labelled[:, ::2, ::4]
        _, counts = np.unique(ids[labelled & (ids > 0)], return_counts=True)
        return bool(counts.max(initial=0) <= self.selection.largest * labelled.sum())


def _turns(specimen: Specimen, target: Target, augmentation: Augmentation) -> list[Turn]:
    """Lists the symmetries under which the patch fits into the region: a flat region excludes some."""
    region = specimen.labelled_region.shape

    def fits(shape: Voxels) -> bool:
        return all(side <= there for side, there in zip(shape, region, strict=True))

    if not fits(target.patch):
        raise UserError(
            f"{specimen.name}: expected at least a patch of {target.patch} voxels (z, y, x), found {region} in the "
            "region of interest with labels; choose a smaller patch or a larger volume."
        )
    known = turns(target.isotropic) if augmentation.symmetries else [Turn()]
    return [turn for turn in known if fits(turn.shape(target.patch))]


def _read_labels(specimen: Specimen, box: Box) -> Int32[np.ndarray, "z y x"]:
    inside = box.within(specimen.labelled_region)
    numbers = as_int32(*specimen.read_labels(inside))
    if inside == box:
        return numbers
    beyond = [(a - start, stop - b) for start, stop, a, b in zip(*box, *inside, strict=True)]
    return np.pad(numbers, beyond, constant_values=UNLABELLED)


def as_int32(ids: Shaped[np.ndarray, "z y x"], labelled: Shaped[np.ndarray, "z y x"]) -> Int[np.ndarray, "z y x"]:
    """Converts ids to int32, since the device has no 64-bit integers; ids that are too large are renumbered."""
    if ids.itemsize >= 4 and ids.dtype != np.int32 and int(ids.max()) > _INT32_MAX:
        kept, places = renumbered(ids)
        ids = places + int(kept[0] > 0)
    numbers = ids.astype(np.int32)
    np.copyto(numbers, UNLABELLED, where=~labelled)
    return numbers
