"""What is decided before a test volume is looked at."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from emsam_jax.evaluation.choosing import Example, best_method, choose_baseline, choose_recipes
from emsam_jax.evaluation.methods import BASELINE, LITERATURE, STORED, literature_recipe, name_of, runs_by_block, usable
from emsam_jax.evaluation.request import Request
from emsam_jax.evaluation.sources import Source
from emsam_jax.evaluation.stages import Clock
from emsam_jax.evaluation.subject import Subject
from emsam_jax.segmentation import Choice, Recipe
from emsam_jax.segmentation.baseline import baseline_recipe
from emsam_jax.segmentation.tuner import THRESHOLDS
from emsam_jax.volumes import VolumeError


@dataclasses.dataclass(frozen=True)
class Frozen:
    """One recipe a method, and the method that is shown first and drawn."""

    recipes: dict[str, Recipe]
    headline: str
    how: str  # one sentence: where fragments and thresholds come from
    validation: dict[str, Any] | None = None  # for scores.json


def freeze(request: Request, source: Source, isotropic: bool, held_out: Sequence[Subject], clock: Clock) -> Frozen:
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
        raise VolumeError(f"None of the methods {', '.join(request.methods)} can be used with {channels} channels.")
    given = given or source.recipe
    if given is None:
        how = f"There is no validation volume: thresholds are the literature's fixed {LITERATURE}."
        return Frozen(recipes, names[0], how)
    headline = name_of(given)
    how = f"{headline} as {request.recipe or 'the checkpoint'} says; the others at the literature's fixed {LITERATURE}."
    return Frozen({headline: given} | recipes | {headline: given}, headline, how)


def _choose(request: Request, source: Source, held_out: Sequence[Subject], clock: Clock) -> Frozen:
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
