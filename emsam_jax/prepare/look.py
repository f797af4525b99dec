"""Opens the volumes that are to be prepared, by convention where only a container is named, and measures them."""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from emsam_jax.config import DeclaredVolume, Intensity, LabelRules
from emsam_jax.errors import UserError
from emsam_jax.prepare.truth import Truth, Zero, describe_zero, painted_runs, rules_of, section_mask, survey_truth
from emsam_jax.volumes import Box, Specimen, open_declared, open_volume
from emsam_jax.volumes.verify import border_contrasts, quick_findings

# Names of datasets in HDF5 files, zarr and N5 groups: CREMI's first, then others in use.
_RAW = ("volumes/raw", "raw", "main", "data", "image", "em")
_LABELS = ("volumes/labels/neuron_ids", "labels", "volumes/labels", "label", "segmentation", "seg", "neuron_ids")
_SAMPLE = (4, 256, 256)
_NARROW = 0.25  # of the type's range: narrower greys are stretched
_BRIGHT = -0.1  # standard deviations by which the raw is darker on borders; below it, they are bright


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the user says of all volumes."""

    voxel_size_zyx: tuple[int | float, ...] = ()
    rules: LabelRules = dataclasses.field(default_factory=LabelRules)
    zero: Zero | None = None
    ask: Callable[[str], str] | None = None  # shows the evidence; returns the answer, empty for what was guessed


@dataclasses.dataclass(frozen=True)
class Look:
    """A volume and what was measured of it."""

    declared: DeclaredVolume
    specimen: Specimen
    truth: Truth | None
    sections: tuple[tuple[int, int], ...]  # that the mask leaves, [start, stop); empty: it is the user's, if any
    greys: tuple[float, float]  # 1st and 99th percentile
    warnings: tuple[str, ...]
    told: tuple[str, ...]  # what was found by convention

    @property
    def size(self) -> tuple[float, float, float]:
        return self.specimen.raw.voxel_size_zyx

    @property
    def limits(self) -> Box:
        """Returns what training may see: voxels beyond the labels' box are no background."""
        box = self.specimen.labelled_region
        if self.truth is None or self.truth.zero == "unlabelled":
            return box
        if self.truth.zero == "sections":
            (_, y0, x0), (_, y1, x1) = self.truth.box
            return Box((box.start[0], y0, x0), (box.stop[0], y1, x1))
        return self.truth.box


def look_at(places: Sequence[str], asked: Asked) -> Look:
    """Looks at RAW, LABELS and MASK, of which the last two may be missing."""
    raw, labels, mask = (*places, "", "", "")[:3]
    told = []
    found = _resolve(raw, _RAW)
    if found != raw:
        told.append(f"{raw}: raw is {found.removeprefix(raw).strip('/')}, by its name.")
    if not labels and found != raw and (labels := _inside(raw, _LABELS)):
        told.append(f"{raw}: labels are {labels.removeprefix(raw).strip('/')}, by their name; name others after it.")
    elif labels and (container := labels) != (labels := _resolve(labels, _LABELS)):
        told.append(f"{container}: labels are {labels.removeprefix(container).strip('/')}, by their name.")
    above, _, name = raw.rstrip("/").rpartition("/")
    name = name.partition(".")[0]
    if name in _RAW:  # which tells volumes apart no better than it names one
        name = above.rpartition("/")[2].partition(".")[0] or name
    declared = DeclaredVolume(
        name=name, raw=found, labels=labels, mask=mask, raw_voxel_size_zyx=asked.voxel_size_zyx, rules=asked.rules
    )
    return _measure(declared, asked, tuple(told))


def _measure(declared: DeclaredVolume, asked: Asked, told: tuple[str, ...]) -> Look:
    known, nobody = asked.rules.background, tuple(number for number in asked.rules.unlabelled if number)
    specimen = open_declared(dataclasses.replace(declared, rules=LabelRules(known, nobody)))
    if not specimen.raw.voxel_size_known:
        raise UserError(
            f"{declared.raw}: expected a voxel size in its metadata, found none; give --voxel_size=z,y,x in nm, "
            "since patch, borders and network follow from it."
        )
    truth, sections = None, ()
    if specimen.labels is not None:
        painted = open_declared(dataclasses.replace(declared, rules=LabelRules(known, (0, *nobody))))
        truth = survey_truth(specimen, painted, asked.zero)
        if asked.ask is not None and asked.zero is None and (evidence := describe_zero(truth, False)):
            truth = _answered(truth, asked.ask(evidence))
        declared = dataclasses.replace(declared, rules=rules_of(truth, asked.rules))
        if truth.zero == "sections" and not declared.mask:
            sections = painted_runs(truth)
            mask = section_mask(sections, specimen.raw.shape)
            offset = specimen.raw.offset_zyx if any(specimen.raw.offset_zyx) else ()
            declared = dataclasses.replace(declared, mask=mask, mask_offset_zyx=offset)
        specimen = open_declared(declared)
    findings = quick_findings(specimen)
    for finding in findings:
        if finding.severity == "error":
            raise UserError(finding.text)
    greys = _greys(specimen)
    declared = dataclasses.replace(declared, intensity=_intensity(specimen, *greys))
    warnings = tuple(finding.text for finding in findings if "intensity.invert" not in finding.text)
    return Look(declared, specimen, truth, sections, greys, warnings, told)


def _answered(truth: Truth, answer: str) -> Truth:
    if answer and answer not in typing.get_args(Zero):
        raise UserError(f"Expected one of {', '.join(typing.get_args(Zero))}, found {answer!r}.")
    return dataclasses.replace(truth, zero=typing.cast("Zero", answer)) if answer else truth


def _greys(specimen: Specimen) -> tuple[float, float]:
    region = specimen.labelled_region
    boxes = [region.middle(_SAMPLE)]
    for z in np.linspace(region.start[0], region.stop[0] - 1, 6).astype(int).tolist():
        boxes.append(Box((z, *boxes[0].start[1:]), (z + 1, *boxes[0].stop[1:])))
    values = np.concatenate([specimen.read_raw(box).ravel() for box in boxes]).astype(np.float32)
    low, high = np.percentile(values, [1, 99])
    return float(low), float(high)


def _intensity(specimen: Specimen, low: float, high: float) -> Intensity:
    """Stretches greys that fill little of the type's range, and inverts those whose membranes are bright."""
    dtype = specimen.raw.dtype
    whole = float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0
    fills = low >= 0 and high <= whole and high - low >= _NARROW * whole
    contrasts = list(border_contrasts(specimen, 1).values()) if specimen.labels is not None else []
    invert = bool(contrasts) and contrasts[0] < _BRIGHT
    return Intensity(invert=invert) if fills else Intensity(low=1.0, high=99.0, percentiles=True, invert=invert)


def _resolve(place: str, names: Sequence[str]) -> str:
    """Returns the place itself where it is a volume, else the first of these names in it that is one."""
    try:
        open_volume(place)
    except UserError:
        inside = _inside(place, names)
        if not inside:
            raise
        return inside
    return place


def _inside(container: str, names: Sequence[str]) -> str:
    if Path(container).exists() or "://" in container:
        for name in names:
            try:
                open_volume(f"{container.rstrip('/')}/{name}")
            except UserError:
                continue
            return f"{container.rstrip('/')}/{name}"
    return ""
