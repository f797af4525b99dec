"""Reads a volume and its labels once, block by block: what is wrong, what there is, and its objects in pieces."""

import dataclasses

import numpy as np
from bioimage_cpp.segmentation import label
from jaxtyping import Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emsam_jax.config import LabelRules
from emsam_jax.volumes.box import Box, Voxel
from emsam_jax.volumes.meet import read_nearest
from emsam_jax.volumes.specimen import apply_rules
from emsam_jax.volumes.verify.findings import Finding, error, warning
from emsam_jax.volumes.volume import Volume

Faces = tuple[Integer[np.ndarray, "_ _"], Integer[np.ndarray, "_ _"]]  # pieces and ids
_SPARSE = 0.5  # of the voxels labelled: below, objects in pieces may be whole where nobody labelled
_FILLS = 0.7  # of the labelled voxels; the loader passes over patches that one object fills so far


@dataclasses.dataclass(frozen=True)
class Objects:
    ids: np.ndarray
    sizes: np.ndarray  # voxels
    pieces: np.ndarray  # connected by faces; 1 for a connected object


class Components:
    """Labels components block by block, in the order of `Box.tiles`; keeps only the faces that wait for a neighbour."""

    def __init__(self) -> None:
        self._count = 0
        self._ids: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._joined: list[np.ndarray] = []
        self._waiting: dict[tuple[int, tuple[int, int, int]], Faces] = {}

    def add(self, box: Box, ids: Integer[np.ndarray, "z y x"]) -> None:
        """Adds a block; 0 is no object."""
        ids = ids.astype(np.uint64)
        pieces = label(ids, background=0, connectivity=1)
        sizes = np.bincount(pieces.ravel().astype(np.int64))
        id_of = np.zeros(len(sizes), np.uint64)
        id_of[pieces] = ids
        pieces = np.where(pieces > 0, pieces + np.uint64(self._count), np.uint64(0)).astype(np.uint64)
        self._ids.append(id_of[1:])
        self._sizes.append(sizes[1:])
        self._count += len(sizes) - 1
        for axis in range(3):
            first, last = np.take(pieces, 0, axis), np.take(pieces, -1, axis)
            if below := self._waiting.pop((axis, box.start), None):
                self._join(below, (first, np.take(ids, 0, axis)))
            start = list(box.start)
            start[axis] = box.stop[axis]
            self._waiting[axis, (start[0], start[1], start[2])] = (last, np.take(ids, -1, axis))

    def _join(self, below: Faces, above: Faces) -> None:
        touch = (below[1] == above[1]) & (below[1] != 0)
        self._joined.append(np.unique(np.stack([below[0][touch], above[0][touch]], 1), axis=0))

    def objects(self) -> Objects:
        ids = np.concatenate([np.zeros(0, np.uint64), *self._ids])
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        joined = np.concatenate([np.zeros((0, 2), np.uint64), *self._joined]).astype(np.int64) - 1
        graph = coo_array((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(len(ids), len(ids)))
        _, whole = connected_components(graph, directed=False) if len(ids) else (0, np.zeros(0, np.int64))
        _, first = np.unique(whole, return_index=True)  # one piece for each connected whole
        names, index = np.unique(ids, return_inverse=True)
        total = np.bincount(index, weights=sizes, minlength=len(names)).astype(np.int64)
        return Objects(names, total, np.bincount(index[first], minlength=len(names)))


_BLOCK: Voxel = (64, 256, 256)


@dataclasses.dataclass
class Survey:
    findings: list[Finding] = dataclasses.field(default_factory=list)
    facts: list[str] = dataclasses.field(default_factory=list)
    labelled_voxels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))  # of each section


def survey_raw(raw: Volume) -> Survey:
    """Finds sections without content, NaN and infinities."""
    sections = raw.shape[0]
    low, high = np.full(sections, np.inf), np.full(sections, -np.inf)
    not_numbers = 0
    for box in raw.box.tiles(_BLOCK):
        values = raw.read(box)
        if values.dtype.kind == "f":
            bad = ~np.isfinite(values)
            not_numbers += int(bad.sum())
            values = np.where(bad, 0, values)
        at = box.slices[0]
        low[at] = np.minimum(low[at], values.min((1, 2)))
        high[at] = np.maximum(high[at], values.max((1, 2)))
    survey = Survey(facts=[f"Raw: values from {low.min():g} to {high.max():g}."])
    if not_numbers:
        survey.findings.append(error(f"{raw.url}: expected numbers, found {not_numbers} voxels of NaN or infinity."))
    constant = np.flatnonzero(low == high)
    if len(constant) == sections:
        survey.findings.append(error(f"{raw.url} is empty: each of its sections has one value only."))
    elif len(constant):
        survey.findings.append(warning(f"{raw.url}: sections of one value only: {_listed(constant)}."))
    return survey


