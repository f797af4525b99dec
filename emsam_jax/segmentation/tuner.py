"""Chooses a recipe on validation volumes: one grid of thresholds and one rule, while training and after it."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped, UInt64

from emsam_jax.errors import UserError
from emsam_jax.segmentation.checks import check_affinities, check_thresholds
from emsam_jax.segmentation.fragments import FragmentParameters
from emsam_jax.segmentation.methods import prepare_fragments
from emsam_jax.segmentation.recipe import Recipe

Row = Mapping[str, Any]
Score = Callable[[UInt64[np.ndarray, "z y x"]], Row]

# Even in log odds, 0.05 to 0.995: a loss that balances the classes moves the optimum to 0.9-0.99.
THRESHOLDS = tuple(round(19 ** (i / 10) / (1 + 19 ** (i / 10)), 4) for i in range(-10, 19))
FRAGMENTS = tuple(
    FragmentParameters(kind, boundary_threshold, seed_distance)
    for kind, boundary_threshold, seed_distance in itertools.product(("2d", "3d", "affinities"), (0.3, 0.5), (3, 5))
)
START = Recipe()
WIDTH = 0.3  # log odds: standard deviation of the Gaussian that smooths a curve
CLIFF = 1.15  # times the lowest level: a curve is cut off above that, or a cliff would push its minimum far away
TOLERANCE = 0.02  # a plateau is where the smoothed score is within this share of its minimum
_MORE = 4  # thresholds that a minimum at the edge adds beyond it, at a time
_FARTHEST = 9.0  # log odds: 0.0001 and 0.9999


class Held(NamedTuple):
    """Affinities of a validation volume, and how a segmentation of it is scored: `voi` is to be low."""

    affinities: Shaped[np.ndarray, "c z y x"]
    score: Score
    offsets: Sequence[Sequence[int]] = ()  # voxels, of each channel; for mutex


@dataclasses.dataclass(frozen=True)
class Curve:
    """A recipe's scores over increasing thresholds, each the mean over the volumes."""

    recipe: Recipe  # but for its threshold
    rows: tuple[dict[str, Any], ...]

    @property
    def thresholds(self) -> list[float]:
        return [row["threshold"] for row in self.rows]

    @property
    def smoothed(self) -> Float64[np.ndarray, " thresholds"]:
        """VOI, averaged over neighbouring thresholds: a single lucky one does not count."""
        odds, scores = log_odds(self.thresholds), np.array([row["voi"] for row in self.rows])
        weights = np.exp(-0.5 * ((odds[:, None] - odds[None]) / WIDTH) ** 2)
        level = np.maximum(scores[1:], scores[:-1]).min(initial=scores.max())  # that two neighbours reach
        return weights @ np.minimum(scores, CLIFF * level) / weights.sum(1)


class Choice(NamedTuple):
    recipe: Recipe  # `chosen` holds `score`, the smoothed VOI that choices are compared by, and where it was found
    rows: tuple[dict[str, Any], ...]  # scores over the thresholds with the chosen parameters


def tune(
    affinities: Shaped[np.ndarray, "c z y x"],
    score: Callable[[UInt64[np.ndarray, "z y x"]], float],
    *,
    fragments: Sequence[FragmentParameters] = FRAGMENTS,
    scorers: Sequence[str] = ("mean", "q50"),
    thresholds: Sequence[float] = THRESHOLDS,
    start: Recipe = START,
    offsets: Sequence[Sequence[int]] = (),
    threads: int = 1,
) -> tuple[Recipe, list[Curve]]:
    """The best recipe on one volume, and all curves; what is not tried here is as in `start`.

    `score` gives what is to be low and is never negative, such as VOI; `offsets` of the channels are for mutex.
    """
    cuts = fragments if start.cuts else fragments[:1]
    kinds = scorers if start.method == "waterz" else scorers[:1]
    recipes = [dataclasses.replace(start, fragments=cut, scorer=scorer) for cut in cuts for scorer in kinds]
    held = Held(affinities, lambda labels: {"voi": score(labels)}, offsets)
    curves = sweep([held], recipes, thresholds, threads)
    return choose(curves).recipe, curves


