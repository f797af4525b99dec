"""Reads a volume and its labels once, block by block, and says what is wrong and what there is."""

import dataclasses

import numpy as np

from emsam_jax.volumes.box import Voxel
from emsam_jax.volumes.components import Components, Objects
from emsam_jax.volumes.declared import LabelRules
from emsam_jax.volumes.findings import Finding, error, warning
from emsam_jax.volumes.meet import read_nearest
from emsam_jax.volumes.specimen import apply_rules
from emsam_jax.volumes.volume import Volume

_BLOCK: Voxel = (64, 256, 256)
_FILLS = 0.7  # of the labelled voxels; the loader passes over patches that one object fills so far


@dataclasses.dataclass
class Survey:
    findings: list[Finding] = dataclasses.field(default_factory=list)
    facts: list[str] = dataclasses.field(default_factory=list)
    labelled_voxels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))  # of each section


def survey_raw(raw: Volume) -> Survey:
    """Sections without content and values that are no numbers."""
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
    """Ids, objects, and what is unlabelled, on the labels' own voxels."""
    sections = labels.shape[0]
    labelled_voxels, object_voxels = np.zeros(sections, np.int64), np.zeros(sections, np.int64)
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
    return survey


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
        survey.findings.append(
            warning(f"{labels.url}: {int(broken.sum())} of {len(sizes)} labels are disconnected; the largest: {named}.")
        )


def _listed(numbers: np.ndarray, limit: int = 10) -> str:
    shown = ", ".join(str(n) for n in numbers[:limit])
    return shown + (f" and {len(numbers) - limit} more" if len(numbers) > limit else "")
