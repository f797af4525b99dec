"""Fragment parameters and thresholds, chosen on validation volumes; imports no jax."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from emsam_jax.evaluation.methods import BASELINE, fragments_to_try, literature_recipe, usable
from emsam_jax.evaluation.subject import Subject, read_subject
from emsam_jax.scores import Conventions
from emsam_jax.segmentation import FragmentParameters, Recipe, SegmentationError, tune
from emsam_jax.segmentation.baseline import THRESHOLDS as BASELINE_THRESHOLDS
from emsam_jax.segmentation.baseline import baseline_recipe, intensity_affinities
from emsam_jax.segmentation.tuner import THRESHOLDS, Trial, choose_plateau
from emsam_jax.volumes import Specimen

Rows = list[dict[str, Any]]


class Example(NamedTuple):
    """A validation volume with what a model says of it."""

    subject: Subject
    affinities: Shaped[np.ndarray, "c z y x"]


class Choice(NamedTuple):
    recipe: Recipe  # `chosen` holds the score, a VOI, and where it was found
    rows: Rows  # scores over the thresholds with the chosen fragments, means over the volumes


def choose_on_specimen(
    affinities: Shaped[np.ndarray, "c z y x"],
    specimen: Specimen,
    *,
    methods: Sequence[str] = ("waterz_mean",),
    offsets: Sequence[tuple[int, int, int]] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    fragments: Sequence[FragmentParameters] | None = None,
    conventions: Conventions | None = None,
    threads: int = 1,
    step: int | None = None,
) -> tuple[Recipe, dict[str, Rows]]:
    """The best recipe by VOI, and the scores of each method over the thresholds: validation in one call.

    The affinities are those of the specimen's labelled region of interest.
    """
    subject = read_subject(specimen, conventions)
    if affinities.shape[1:] != subject.box.shape:
        raise SegmentationError(
            f"{specimen.name}: expected affinities of its labelled region {subject.box}, {subject.box.shape} voxels, "
            f"found the shape {affinities.shape}."
        )
    choices = choose_recipes(
        [Example(subject, affinities)],
        usable(methods, len(affinities)),
        offsets=offsets,
        thresholds=thresholds,
        fragments=fragments,
        threads=threads,
        step=step,
    )
    return best_choice(choices).recipe, {name: choice.rows for name, choice in choices.items()}


def choose_recipes(
    examples: Sequence[Example],
    methods: Sequence[str],
    *,
    offsets: Sequence[tuple[int, int, int]] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    fragments: Sequence[FragmentParameters] | None = None,
    threads: int = 1,
    step: int | None = None,
) -> dict[str, Choice]:
    """For each method the middle of the best plateau of VOI, averaged over the volumes."""
    isotropic = examples[0].subject.isotropic
    tried = fragments or fragments_to_try(isotropic)
    choices = {}
    for name in methods:
        start = dataclasses.replace(
            literature_recipe(name, isotropic=isotropic, offsets=offsets), chosen=_where(examples, step)
        )
        choices[name] = _choose(examples, start, tried, thresholds, threads)
    return choices


def choose_baseline(subjects: Sequence[Subject], threads: int = 1) -> Choice:
    """The threshold of the intensity baseline."""
    isotropic = subjects[0].isotropic
    examples = [
        Example(subject, intensity_affinities(subject.read_normalised(), isotropic=isotropic)) for subject in subjects
    ]
    start = dataclasses.replace(baseline_recipe(isotropic=isotropic), chosen=_where(examples, None))
    return _choose(examples, start, [start.fragments], BASELINE_THRESHOLDS, threads)


def best_choice(choices: dict[str, Choice]) -> Choice:
    return choices[best_method(choices)]


def best_method(choices: dict[str, Choice]) -> str:
    """By VOI on the validation volumes."""
    known = [name for name in choices if name != BASELINE]
    return min(known, key=lambda name: choices[name].recipe.chosen["score"])


def _choose(
    examples: Sequence[Example],
    start: Recipe,
    fragments: Sequence[FragmentParameters],
    thresholds: Sequence[float],
    threads: int,
) -> Choice:
    rows: list[Rows] = []  # of each volume, in the order of the trials
    tried: list[list[Trial]] = []
    for subject, affinities in examples:
        found: Rows = []

        def score(labels: np.ndarray, subject: Subject = subject, found: Rows = found) -> float:
            row = subject.score(labels, threads)
            found.append(row)
            return math.inf if row["voi"] is None else row["voi"]  # the tuner refuses what is not finite

        _, trials = tune(
            affinities,
            score,
            fragments=fragments,
            scorers=[start.scorer],
            thresholds=thresholds,
            start=start,
            threads=threads,
        )
        rows.append(found)
        tried.append(trials)
    means = [
        Trial(same[0].recipe, float(np.mean([trial.score for trial in same]))) for same in zip(*tried, strict=True)
    ]
    length = len(thresholds)
    curves = [means[i : i + length] for i in range(0, len(means), length)]
    recipe = choose_plateau(curves)
    which = next(i for i, curve in enumerate(curves) if curve[0].recipe.fragments == recipe.fragments)
    of_curve = [found[which * length : (which + 1) * length] for found in rows]
    return Choice(recipe, [_mean_row(t, same) for t, same in zip(thresholds, zip(*of_curve, strict=True), strict=True)])


def _mean_row(threshold: float, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if rows[0][name] is not None}
    return {"threshold": float(threshold), **{name: means.get(name) for name in rows[0]}}


def _where(examples: Sequence[Example], step: int | None) -> dict[str, Any]:
    places = [{"volume": subject.name, "roi": str(subject.box)} for subject, _ in examples]
    return {"where": places, **({} if step is None else {"step": step})}