def choose(curves: Sequence[Curve]) -> Choice:
    """The curve with the lowest smoothed minimum, at the threshold in the middle of the plateau around it."""
    curve = min(curves, key=lambda curve: curve.smoothed.min())
    smoothed, thresholds, odds = curve.smoothed, curve.thresholds, log_odds(curve.thresholds)
    good = smoothed <= smoothed.min() * (1 + TOLERANCE)
    first = last = int(smoothed.argmin())
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(good) - 1 and good[last + 1]:
        last += 1
    middle = min(
        range(len(odds))[1:-1] or range(len(odds)), key=lambda i: abs(odds[i] - (odds[first] + odds[last]) / 2)
    )
    found: dict[str, Any] = {
        "score": float(smoothed.min()),
        "voi": curve.rows[middle]["voi"],
        "plateau": [thresholds[first], thresholds[last]],
    }
    if edge := _falls_towards(curve):
        found["warning"] = (
            f"VOI still falls towards the {edge} end of the thresholds tried, {thresholds[0]:g} to "
            f"{thresholds[-1]:g}: look at the affinities, or give --threshold."
        )
    recipe = dataclasses.replace(curve.recipe, threshold=thresholds[middle], chosen={**curve.recipe.chosen, **found})
    return Choice(recipe, curve.rows)


def sweep(
    volumes: Sequence[Held], recipes: Sequence[Recipe], thresholds: Sequence[float] = THRESHOLDS, threads: int = 1
) -> list[Curve]:
    """A curve of each recipe. A minimum at an edge of the thresholds adds more of them beyond it."""
    curves = _sweep(volumes, recipes, check_thresholds(thresholds), threads)
    return [_extend(curve, volumes, threads) for curve in curves]


def log_odds(thresholds: Sequence[float]) -> Float64[np.ndarray, " thresholds"]:
    values = np.asarray(thresholds, np.float64)
    return np.log(values) - np.log1p(-values)


def _sweep(volumes: Sequence[Held], recipes: Sequence[Recipe], thresholds: list[float], threads: int) -> list[Curve]:
    """Fragments are cut once for all recipes that want the same, and all thresholds come from one pass."""
    found: list[list[list[Row]]] = [[] for _ in recipes]  # by recipe, volume and threshold
    for affinities, score, offsets in volumes:
        checked = check_affinities(affinities)
        for parameters in dict.fromkeys(map(_cut_by, recipes)):
            pieces = None if parameters is None else prepare_fragments(checked, parameters, None, threads)
            for recipe, rows in zip(recipes, found, strict=True):
                if _cut_by(recipe) == parameters:
                    given = {} if pieces is None else {"fragments": pieces}
                    labels = recipe.segmentations(checked, thresholds, offsets=offsets, threads=threads, **given)
                    rows.append([score(of_one) for of_one in labels])
    return [Curve(recipe, _mean(thresholds, rows)) for recipe, rows in zip(recipes, found, strict=True)]


def _cut_by(recipe: Recipe) -> FragmentParameters | None:
    return recipe.fragments if recipe.cuts else None


def _mean(thresholds: Sequence[float], by_volume: Sequence[Sequence[Row]]) -> tuple[dict[str, Any], ...]:
    """A row a threshold; a score that some volume doesn't define has no mean."""
    rows = []
    for threshold, of_one in zip(thresholds, zip(*by_volume, strict=True), strict=True):
        values = {name: [row[name] for row in of_one] for name in of_one[0]}
        means = {name: None if None in found else float(np.mean(found)) for name, found in values.items()}
        if means["voi"] is None or not np.isfinite(means["voi"]):
            raise UserError(
                f"Choosing needs a finite VOI on each of the {len(of_one)} validation volumes, found "
                f"{values['voi']} at threshold {threshold:g}: do the volumes hold labelled objects?"
            )
        rows.append({"threshold": threshold, **means})
    return tuple(rows)


def _extend(curve: Curve, volumes: Sequence[Held], threads: int) -> Curve:
    """Until the minimum lies within, or there is hardly anything left to try."""
    while edge := _falls_towards(curve):
        odds = log_odds(curve.thresholds)
        end, step = (odds[0], odds[0] - odds[1]) if edge == "lower" else (odds[-1], odds[-1] - odds[-2])
        beyond = end + step * np.arange(1, _MORE + 1)
        beyond = np.sort(beyond[np.abs(beyond) <= _FARTHEST])
        if not beyond.size:
            break
        (more,) = _sweep(volumes, [curve.recipe], [round(float(1 / (1 + np.exp(-at))), 5) for at in beyond], threads)
        rows = (*more.rows, *curve.rows) if edge == "lower" else (*curve.rows, *more.rows)
        curve = dataclasses.replace(curve, rows=rows)
    return curve


def _falls_towards(curve: Curve) -> str:
    """The end, lower or upper, where the curve is lower than anywhere within."""
    smoothed = curve.smoothed
    if len(smoothed) < 3 or smoothed.min() >= smoothed[1:-1].min():
        return ""
    return "lower" if smoothed[0] < smoothed[-1] else "upper"
