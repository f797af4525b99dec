"""Chooses a recipe on a validation volume."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt64

from emsam_jax.segmentation.checks import SegmentationError, check_affinities, check_mask, check_thresholds
from emsam_jax.segmentation.fragments import FragmentParameters
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.segmentation.segment import prepare_fragments, segmentations

Score = Callable[[UInt64[np.ndarray, "z y x"]], float]

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))
FRAGMENTS = tuple(
    FragmentParameters(kind, boundary_threshold, seed_distance)
    for kind, boundary_threshold, seed_distance in itertools.product(("2d", "3d"), (0.3, 0.5), (3, 5))
)
START = Recipe()


@dataclasses.dataclass(frozen=True)
class Trial:
    recipe: Recipe
    score: float  # lower is better


def tune(
    affinities: np.ndarray,
    score: Score,
    *,
    fragments: Sequence[FragmentParameters] = FRAGMENTS,
    scorers: Sequence[str] = ("mean", "q50"),
    thresholds: Sequence[float] = THRESHOLDS,
    start: Recipe = START,
    tolerance: float = 0.15,
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> tuple[Recipe, list[Trial]]:
    """The middle of the best plateau, and all trials; what is not tried here is as in `start`.

    Fragments are made once for all scorers, and all thresholds come from one pass. `score` gives what is to be low
    and is never negative, such as VOI.
    """
    thresholds = check_thresholds(thresholds)
    checked = check_affinities(affinities)
    inside = check_mask(mask, checked.shape[1:])
    if start.method not in ("waterz", "multicut"):
        fragments = fragments[:1]
    if start.method != "waterz":
        scorers = scorers[:1]
    curves = []
    for parameters in fragments:
        uses_fragments = start.method in ("waterz", "multicut")
        pieces = prepare_fragments(checked, parameters, inside, threads) if uses_fragments else parameters
        for scorer in scorers:
            tried = dataclasses.replace(start, fragments=parameters, scorer=scorer)
            options = {**tried.parameters(), "fragments": pieces, "mask": inside, "threads": threads}
            labels = segmentations(checked, thresholds, tried.method, **options)
            curves.append(
                [
                    Trial(dataclasses.replace(tried, threshold=threshold), score(found))
                    for threshold, found in zip(thresholds, labels, strict=True)
                ]
            )
    return choose_plateau(curves, tolerance), [trial for curve in curves for trial in curve]


def choose_plateau(curves: Sequence[Sequence[Trial]], tolerance: float = 0.15) -> Recipe:
    """The middle of the widest run of thresholds whose scores are within `tolerance` (relative) of the best score.

    Of runs that are equally wide the one with the lower mean is taken. A single lucky point loses to a plateau.
    """
    trials = [trial for curve in curves for trial in curve]
    if not trials or not np.isfinite([trial.score for trial in trials]).all():
        raise SegmentationError(
            f"The tuner needs a finite score for each of its {len(trials)} trials: "
            "does the validation volume hold labelled objects?"
        )
    level = min(trial.score for trial in trials) * (1 + tolerance)
    runs = [list(run) for curve in curves for good, run in itertools.groupby(curve, lambda t: t.score <= level) if good]
    best = max(runs, key=lambda run: (len(run), -float(np.mean([trial.score for trial in run]))))
    low, high = best[0].recipe.threshold, best[-1].recipe.threshold
    middle = min(best, key=lambda trial: abs(trial.recipe.threshold - (low + high) / 2))
    found: dict[str, Any] = {"score": middle.score, "best_score": level / (1 + tolerance), "plateau": [low, high]}
    return dataclasses.replace(middle.recipe, chosen={**middle.recipe.chosen, **found})
