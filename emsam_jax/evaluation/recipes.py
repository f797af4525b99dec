"""The recipe of each method, chosen and frozen on validation volumes before a test volume is seen."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from emsam_jax.errors import UserError
from emsam_jax.evaluation.clock import Clock
from emsam_jax.evaluation.compared import (
    BASELINE,
    LITERATURE,
    STORED,
    literature_recipe,
    name_of,
    recipes_to_try,
    runs_by_block,
    usable,
)
from emsam_jax.evaluation.sources import AffinitySource, EvaluationRequest
from emsam_jax.evaluation.subject import Subject
from emsam_jax.segmentation import (
    THRESHOLDS,
    Choice,
    FragmentParameters,
    Held,
    Recipe,
    baseline_recipe,
    choose,
    intensity_affinities,
    sweep,
)


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


@dataclasses.dataclass(frozen=True)
class Frozen:
    """One recipe a method, and the method that is shown first and drawn."""

    recipes: dict[str, Recipe]
    headline: str
    how: str  # one sentence: where fragments and thresholds come from
    validation: dict[str, Any] | None = None  # for scores.json


def freeze(
    request: EvaluationRequest, source: AffinitySource, isotropic: bool, held_out: Sequence[Subject], clock: Clock
) -> Frozen:
    """By the validation volumes; without any, by a recipe chosen earlier; else what the literature fixes."""
    baseline = dataclasses.replace(baseline_recipe(isotropic=isotropic), threshold=LITERATURE)
    if request.segmentation:
        return Frozen({BASELINE: baseline}, STORED, "A stored segmentation has no threshold; the baseline's is fixed.")
    given = Recipe.read(request.recipe) if request.recipe else None
    if held_out and not given:
        return _choose(request, source, held_out, clock)
    channels = len(source.offsets) or 3
    names = usable(request.methods, channels)
    recipes = {name: literature_recipe(name, isotropic=isotropic, offsets=source.offsets) for name in names}
    recipes[BASELINE] = baseline
    if not names:
        raise UserError(f"None of the methods {', '.join(request.methods)} can be used with {channels} channels.")
    given = given or source.recipe
    if given is None:
        how = f"There is no validation volume: thresholds are the literature's fixed {LITERATURE}."
        return Frozen(recipes, names[0], how)
    headline = name_of(given)
    how = f"{headline} as {request.recipe or 'the checkpoint'} says; the others at the literature's fixed {LITERATURE}."
    return Frozen({headline: given} | recipes | {headline: given}, headline, how)


def _choose(request: EvaluationRequest, source: AffinitySource, held_out: Sequence[Subject], clock: Clock) -> Frozen:
    examples = [Example(subject, source.read(subject)) for subject in held_out]
    names = usable(request.methods, min(len(example.affinities) for example in examples) if source.offsets else 3)
    voxels = sum(subject.box.voxels for subject in held_out)
    where = " and ".join(f"{subject.name} {subject.box}" for subject in held_out)
    with clock.stage(where, "choosing", voxels, f"{', '.join(names)} and the baseline"):
        choices = choose_recipes(
            examples, names, offsets=source.offsets or None, threads=request.threads, step=source.step
        )
        baseline = choose_baseline(held_out, request.threads)
    headline = best_method(choices)
    how = f"Fragments and thresholds were chosen by VOI on {where}, then frozen.{_passed_over(choices, headline)}"
    choices[BASELINE] = baseline
    for name, (recipe, _) in choices.items():
        clock.show(f"    {name:<12} threshold {recipe.threshold:.3g}, VOI {recipe.chosen['voi']:.3f}")
        if "warning" in recipe.chosen:
            clock.show(f"    {name}: {recipe.chosen['warning']}")
    return Frozen(
        {name: choice.recipe for name, choice in choices.items()},
        headline,
        how,
        {
            "where": [{"volume": subject.name, "roi": str(subject.box)} for subject in held_out],
            "thresholds": list(THRESHOLDS),
            "methods": {
                name: {
                    "threshold": recipe.threshold,
                    "voi": recipe.chosen["voi"],
                    "smoothed_voi": recipe.chosen["score"],
                    "sweep": rows,
                }
                for name, (recipe, rows) in choices.items()
            },
        },
    )


def _passed_over(choices: dict[str, Choice], headline: str) -> str:
    """A sentence about what scored lower but cannot be run on a volume of any size."""
    score = {name: choice.recipe.chosen["score"] for name, choice in choices.items()}
    better = [name for name in choices if score[name] < score[headline]]
    if not better:
        return "" if runs_by_block(choices[headline].recipe) else f" segment.py does not run {headline}."
    told = ", ".join(f"{name} ({score[name]:.3f}, {headline} {score[headline]:.3f})" for name in better)
    return f" Lower there, but nothing that segment.py runs: {told}."
