"""Finds what is wrong with a volume and its labels, in sentences. `quick_findings` reads metadata and a few crops."""

import dataclasses
from typing import Literal

import numpy as np

from emsam_jax.errors import UserError
from emsam_jax.volumes.box import Box
from emsam_jax.volumes.chunk_files import Missing
from emsam_jax.volumes.meet import check_meet, check_within, extent_on, with_size_of
from emsam_jax.volumes.specimen import Specimen
from emsam_jax.volumes.verify.alignment import border_contrasts
from emsam_jax.volumes.volume import Volume

_CONTRAST = 0.1  # standard deviations; labels on real EM reach 0.4 to 1, labels beside it 0
_LOOK = (3, 512, 512)


@dataclasses.dataclass(frozen=True)
class Finding:
    severity: Literal["error", "warning"]
    text: str


def error(text: str) -> Finding:
    return Finding("error", text)


def warning(text: str) -> Finding:
    return Finding("warning", text)


def quick_findings(specimen: Specimen) -> list[Finding]:
    """Checks shapes, types, voxel sizes, the middle section of the region, and the labels' orientation.

    Takes seconds, whatever the volume's size.
    """
    found = fit_findings(specimen.raw, specimen.labels, specimen.mask)
    for volume in (specimen.raw, specimen.labels, specimen.mask):
        if volume is not None:
            found += missing_findings(volume, sparse=volume is specimen.labels and 0 in specimen.rules.unlabelled)
    found += _middle(specimen)
    if specimen.labels is None or any(finding.severity == "error" for finding in found):
        return found
    try:
        aligned = alignment_findings(specimen, crops=1)
        return found + [warning(finding.text) for finding in aligned]  # one crop is no proof
    except UserError as problem:
        return [*found, error(str(problem))]


def fit_findings(raw: Volume, labels: Volume | None, mask: Volume | None) -> list[Finding]:
    """Checks what metadata alone tell."""
    others = [volume for volume in (labels, mask) if volume is not None]
    found = _voxel_sizes(raw, others) + _types(raw, labels)
    for volume in others:
        found += _meeting(raw, with_size_of(raw, volume), volume is labels)
    return found


def missing_findings(volume: Volume, region: Box | None = None, *, sparse: bool = False) -> list[Finding]:
    """Finds missing chunks and sections of the region; a sample where there are many.

    Of labels that are `sparse`, where 0 is unlabelled, most chunks are missing as they should be.
    """
    native = volume.native
    if native is None:
        return []
    found = [warning(note) for note in native.notes]
    if sparse:
        return found
    missing = native.stored() if native.stored else _look_for(volume, region or volume.box)
    if missing is None or not missing.missing:
        return found
    count, looked_for, chunks, example = missing
    sampled = f"{looked_for} chunks" if looked_for == chunks else f"{looked_for} chunks looked for, of {chunks},"
    if count == looked_for:
        return [
            *found,
            error(
                f"{volume.url}: none of its {sampled} is there, such as {example}: every voxel would be read as 0. "
                "Copy or write them first."
            ),
        ]
    return [
        *found,
        warning(
            f"{volume.url}: {count} of its {sampled} are missing and read as 0, such as {example}. That is right "
            "where nothing but 0 was written, else copy or write them first."
        ),
    ]


def check_present(volume: Volume, region: Box | None = None) -> list[str]:
    """Raises where nothing of the region exists; returns sentences where some of it does not."""
    found = missing_findings(volume, region)
    for finding in found:
        if finding.severity == "error":
            raise UserError(finding.text)
    return [finding.text for finding in found]


def _look_for(volume: Volume, region: Box) -> Missing | None:
    found = volume.chunks_in(region)
    return None if found is None else found[0].find_missing(found[1])


def alignment_findings(specimen: Specimen, crops: int, search: bool = False) -> list[Finding]:
    contrasts = border_contrasts(specimen, crops, search)
    if not contrasts:
        return []  # sparse truth that no crop met
    (_, own), *others = contrasts.items()
    best, other = max(others, key=lambda item: abs(item[1]))
    if _fit(specimen.raw, specimen.labels) and abs(other) > max(_CONTRAST, 1.5 * abs(own)):
        return [
            error(
                f"The raw fits the labels better when they are {best}: it is then {other:.2f} standard deviations "
                f"darker on their borders, and {own:.2f} as they are. Correct the axes of one of the two."
            )
        ]
    if abs(own) < _CONTRAST:
        return [
            warning(
                f"The raw is hardly darker on the borders of the labels ({own:.2f} standard deviations): "
                "look at the picture whether they lie on it."
            )
        ]
    if own < 0:
        return [
            warning(
                f"The raw is brighter on the borders of the labels ({-own:.2f} standard deviations): "
                "declare intensity.invert if membranes are bright."
            )
        ]
    return []


def _voxel_sizes(raw: Volume, others: list[Volume]) -> list[Finding]:
    unknown = [volume.url for volume in (raw, *others) if not volume.voxel_size_known]
    found = []
    if unknown:
        found.append(warning(f"No voxel size in {' and '.join(unknown)}: declare it in nm (z, y, x)."))
    for volume in others:
        if raw.voxel_size_known and volume.voxel_size_known and not _fit(raw, volume):
            found.append(
                warning(
                    f"{volume.url} has voxels of {volume.voxel_size_zyx} nm and {raw.url} of "
                    f"{raw.voxel_size_zyx} nm (z, y, x): the sizes are no multiples of each other."
                )
            )
    return found


def _fit(raw: Volume, volume: Volume | None) -> bool:
    """Returns whether the voxels of one are a whole multiple of the other's."""
    if volume is None:
        return True
    ratios = np.divide(volume.voxel_size_zyx, raw.voxel_size_zyx)
    ratios = np.maximum(ratios, 1 / ratios)
    return np.allclose(ratios, np.round(ratios), atol=0.01)


def _types(raw: Volume, labels: Volume | None) -> list[Finding]:
    found = []
    if raw.dtype not in (np.uint8, np.uint16, np.int16) and raw.dtype.kind != "f":
        found.append(error(f"{raw.url}: expected grey values of uint8, uint16 or float, found {raw.dtype}."))
    if labels is not None and labels.dtype.kind not in "uib":
        found.append(error(f"{labels.url}: expected labels of whole numbers, found {labels.dtype}; convert them."))
    return found


def _meeting(raw: Volume, volume: Volume, is_labels: bool) -> list[Finding]:
    try:
        check_meet(raw, volume)
        if is_labels:
            check_within(raw, volume)
    except UserError as problem:
        return [error(str(problem))]
    extent = extent_on(raw, volume)
    if extent.within(raw.box) != extent:
        return [warning(f"{volume.url} reaches beyond {raw.url}: it covers {extent} of the raw's {raw.box} (z, y, x).")]
    return []


def _middle(specimen: Specimen) -> list[Finding]:
    raw, box = specimen.raw, specimen.region.middle(_LOOK)
    try:
        values = raw.read(box)
    except UserError as problem:
        return [error(str(problem))]
    if np.isnan(values).any():
        return [error(f"{raw.url}: expected numbers, found NaN within {box} (z, y, x).")]
    if values.min() == values.max():
        return [warning(f"{raw.url} is {values.min()} everywhere within {box} (z, y, x).")]
    return []
