"""Fragment parameters and thresholds, chosen on validation volumes; imports no jax."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from emsam_jax.evaluation.methods import literature_recipe, name_of, recipes_to_try, runs_by_block
from emsam_jax.evaluation.subject import Subject
from emsam_jax.segmentation import Choice, FragmentParameters, Held, choose, sweep
from emsam_jax.segmentation.baseline import baseline_recipe, intensity_affinities


class Example(NamedTuple):
    """A validation volume with what a model says of it."""

    subject: Subject
    affinities: Shaped[np.ndarray, "c z y x"]


def choose_recipes(
    examples: Sequence[Example],
    methods: Sequence[str],
    *,
    offsets: Sequence[tuple[int, int, int]] | None = None,
    fragments: Sequence[FragmentParameters] = (),
    threads: int = 1,
    step: int | None = None,
) -> dict[str, Choice]:
    """For each method the best curve of VOI, averaged over the volumes, and the middle of its plateau."""
    isotropic, chosen = examples[0].subject.isotropic, _where([subject for subject, _ in examples], step)
    recipes = []
    for name in methods:
        start = dataclasses.replace(literature_recipe(name, isotropic=isotropic, offsets=offsets), chosen=chosen)
        recipes += recipes_to_try(start, fragments)
    curves = sweep([_hold(example, threads) for example in examples], recipes, threads=threads)
    return {name: choose([curve for curve in curves if name_of(curve.recipe) == name]) for name in methods}


def choose_baseline(subjects: Sequence[Subject], threads: int = 1) -> Choice:
    """The threshold of the intensity baseline."""
    isotropic = subjects[0].isotropic
    grey = [intensity_affinities(subject.read_normalised(), isotropic=isotropic) for subject in subjects]
    volumes = [_hold(Example(*pair), threads) for pair in zip(subjects, grey, strict=True)]
    start = dataclasses.replace(baseline_recipe(isotropic=isotropic), chosen=_where(subjects, None))
    return choose(sweep(volumes, [start], threads=threads))


def best_method(choices: Mapping[str, Choice]) -> str:
    """By smoothed VOI on the validation volumes; among what segment.py runs, if any of it was tried."""
    runnable = [name for name in choices if runs_by_block(choices[name].recipe)]
    return min(runnable or choices, key=lambda name: choices[name].recipe.chosen["score"])


def _hold(example: Example, threads: int) -> Held:
    return Held(example.affinities, functools.partial(example.subject.score, threads=threads))


def _where(subjects: Sequence[Subject], step: int | None) -> dict[str, Any]:
    places = [{"volume": subject.name, "roi": str(subject.box)} for subject in subjects]
    return {"where": places, **({} if step is None else {"step": step})}