def survey_labels(labels: Volume, mask: Volume | None, rules: LabelRules) -> Survey:
    """Counts ids, objects and unlabelled voxels, on the labels' own voxels."""
    sections = labels.shape[0]
    labelled_voxels, object_voxels = np.zeros(sections, np.int64), np.zeros(sections, np.int64)
    known, pairs = np.zeros(3), np.zeros(3)  # of affinities to neighbours along z, y, x: those known, and all
    components = Components()
    negative, lowest = 0, 0
    for box in labels.box.tiles(_BLOCK):
        ids, labelled = labels.read(box), np.ones(box.shape, bool)
        if mask is not None:
            inside, there = read_nearest(labels, mask, box)
            labelled = there & (inside != 0)
        ids, labelled = apply_rules(ids, labelled, rules)
        if ids.dtype.kind == "i":
            negative, lowest = negative + int((ids < 0).sum()), min(lowest, int(ids.min()))
            ids = np.maximum(ids, 0)
        labelled_voxels[box.slices[0]] += labelled.sum((1, 2))
        object_voxels[box.slices[0]] += (ids > 0).sum((1, 2))
        for axis in range(3):
            along = np.moveaxis(labelled, axis, 0)
            both = along[1:] & along[:-1]
            known[axis], pairs[axis] = known[axis] + both.sum(), pairs[axis] + both.size
        components.add(box, ids)
    survey = Survey(labelled_voxels=labelled_voxels)
    if negative:
        survey.findings.append(
            error(
                f"{labels.url}: expected ids from 0, found {negative} voxels of negative ids, the lowest {lowest}; "
                "declare them as background or unlabelled."
            )
        )
    _describe(survey, labels, components.objects(), object_voxels)
    if 0 < labelled_voxels.sum() < _SPARSE * labels.box.voxels:
        survey.facts.append(_tell_sparse(labelled_voxels, known / np.maximum(pairs, 1)))
    return survey


def _tell_sparse(labelled_voxels: np.ndarray, known: np.ndarray) -> str:
    """Says what sparse truth can teach, and how to train on it."""
    painted = np.flatnonzero(labelled_voxels)
    shares = ", ".join(f"{axis} {share:.2%}" for axis, share in zip("zyx", known, strict=True))
    beyond = (
        " Nothing teaches z but symmetries of isotropic voxels, or another volume: paint two sections side by side."
        if not known[0]
        else ""
    )
    return (
        f"Sparse truth in {len(painted)} of {len(labelled_voxels)} sections ({_listed(painted)}): affinities to "
        f"neighbours are known for {shares} of the voxels.{beyond} Train on it with data.selection.by_label=true and "
        "data.selection.labelled=0.001."
    )


def _describe(survey: Survey, labels: Volume, objects: Objects, object_voxels: np.ndarray) -> None:
    labelled, everything = int(survey.labelled_voxels.sum()), labels.box.voxels
    survey.facts.append(f"Labels: {1 - labelled / everything:.1%} of {everything} voxels are unlabelled.")
    if not labelled:
        survey.findings.append(error(f"{labels.url}: no voxel is labelled, by the declared ids and the mask."))
        return
    if not len(objects.ids):
        survey.findings.append(error(f"{labels.url} holds no object: every labelled voxel is background."))
        return
    sizes = objects.sizes
    survey.facts.append(
        f"Labels: {len(sizes)} objects of {sizes.min()} to {sizes.max()} voxels, median {int(np.median(sizes))}; "
        f"{int((sizes < 10).sum())} have fewer than 10; the largest fills {sizes.max() / labelled:.0%} of what is "
        f"labelled; background {1 - sizes.sum() / labelled:.0%}."
    )
    if sizes.max() > _FILLS * labelled:
        largest = objects.ids[sizes.argmax()]
        survey.findings.append(
            warning(f"{labels.url}: one object ({largest}) fills {sizes.max() / labelled:.0%} of what is labelled.")
        )
    empty = np.flatnonzero((survey.labelled_voxels > 0) & (object_voxels == 0))
    if len(empty):
        survey.findings.append(
            warning(
                f"{labels.url}: sections of background only: {_listed(empty)}. If nobody labelled them, "
                "declare that id as unlabelled."
            )
        )
    broken = objects.pieces > 1
    if broken.any():
        worst = np.flatnonzero(broken)[np.argsort(-sizes[broken], kind="stable")][:5]
        named = ", ".join(f"{objects.ids[i]} ({objects.pieces[i]} pieces)" for i in worst)
        told = f"{int(broken.sum())} of {len(sizes)} labels are disconnected; the largest: {named}."
        if labelled < _SPARSE * everything:
            survey.facts.append(f"Labels: {told}")
        else:
            survey.findings.append(warning(f"{labels.url}: {told}"))


def _listed(numbers: np.ndarray, limit: int = 10) -> str:
    shown = ", ".join(str(n) for n in numbers[:limit])
    return shown + (f" and {len(numbers) - limit} more" if len(numbers) > limit else "")
