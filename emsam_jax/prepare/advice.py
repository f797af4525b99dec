"""Says what sparse labels teach, and what to paint next to gain most."""

import numpy as np

from emsam_jax.prepare.regions import Regions
from emsam_jax.prepare.truth import Truth
from emsam_jax.volumes import Sizes, is_isotropic

_FEW = 0.1  # of the pairs in the section: fewer pairs along z teach little
_SHOWN = 6


def describe_truth(truth: Truth) -> str:
    """Describes how much is labelled, and of which kind."""
    painted, (sections, _, _) = truth.painted, truth.box.shape
    voxels = int(truth.along[0].sum())
    start = f"Labels: {voxels / 1e6:.3g} million voxels of neurons within {truth.box} (z, y, x)"
    widths = f"half of the profiles are wider than {truth.profile:.3g} voxels, half of their area {truth.trunk:.3g}"
    if truth.kind == "dense":
        return f"{start}, {voxels / truth.box.voxels:.0%} of it; {widths}."
    strokes = f", {truth.filled:.2g} of each (strokes)" if truth.kind == "strokes" else ""
    return f"{start}: sparse, {len(painted)} of {sections} sections are painted{strokes}; {widths}."


def what_is_learned(truth: Truth, size: Sizes) -> list[str]:
    """Says which affinities sparse labels teach; nothing of dense ones."""
    if truth.kind == "dense":
        return []
    told = [f"Affinities within the section (y, x) are learned from {_listed(truth.painted)}."]
    if is_isotropic(size):
        told.append("Affinities along z are learned from the same: symmetries turn isotropic voxels' sections.")
    elif not truth.known_across:
        told.append(
            "Affinities along z are not learned: no two neighbouring sections are painted. A segmentation in 3D needs "
            "them, from painted neighbours, or from a run on another volume of this voxel size (init_from)."
        )
    elif _few_across(truth, size):
        share = truth.known_across / max(truth.known_in_plane, 1)
        told.append(
            f"Affinities along z are learned from the few sections with a painted neighbour, {share:.1%} as often as "
            "those within the section."
        )
    else:
        told.append("Affinities along z are learned wherever two neighbouring sections are painted.")
    if not truth.borders:
        told.append("Borders are not learned: nowhere do two neurons touch in what is painted.")
    return told


def _few_across(truth: Truth, size: Sizes) -> bool:
    return not is_isotropic(size) and truth.known_across < _FEW * max(truth.known_in_plane, 1)


def what_to_paint(
    truth: Truth,
    regions: Regions | None,
    size: Sizes,
    sections: int,
    *,
    choosing: bool = True,
) -> list[str]:
    """Says what to paint next, the largest gain first; `choosing`: this volume is to be chosen and reported on too."""
    told = []
    if truth.kind == "strokes" and not truth.borders:
        told.append("strokes on both sides of membranes: borders between neurons are what is hardest to learn")
    if _few_across(truth, size) and truth.lone:
        beside = [_neighbour(z, sections) for z in truth.lone]
        told.append(f"the neighbours of painted sections, such as z {_few(beside)}: each teaches affinities along z")
    if choosing and (regions is None or regions.validation is None):
        told.append(f"{_far(truth, sections)}, far from the others, to choose checkpoint and threshold on")
    elif choosing and regions is not None and regions.test is None:
        told.append(f"{_far(truth, sections)}, far from the others, to report on")
    if truth.kind == "sections" and is_isotropic(size):
        told.append("a few sections across x or y: isotropic voxels look alike from all sides")
    if truth.kind != "dense" and (gap := _widest_gap(truth)) is not None:
        told.append(f"section {gap}, in the middle of the widest unpainted part")
    return [f"{number}. {text}." for number, text in enumerate(told, start=1)]


def _neighbour(z: int, sections: int) -> int:
    return z + 1 if z + 1 < sections else z - 1


def _far(truth: Truth, sections: int) -> str:
    """Names two neighbouring sections as far as can be from what is painted."""
    if truth.kind == "dense" and truth.box.shape[0] == sections:
        return "a second volume"
    distance = np.abs(np.arange(sections)[:, None] - np.asarray(truth.painted)[None]).min(1)
    z = int(distance.argmax())
    return f"sections {z} and {_neighbour(z, sections)}"


def _widest_gap(truth: Truth) -> int | None:
    painted = np.asarray(truth.painted)
    gaps = np.diff(painted)
    return int(painted[gaps.argmax()] + gaps.max() // 2) if len(gaps) and gaps.max() > 2 else None


def _listed(sections: list[int]) -> str:
    return f"section{'s' * (len(sections) > 1)} {_few(sections)}"


def _few(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more
