"""Scores of a segmentation against the truth, with the conventions they were computed under."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from emsam_jax.scores.borders import find_borders
from emsam_jax.scores.contingency import ContingencyTable, ScoreError, check_same_shape, count_pairs
from emsam_jax.scores.measures import ObjectTerms, Scores, object_terms, score_terms


@runtime_checkable
class Volume(Protocol):
    """An array, or anything that is read as one by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, box: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Conventions:
    """What is compared; every result carries them."""

    ignore_truth: tuple[int, ...] = (0,)  # ids of the truth whose voxels are left out
    unsegmented: str = "object"  # voxels of segment 0: one object, left out, or each an object of its own
    border: int = 0  # voxels left out on each side of a border of the truth
    border_plane: str = "3d"  # borders seen in 3D, or section by section (CREMI: 2d)

    def __post_init__(self) -> None:
        if self.unsegmented not in (known := ("object", "ignore", "singletons")):
            raise ScoreError(f"`unsegmented` must be one of {', '.join(known)}, but is {self.unsegmented!r}.")
        if self.border_plane not in (known := ("2d", "3d")):
            raise ScoreError(f"`border_plane` must be one of {', '.join(known)}, but is {self.border_plane!r}.")
        if self.border < 0:
            raise ScoreError(f"`border` must be a number of voxels from 0 up, but is {self.border}.")

    def describe(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "ignore_truth": list(self.ignore_truth),
            "voi": "bits",
            "rand": "ordered pairs of different voxels; precision over pairs in labels, recall over pairs in truth",
            "cremi_score": "sqrt(voi * arand)",
        }


def score_segmentation(
    labels: np.ndarray,
    truth: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    ignore_truth: tuple[int, ...] = (0,),
    unsegmented: str = "object",
    border: int = 0,
    border_plane: str = "3d",
) -> dict[str, Any]:
    """Scores of labels [z, y, x] or [y, x], where `mask` is true; see `Conventions` for what can be chosen."""
    conventions = Conventions(tuple(ignore_truth), unsegmented, border, border_plane)
    table = tabulate(labels, truth, conventions, mask)
    return {**score_table(table, conventions), "conventions": conventions.describe()}


def tabulate(
    labels: np.ndarray,
    truth: np.ndarray,
    conventions: Conventions,
    mask: np.ndarray | None = None,
) -> ContingencyTable:
    """The table of the voxels that the conventions compare."""
    check_volumes(labels, truth, mask)
    keep = mask
    if conventions.border:
        volume = truth if truth.ndim == 3 else truth[None]
        inside = ~find_borders(volume, conventions.border, conventions.border_plane).reshape(truth.shape)
        keep = inside if mask is None else inside & mask
    return drop_ignored(count_pairs(labels, truth, keep), conventions)


def check_volumes(labels: Volume, truth: Volume, mask: Volume | None = None) -> None:
    """Volumes that can be compared."""
    for name, volume in (("Labels", labels), ("Truth", truth)):
        if np.dtype(volume.dtype).kind not in "iu":
            raise ScoreError(f"{name} must be integer ids, but are {volume.dtype}.")
    check_same_shape(labels.shape, truth.shape)
    if len(truth.shape) not in (2, 3):
        raise ScoreError(f"Labels must be [z, y, x] or [y, x], but have {len(truth.shape)} axes, shape {truth.shape}.")
    if 0 in truth.shape:
        raise ScoreError(f"Labels must have voxels, but their shape is {truth.shape}: choose a box that is not empty.")
    if mask is not None and tuple(mask.shape) != tuple(truth.shape):
        raise ScoreError(f"The mask must have the truth's shape {truth.shape}, but has {mask.shape}.")


def drop_ignored(table: ContingencyTable, conventions: Conventions) -> ContingencyTable:
    if not conventions.ignore_truth:
        return table
    return table.where(~np.isin(table.truth, np.array(conventions.ignore_truth, np.uint64)))


def score_table(table: ContingencyTable, conventions: Conventions) -> Scores:
    """Scores of a table whose ignored voxels are gone."""
    return score_terms(terms_of(table, conventions))


def terms_of(table: ContingencyTable, conventions: Conventions) -> ObjectTerms:
    return object_terms(table, conventions.unsegmented)
