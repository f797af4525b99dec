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
from emsam_jax.data.label_index import LabelIndex, ObjectIndex
from emsam_jax.data.warp import Turn, WarpField, draw_field, sample_linear, sample_nearest, turns
from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Specimen, read_mirrored

_INT32_MAX = np.iinfo(np.int32).max
_TRIES = 200
Array = jax.Array | np.ndarray


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
        """`weights`: how often each volume is chosen; by default in proportion to its voxels, labelled or all."""
        self.specimens, self.target, self.augmentation, self.seed = tuple(specimens), target, augmentation, seed
        self.selection = selection or Selection()
        self.labelled = [LabelIndex(specimen) for specimen in self.specimens] if self.selection.by_label else []
        self._objects = [ObjectIndex(specimen) for specimen in self.specimens] if self.selection.by_object else []
        # Sparse labels may reach less far than a patch: there is raw around them to be seen.
        self._regions = [one.region if self.selection.by_label else one.labelled_region for one in self.specimens]
        voxels = [index.voxels for index in self.labelled] or [region.voxels for region in self._regions]
        share = np.asarray(weights or voxels, float)
        self.chances = share / share.sum()
        self._turns = [
            _turns(specimen.name, region, target, augmentation)
            for specimen, region in zip(self.specimens, self._regions, strict=True)
        ]

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
            f"{self.target.patch} (z, y, x) with {100 * self.selection.labelled:g}% of it labelled and no object above "
            f"{self.selection.largest:.0%}; lower data.selection.labelled or raise data.selection.largest; where few "
            "voxels are labelled, draw patches around them (data.selection.by_label)."
        )

    def _place(self, rng: np.random.Generator, number: int, shape: Voxels) -> Box:
        region, sides = self._regions[number], np.asarray(shape)
        highest = np.subtract(region.stop, shape)
        if self._objects:
            start = np.clip(self._objects[number].draw(rng) - sides // 2, region.start, highest)
        elif self.labelled:
            # In the middle half, which prediction weighs most, and not at one place of it: else the network would learn
            # from no other.
            before = sides // 4 + rng.integers(np.maximum(sides // 2, 1))
            start = np.clip(self.labelled[number].draw(rng) - before, region.start, highest)
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


def _turns(name: str, region: Box, target: Target, augmentation: Augmentation) -> list[Turn]:
    """Lists the symmetries under which the patch fits into the region: a flat region excludes some."""

    def fits(shape: Voxels) -> bool:
        return all(side <= there for side, there in zip(shape, region.shape, strict=True))

    if not fits(target.patch):
        raise UserError(
            f"{name}: expected at least a patch of {target.patch} voxels (z, y, x), found {region.shape} in the "
            "region of interest with labels; choose a smaller patch or a larger volume, or draw by label "
            "(data.selection.by_label), which takes raw around the labels too."
        )
    known = turns(target.isotropic) if augmentation.symmetries else [Turn()]
    return [turn for turn in known if fits(turn.shape(target.patch))]


def _read_labels(specimen: Specimen, box: Box) -> Int32[np.ndarray, "z y x"]:
    inside = box.within(specimen.labelled_region)
    if not inside.voxels:
        return np.full(box.shape, UNLABELLED, np.int32)
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
