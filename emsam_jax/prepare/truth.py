"""Looks at labels: where they lie, how wide neurons are, what the id 0 stands for, which affinities are known."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
from bioimage_cpp.segmentation import label
from jaxtyping import Bool, Int, Integer, Shaped
from scipy.ndimage import distance_transform_edt

from emsam_jax.config import LabelRules
from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Specimen

Zero = Literal["background", "unlabelled", "sections"]  # sections: background in sections with neurons, else unlabelled
Kind = Literal["dense", "sections", "strokes"]

_TILE = (32, 512, 512)
_LOOKS = 12  # sections in which neurons are measured
_SIDE = 2048  # voxels of such a section, along y and x
_NEAR_NM = 50.0  # membranes and the clefts between them reach no farther from a neuron
_SMALLEST = 5  # voxels of a piece that is counted as a neurite's profile
_NONE = 1e-3  # share of voxels of id 0 below which its meaning matters little
_DENSE = 0.3  # share of a section's voxels that neurons fill where somebody painted all of it


@dataclasses.dataclass(frozen=True)
class Truth:
    box: Box  # of the raw's voxels, around all neurons
    along: tuple[Int[np.ndarray, " _"], ...]  # voxels of neurons by z, by y and by x, over the whole raw
    zero: Zero
    zero_share: float  # of the box's voxels
    zero_far: float  # share of these, in painted sections, that no neuron is near to
    touching: float  # share of the borders within sections where no background lies between two neurons
    known_in_plane: int  # pairs of neighbours along x with an id each, and
    known_across: int  # pairs along z
    borders: int  # pairs along x with two ids
    profile: float  # median diameter of neurites' profiles, voxels
    trunk: float  # the same, weighted by area: half of the neurons' area lies in wider ones

    @property
    def painted(self) -> list[int]:
        """Lists the sections with neurons."""
        return np.flatnonzero(self.along[0]).tolist()

    @property
    def lone(self) -> list[int]:
        """Lists the painted sections without a painted neighbour."""
        there = set(self.painted)
        return [z for z in self.painted if not {z - 1, z + 1} & there]

    @property
    def filled(self) -> float:
        """Returns the share of the painted sections that neurons fill, within the box."""
        _, y, x = self.box.shape
        return float(self.along[0].sum() / (len(self.painted) * y * x))

    @property
    def kind(self) -> Kind:
        if self.filled < _DENSE and self.zero == "unlabelled":
            return "strokes"
        return "dense" if len(self.painted) > 0.5 * self.box.shape[0] else "sections"


def survey_truth(specimen: Specimen, painted: Specimen, zero: Zero | None) -> Truth:
    """Reads all labels that were ever written, and some sections again.

    The id 0 is background in `specimen` and unlabelled in `painted`; `zero` is what the user says that it stands for.
    """
    along = tuple(np.zeros(side, np.int64) for side in specimen.raw.box.shape)
    pairs = np.zeros(3, np.int64)
    for tile, _ in painted.labelled_boxes(_TILE):
        ids, _ = painted.read_labels(tile)
        there = ids > 0
        for axis, other in enumerate(((1, 2), (0, 2), (0, 1))):
            along[axis][tile.slices[axis]] += there.sum(other)
        both = there[:, :, 1:] & there[:, :, :-1]
        differ = both & (ids[:, :, 1:] != ids[:, :, :-1])
        pairs += [both.sum(), (there[1:] & there[:-1]).sum(), differ.sum()]
    if not along[0].any():
        raise UserError(f"{specimen.name}: expected neurons (ids above 0) in its labels, found none.")
    box = _around(along)
    seen = _look_closely(specimen, box, along[0])
    share = float(1 - along[0].sum() / box.voxels)
    found = zero or _guess(seen.far, share, empty=bool((along[0][box.slices[0]] == 0).any()))
    in_plane, across, borders = pairs.tolist()
    return Truth(box, along, found, share, seen.far, seen.touching, in_plane, across, borders, seen.profile, seen.trunk)


def rules_of(truth: Truth, rules: LabelRules) -> LabelRules:
    """Puts the id 0 among the ids of background or, where nobody looked at it, of unlabelled voxels."""
    without = LabelRules(tuple(n for n in rules.background if n), tuple(n for n in rules.unlabelled if n))
    if truth.zero == "unlabelled":
        return dataclasses.replace(without, unlabelled=(0, *without.unlabelled))
    return dataclasses.replace(without, background=(0, *without.background))


def painted_runs(truth: Truth) -> tuple[tuple[int, int], ...]:
    """Returns the painted sections as runs [start, stop)."""
    runs: list[tuple[int, int]] = []
    for z in truth.painted:
        start = runs.pop()[0] if runs and runs[-1][1] == z else z
        runs.append((start, z + 1))
    return tuple(runs)


def section_mask(sections: Sequence[tuple[int, int]], shape: Sequence[int]) -> str:
    """Returns a mask in TensorStore's JSON: 1 in these sections, [start, stop), and 0 in the others."""
    there = [int(any(start <= z < stop for start, stop in sections)) for z in range(shape[0])]
    across = {"input_shape": list(shape), "output": [{"input_dimension": 0}]}
    return json.dumps({"driver": "array", "dtype": "uint8", "array": there, "transform": across})


