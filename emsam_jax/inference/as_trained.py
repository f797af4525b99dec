"""Fits a volume to its model: the pyramid level of the training's voxel size, and the training's grey range."""

import dataclasses
import math
from collections.abc import Sequence

from emsam_jax.config import DeclaredVolume, Intensity
from emsam_jax.errors import UserError
from emsam_jax.inference.trained import Measured, Trained
from emsam_jax.volumes import Sizes, Volume, open_volume, place_of

_SAME_SIZE = 0.15  # of a side: by how much voxels may differ from those of the training


def declare_as_trained(declared: DeclaredVolume, trained: Trained) -> DeclaredVolume:
    """Chooses the pyramid level of the training's voxel size; what is not declared is as the training had it."""
    size, known = trained.measured.voxel_size_zyx, trained.config.data.train
    declared = dataclasses.replace(declared, intensity=intensity_as_trained(declared, known, trained.measured))
    if not declared.raw:
        return declared
    raw = open_volume(declared.raw, level=declared.raw_level, voxel_size_zyx=declared.raw_voxel_size_zyx or None)
    if not raw.voxel_size_known:
        return dataclasses.replace(declared, raw_voxel_size_zyx=size)
    if _fits(raw.voxel_size_zyx, size):
        return declared
    levels = () if declared.raw_voxel_size_zyx else raw.levels  # a declared size is of the declared level
    return dataclasses.replace(declared, raw_level=_level_that_fits(raw, levels, size))


def check_voxel_size(raw: Volume, trained: Trained) -> None:
    """Refuses voxels that are not as large as the training's."""
    _level_that_fits(raw, (raw.voxel_size_zyx,), trained.measured.voxel_size_zyx)


def intensity_as_trained(declared: DeclaredVolume, training: Sequence[DeclaredVolume], measured: Measured) -> Intensity:
    """Returns the declared intensity; if nothing is declared, that of the first training volume.

    Percentiles that the training declares too are those of a training region, as raw values: of the training volume in
    the same file, or else of the only range that training has seen. Where it has seen several, each its own volume's,
    the percentiles are the new volume's own.
    """
    asked = training[0].intensity if training and declared.intensity == Intensity() else declared.intensity
    if not asked.percentiles:
        return asked
    alike = [
        (part.raw.place, seen)
        for volume, part, seen in zip(training, measured.parts, measured.ranges, strict=True)
        if volume.intensity == asked
    ]
    here = place_of(declared.raw) if declared.raw else ""
    ranges = {seen for place, seen in alike if place == here} or {seen for _, seen in alike}
    if len(ranges) != 1:
        return asked
    ((low, high),) = ranges
    return dataclasses.replace(asked, low=low, high=high, percentiles=False)


def _level_that_fits(raw: Volume, levels: Sequence[Sizes], trained: Sizes) -> int:
    for level, size in enumerate(levels):
        if _fits(size, trained):
            return level
    found, expected = (" x ".join(f"{side:g}" for side in size) for size in (raw.voxel_size_zyx, trained))
    raise UserError(
        f"{raw.url}: expected voxels of {expected} nm (z, y, x), as the model was trained on, found {found} nm"
        f"{'' if len(levels) < 2 else ' and no level of the pyramid that fits'}; train on such voxels, or correct "
        "the voxel size."
    )


def _fits(size: Sizes, trained: Sizes) -> bool:
    return all(math.isclose(a, b, rel_tol=_SAME_SIZE) for a, b in zip(size, trained, strict=True))
