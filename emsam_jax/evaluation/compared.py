"""The ways from affinities to neurons that are compared: their names, and the recipe that each starts from."""

import dataclasses
from collections.abc import Sequence

from emsam_jax.errors import UserError
from emsam_jax.evaluation.subject import Example, Subject
from emsam_jax.segmentation import FRAGMENTS, FragmentParameters, Recipe, baseline_recipe, intensity_affinities
from emsam_jax.segmentation.blockwise import check_recipe

BASELINE = "baseline"  # smoothed grey values instead of a network
STORED = "segmentation"  # labels that someone else made
LITERATURE = 0.5  # the threshold that papers fix
_WATERZ = "waterz_"
_FIELDS = "waterz_literature"  # regional maxima as seeds, and medians of histograms that start from the maximum
METHODS = ("waterz_q50", "waterz_mean", _FIELDS, "multicut", "mutex")  # waterz with any of its scorers besides
TITLES = {
    "waterz_q50": "waterz, median (our fragments)",
    "waterz_mean": "waterz, mean (our fragments)",
    _FIELDS: "waterz, the literature's median and seeds",
    "multicut": "multicut",
    "mutex": "mutex watershed",
    BASELINE: "intensity baseline",
    STORED: "segmentation",
}


def title_of(method: str) -> str:
    scorer = method.removeprefix(_WATERZ)
    return TITLES.get(method, method if scorer == method else f"waterz, {scorer} (our fragments)")


def usable(names: Sequence[str], channels: int) -> list[str]:
    """Those that exist, and without the mutex watershed where no long-range channel is known."""
    unknown = [name for name in names if name not in METHODS and not name.startswith(_WATERZ)]
    if unknown:
        raise UserError(f"The methods are {', '.join(METHODS)}; found {', '.join(unknown)}.")
    found = [name for name in names if name != "mutex" or channels > 3]
    if not found:
        raise UserError(
            f"None of the methods {', '.join(names) or '(none was named)'} can be used with affinities of which "
            f"{channels} channels are known."
        )
    return found


def literature_recipe(name: str, *, isotropic: bool) -> Recipe:
    """Returns what papers fix: seeds where the boundary is below 0.5, threshold 0.5.

    Fragments are 3D where voxels are isotropic, else in each section. Seeds are maxima in a box, as ours are, but for
    the literature's own method.
    """
    if name == BASELINE:
        return dataclasses.replace(baseline_recipe(isotropic=isotropic), threshold=LITERATURE)
    scorer = name.removeprefix(_WATERZ) if name.startswith(_WATERZ) else "mean"
    fragments = FragmentParameters("3d" if isotropic else "2d")
    if name == _FIELDS:
        scorer, fragments = "q50_max", dataclasses.replace(fragments, seed_distance=0)
    return Recipe(
        method="waterz" if name.startswith(_WATERZ) else name,
        scorer=scorer,
        threshold=LITERATURE,
        fragments=fragments,
        strides=(2, 2, 2) if isotropic else (1, 4, 4),
    )


def without_network(subject: Subject) -> Example:
    """The baseline's affinities."""
    return Example(subject, intensity_affinities(subject.read_normalised(), isotropic=subject.isotropic))


def fragments_to_try(kind: str) -> tuple[FragmentParameters, ...]:
    """In 3D by both ways of flooding: where borders are learned as they are, a voxel's affinities reach to one side
    alone, and the boundary, their mean, lies on the far side of a border.
    """
    kinds = ("3d", "affinities") if kind == "3d" else (kind,)
    return tuple(parameters for parameters in FRAGMENTS if parameters.kind in kinds)


def recipes_to_try(name: str, fragments: Sequence[FragmentParameters], *, isotropic: bool) -> list[Recipe]:
    """With each of the fragments, by default all of the same kind, where the method starts from any. Regional maxima
    are the literature's, and stay; so do the baseline's.
    """
    start = literature_recipe(name, isotropic=isotropic)
    if name in (BASELINE, _FIELDS) or not start.cuts:
        return [start]
    return [dataclasses.replace(start, fragments=cut) for cut in fragments or fragments_to_try(start.fragments.kind)]


def runs_by_block(recipe: Recipe) -> bool:
    """Returns whether emsam segment takes the recipe."""
    try:
        check_recipe(recipe)
    except UserError:
        return False
    return True


def name_of(recipe: Recipe) -> str:
    if (recipe.method, recipe.scorer, recipe.fragments.seed_distance) == ("waterz", "q50_max", 0):
        return _FIELDS
    return _WATERZ + recipe.scorer if recipe.method == "waterz" else recipe.method
