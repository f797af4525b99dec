"""A labelled volume as it is judged: one box of it, in memory; its name, and the folder of its results."""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.scores import (
    SCORE_NAMES,
    Conventions,
    Skeleton,
    make_skeletons,
    read_skeletons,
    score_segmentation,
    score_skeletons,
)
from emsam_jax.storage import check_memory
from emsam_jax.volumes import (
    Box,
    Specimen,
    Volume,
    Voxel,
    check_meet,
    is_isotropic,
    nearest_indices,
    read_nearest,
    with_size_of,
)


def name_apart(volumes: Sequence[DeclaredVolume]) -> list[DeclaredVolume]:
    """Names each volume, and its folder, uniquely: by its file, with the region where others have the same."""
    names = [declared.name or "/".join(declared.raw.rstrip("/").split("/")[-2:]) for declared in volumes]
    shared = collections.Counter(map(folder_of, names))
    found: dict[str, DeclaredVolume] = {}
    for name, declared in zip(names, volumes, strict=True):
        apart = f"{name} {declared.roi}" if shared[folder_of(name)] > 1 and declared.roi else name
        tried = (apart, *(f"{apart} ({i})" for i in range(2, len(volumes) + 1)))
        own = next(one for one in tried if folder_of(one) not in found)
        found[folder_of(own)] = dataclasses.replace(declared, name=own)
    return list(found.values())


def folder_of(name: str) -> str:
    """Turns a name into one that a folder can have."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "volume"


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """The box is in voxels of the raw, and everything is on them."""

    specimen: Specimen
    box: Box
    truth: Integer[np.ndarray, "z y x"]  # 0: background, or unlabelled
    labelled: Bool[np.ndarray, "z y x"]
    conventions: Conventions
    skeletons: Mapping[int, Skeleton] = dataclasses.field(default_factory=dict)  # nm, of the world

    @property
    def name(self) -> str:
        return self.specimen.name

    @property
    def folder(self) -> str:
        return folder_of(self.name)

    @property
    def voxel_size_zyx(self) -> tuple[float, float, float]:
        z, y, x = (float(size) for size in self.specimen.raw.voxel_size_zyx)
        return z, y, x

    @property
    def isotropic(self) -> bool:
        return is_isotropic(self.voxel_size_zyx)

    @property
    def offset_zyx(self) -> tuple[float, float, float]:
        """Returns the offset of the box in nm."""
        raw = self.specimen.raw
        z, y, x = (o + i * s for o, i, s in zip(raw.offset_zyx, self.box.start, raw.voxel_size_zyx, strict=True))
        return z, y, x

    @property
    def mask(self) -> Bool[np.ndarray, "z y x"] | None:
        """Returns the mask of what is labelled; None where everything is."""
        return None if self.labelled.all() else self.labelled

    def score(self, labels: Integer[np.ndarray, "z y x"], threads: int = 1) -> dict[str, Any]:
        """Returns one row of a sweep, without its threshold."""
        chosen = dataclasses.asdict(self.conventions)
        scores = score_segmentation(labels, self.truth, mask=self.mask, threads=threads, **chosen)
        return {name: scores[name] for name in (*SCORE_NAMES, "segments")}

    def score_runs(self, labels: Integer[np.ndarray, "z y x"]) -> dict[str, Any]:
        """Expected run length along the skeletons, where there are some."""
        if not self.skeletons:
            return {}
        return {"runs": score_skeletons(self.skeletons, labels, self.voxel_size_zyx, offset_zyx=self.offset_zyx)}

    def with_skeletons(self, path: str) -> "Subject":
        """Takes those at `path`, or makes them from its truth; an empty path: none."""
        if path == "truth":
            found = make_skeletons(self.truth, self.voxel_size_zyx, offset_zyx=self.offset_zyx)
        else:
            found = read_skeletons(path) if path else {}
        return dataclasses.replace(self, skeletons=found)

    def describe(self) -> dict[str, Any]:
        """Describes the subject for scores.json."""
        specimen = self.specimen
        labels, mask = specimen.labels, specimen.mask
        place_of_labels = labels and {
            "labels": labels.url,
            "labels_voxel_size_zyx": list(labels.voxel_size_zyx),
            "labels_offset_zyx": list(labels.offset_zyx),
        }
        return {
            "raw": specimen.raw.url,
            "raw_offset_zyx": list(specimen.raw.offset_zyx),
            **(place_of_labels or {}),
            **({} if mask is None else {"mask": mask.url}),
            "roi": str(self.box),
            "shape": list(self.box.shape),
            "voxel_size_zyx": list(self.voxel_size_zyx),
            "intensity": list(specimen.intensity_range),
            "inverted": specimen.intensity.invert,
            "voxels": self.box.voxels,
            "labelled_voxels": int(self.labelled.sum()),
            "background": list(specimen.rules.background),
            "unlabelled": list(specimen.rules.unlabelled),
        }

    def read_normalised(self) -> Float[np.ndarray, "z y x"]:
        return self.specimen.read_normalised(self.box)


def read_subject(specimen: Specimen, conventions: Conventions | None = None) -> Subject:
    """Reads the labelled part of the specimen's region of interest."""
    if specimen.labels is None:
        raise UserError(f"{specimen.name} has no labels to be judged by: declare `labels`.")
    box = specimen.labelled_region
    if not box.voxels:
        raise UserError(f"{specimen.name}: the region of interest {specimen.region} holds no voxel of the labels.")
    needed = box.voxels * (specimen.raw.dtype.itemsize + specimen.labels.dtype.itemsize + 1)
    check_memory(needed, f"Judging {specimen.name} on {box}", "choose a smaller region of interest (roi)")
    truth, labelled = specimen.read_labels(box)
    if not (truth[labelled] > 0).any():
        raise UserError(f"{specimen.name}: no neuron is labelled within {box}, so there is nothing to be judged by.")
    return Subject(specimen, box, truth, labelled, conventions or Conventions())