def describe_zero(truth: Truth, flag_given: bool) -> str:
    """Formats the evidence, what was taken from it and the flag that says otherwise; empty where few voxels are 0."""
    if truth.zero_share < _NONE:
        return ""
    far = f"{truth.zero_far:.0%} of them farther than {_NEAR_NM:g} nm from any neuron"
    empty = truth.box.shape[0] - len(truth.painted)
    whole = f" and all of {empty} sections" if empty else ""
    evidence = f"Label 0 fills {truth.zero_share:.1%} of the voxels around the neurons{whole}, where neurons are {far}"
    taken = {
        "background": "background (membrane, extracellular space)",
        "unlabelled": "unlabelled",
        "sections": "background in sections with neurons and as unlabelled in the others",
    }[truth.zero]
    others = " or ".join(f"--zero={name}" for name in ("background", "unlabelled", "sections") if name != truth.zero)
    return f"{evidence}: taken as {taken}" + (", as --zero says." if flag_given else f"; else say {others}.")


def _guess(far: float, share: float, *, empty: bool) -> Zero:
    if far > 0.5 and share > 1 - _DENSE:
        return "unlabelled"
    return "sections" if empty else "background"


def _around(along: tuple[Int[np.ndarray, " _"], ...]) -> Box:
    ends = [(int(np.flatnonzero(counts)[0]), int(np.flatnonzero(counts)[-1]) + 1) for counts in along]
    (z0, z1), (y0, y1), (x0, x1) = ends
    return Box((z0, y0, x0), (z1, y1, x1))


@dataclasses.dataclass(frozen=True)
class _Seen:
    far: float
    touching: float
    profile: float
    trunk: float


def _look_closely(specimen: Specimen, box: Box, by_section: Int[np.ndarray, " z"]) -> _Seen:
    """Measures neurons and what lies between them in a few painted sections."""
    painted = np.flatnonzero(by_section)
    chosen = np.unique(painted[np.linspace(0, len(painted) - 1, _LOOKS).round().astype(int)])
    middle = box.middle((box.shape[0], _SIDE, _SIDE))
    sampling = specimen.raw.voxel_size_zyx[1:]
    near = max(_NEAR_NM, 3 * max(sampling))
    areas: list[int] = []
    zeros = far = met = apart = 0
    for z in chosen.tolist():
        (_, y0, x0), (_, y1, x1) = middle
        section, labelled = (values[0] for values in specimen.read_labels(Box((z, y0, x0), (z + 1, y1, x1))))
        areas += _areas(section)
        nobody = labelled & (section == 0)
        zeros += int(nobody.sum())
        if nobody.any() and (section > 0).any():
            distance = distance_transform_edt(section == 0, sampling=sampling)
            far += int((nobody & (np.asarray(distance) > near)).sum())
        touches, separated = _meetings(section)
        met, apart = met + touches, apart + separated
    sizes = np.sort(np.asarray([area for area in areas if area >= _SMALLEST] or areas or [1]))
    diameters = 2 * np.sqrt(sizes / np.pi)
    half = np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)
    touching = met / (met + apart) if met + apart else 1.0
    return _Seen(far / max(zeros, 1), touching, float(np.median(diameters)), float(diameters[half]))


def _areas(section: Integer[np.ndarray, "y x"]) -> list[int]:
    pieces = label(np.ascontiguousarray(section.astype(np.uint64)), background=0, connectivity=1)
    return np.bincount(pieces.ravel().astype(np.int64))[1:].tolist()


def _meetings(section: Integer[np.ndarray, "y x"]) -> tuple[int, int]:
    """Counts where, along x, a neuron meets another one, and where it meets background."""
    one, other = section[:, 1:], section[:, :-1]
    differ: Bool[np.ndarray, "y x"] = one != other
    both: Shaped[np.ndarray, "y x"] = differ & (one > 0) & (other > 0)
    # A background gap between two neurons is entered and left.
    return int(both.sum()), int((differ & ~both).sum()) // 2
