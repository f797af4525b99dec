"""Fragment parameters and thresholds, chosen on validation volumes; imports no jax."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from emsam_jax.evaluation.methods import BASELINE, fragments_to_try, literature_recipe, name_of, usable
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
    starts = [literature_recipe(name, isotropic=isotropic, offsets=offsets) for name in methods]
    choices: dict[str, Choice] = {}
    for method in dict.fromkeys(start.method for start in starts):
        alike = [start for start in starts if start.method == method]  # scorers of waterz share their fragments
        start = dataclasses.replace(alike[0], chosen=_where(examples, step))
        scorers = [start.scorer for start in alike]
        tried = fragments or fragments_to_try(isotropic)
        choices |= _choose(examples, start, scorers=scorers, fragments=tried, thresholds=thresholds, threads=threads)
    return {name: choices[name] for name in methods}


def choose_baseline(subjects: Sequence[Subject], threads: int = 1) -> Choice:
    """The threshold of the intensity baseline."""
    isotropic = subjects[0].isotropic
    examples = [
        Example(subject, intensity_affinities(subject.read_normalised(), isotropic=isotropic)) for subject in subjects
    ]
    start = dataclasses.replace(baseline_recipe(isotropic=isotropic), chosen=_where(examples, None))
    found = _choose(
        examples,
        start,
        scorers=[start.scorer],
        fragments=[start.fragments],
        thresholds=BASELINE_THRESHOLDS,
        threads=threads,
    )
    return next(iter(found.values()))


def best_choice(choices: dict[str, Choice]) -> Choice:
    return choices[best_method(choices)]


def best_method(choices: dict[str, Choice]) -> str:
    """By VOI on the validation volumes."""
    known = [name for name in choices if name != BASELINE]
    return min(known, key=lambda name: choices[name].recipe.chosen["score"])


def _choose(
    examples: Sequence[Example],
    start: Recipe,
    *,
    scorers: Sequence[str],
    fragments: Sequence[FragmentParameters],
    thresholds: Sequence[float],
    threads: int,
) -> dict[str, Choice]:
    """A choice for each scorer."""
    tried: list[list[tuple[Trial, dict[str, Any]]]] = []  # of each volume, with all scores of each trial
    for subject, affinities in examples:
        rows: Rows = []

        def score(labels: np.ndarray, subject: Subject = subject, rows: Rows = rows) -> float:
            rows.append(subject.score(labels, threads))
            voi = rows[-1]["voi"]
            return math.inf if voi is None else voi  # the tuner refuses what is not finite

        options = {"fragments": fragments, "scorers": scorers, "thresholds": thresholds, "start": start}
        _, trials = tune(affinities, score, **options, threads=threads)
        tried.append(list(zip(trials, rows, strict=True)))

    same = list(zip(*tried, strict=True))  # one trial on each volume
    means = [Trial(trials[0][0].recipe, float(np.mean([trial.score for trial, _ in trials]))) for trials in same]
    rows = [_mean_row([{"threshold": trial.recipe.threshold, **row} for trial, row in trials]) for trials in same]
    curves = [slice(first, first + len(thresholds)) for first in range(0, len(same), len(thresholds))]
    choices = {}
    for scorer in scorers:
        own = [curve for curve in curves if means[curve][0].recipe.scorer == scorer]
        recipe = choose_plateau([means[curve] for curve in own])
        (curve,) = (curve for curve in own if means[curve][0].recipe.fragments == recipe.fragments)
        choices[name_of(recipe)] = Choice(recipe, rows[curve])
    return choices


def _mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: None if rows[0][name] is None else float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _where(examples: Sequence[Example], step: int | None) -> dict[str, Any]:
    places = [{"volume": subject.name, "roi": str(subject.box)} for subject, _ in examples]
    return {"where": places, **({} if step is None else {"step": step})}