def read_segmentation(subject: Subject, segmentation: Volume) -> tuple[Integer[np.ndarray, "z y x"], float]:
    """Reads stored labels on the subject's voxels, 0 where there are none; and the share of the box they cover."""
    if not np.issubdtype(segmentation.dtype, np.integer):
        raise UserError(f"{segmentation.url}: expected labels of whole numbers, found {segmentation.dtype}.")
    raw = subject.specimen.raw
    segmentation = with_size_of(raw, segmentation)
    check_meet(raw, segmentation)
    labels, there = read_nearest(raw, segmentation, subject.box)
    if not there.any():
        raise UserError(f"{segmentation.url}: has no voxel within {subject.box} of {raw.url}; correct its offset.")
    return labels, float(there.mean())


class Example(NamedTuple):
    """A subject with what is said of it."""

    subject: Subject
    affinities: Shaped[np.ndarray, "c z y x"]
    offsets: tuple[Voxel, ...] = ()  # voxels, of each channel; empty: only the first three are known, the short ones
    url: str = ""  # of the affinities, where they are stored


def read_example(subject: Subject, affinities: Volume) -> Example:
    """Stored affinities on the subject's voxels, all of which they must cover."""
    raw = subject.specimen.raw
    affinities = with_size_of(raw, affinities)
    if not np.allclose(affinities.voxel_size_zyx, raw.voxel_size_zyx):
        raise UserError(
            f"{affinities.url}: expected the voxel size of {raw.url}, {raw.voxel_size_zyx} nm, "
            f"found {affinities.voxel_size_zyx} nm."
        )
    z, y, x = (int(index[0]) for index in nearest_indices(raw, affinities, subject.box))
    box = Box((0, 0, 0), subject.box.shape).shifted((z, y, x))
    if box.within(affinities.box) != box:
        raise UserError(
            f"{affinities.url}: expected affinities for all of {subject.box} of {raw.url}, found a volume of "
            f"{affinities.shape[1:]} at {affinities.offset_zyx} nm; choose a smaller region of interest."
        )
    return Example(subject, affinities.read(box), affinities.offsets, affinities.url)
