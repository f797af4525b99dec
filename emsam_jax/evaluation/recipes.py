"""Chooses and freezes the recipe of each method on validation volumes, before a test volume is seen."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

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
    without_network,
)
from emsam_jax.evaluation.proofreading import fit_on
from emsam_jax.evaluation.sources import AffinitySource, EvaluationRequest
from emsam_jax.evaluation.subject import Example, Subject
from emsam_jax.segmentation import THRESHOLDS, Choice, FragmentParameters, Held, Recipe, choose, sweep


def choose_recipes(
    examples: Sequence[Example],
    methods: Sequence[str],
    *,
    fragments: Sequence[FragmentParameters] = (),
    threads: int = 1,
    step: int | None = None,
) -> dict[str, Choice]:
    """For each method the best curve of VOI, averaged over the volumes, and the middle of its plateau."""
    subjects = [example.subject for example in examples]
    where = [{"volume": subject.name, "roi": str(subject.box)} for subject in subjects]
    chosen = {"where": where, **({} if step is None else {"step": step})}
    tried = {name: recipes_to_try(name, fragments, isotropic=subjects[0].isotropic) for name in methods}
    recipes = [dataclasses.replace(recipe, chosen=chosen) for each in tried.values() for recipe in each]
    held = [
        Held(one.affinities, functools.partial(one.subject.score, threads=threads), one.offsets) for one in examples
    ]
    curves = iter(sweep(held, recipes, threads=threads))
    return {name: choose(list(itertools.islice(curves, len(each)))) for name, each in tried.items()}


def best_method(choices: Mapping[str, Choice]) -> str:
    """Returns the method of lowest smoothed validation VOI, among those that emsam segment runs, if any."""
    runnable = [name for name in choices if runs_by_block(choices[name].recipe)]
    return min(runnable or choices, key=lambda name: choices[name].recipe.chosen["score"])


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A recipe for each method, and the method that is shown first and drawn."""

    recipes: dict[str, Recipe]
    headline: str
    how: str  # one sentence: where fragments and thresholds come from
    validation: dict[str, Any] | None = None  # for scores.json


def freeze(
    request: EvaluationRequest, source: AffinitySource, isotropic: bool, held_out: Sequence[Subject], clock: Clock
) -> Frozen:
    """By the validation volumes; without any, by a recipe chosen earlier; else what the literature fixes."""
    names = [] if request.segmentation else usable(request.methods, len(source.offsets) or 3)
    given = Recipe.read(request.recipe) if request.recipe else None
    if names and held_out and not given:
        return _choose(names, source, held_out, request.threads, clock)
    recipes = {name: literature_recipe(name, isotropic=isotropic) for name in (*names, BASELINE)}
    if not names:
        return Frozen(recipes, STORED, "A stored segmentation has no threshold; the baseline's is fixed.")
    given = given or source.recipe
    if given is None:
        how = f"There is no validation volume: thresholds are the literature's fixed {LITERATURE}."
        return Frozen(recipes, names[0], how)
    headline = name_of(given)
    how = f"{headline} as {request.recipe or 'the checkpoint'} says; the others at the literature's fixed {LITERATURE}."
    return Frozen(recipes | {headline: given}, headline, how)


def _choose(
    names: Sequence[str], source: AffinitySource, held_out: Sequence[Subject], threads: int, clock: Clock
) -> Frozen:
    examples = [source.read(subject) for subject in held_out]
    voxels = sum(subject.box.voxels for subject in held_out)
    where = " and ".join(f"{subject.name} ({subject.box})" for subject in held_out)
    with clock.stage(where, "choosing", voxels, f"{', '.join(names)} and the baseline"):
        choices = choose_recipes(examples, names, threads=threads, step=source.step)
        baseline = choose_recipes(list(map(without_network, held_out)), [BASELINE], threads=threads)
    headline = best_method(choices)
    best = choices[headline].recipe
    best = dataclasses.replace(best, probability=fit_on(examples, best, threads))
    choices[headline] = choices[headline]._replace(recipe=best)
    how = f"Fragments and thresholds were chosen by VOI on {where}, then frozen.{_passed_over(choices, headline)}"
    choices |= baseline
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
    """Describes methods that scored lower but cannot segment volumes of any size."""
    score = {name: choice.recipe.chosen["score"] for name, choice in choices.items()}
    better = [name for name in choices if score[name] < score[headline]]
    if not better:
        return "" if runs_by_block(choices[headline].recipe) else f" emsam segment does not run {headline}."
    told = ", ".join(f"{name} ({score[name]:.3f}, {headline} {score[headline]:.3f})" for name in better)
    return f" Lower there, but nothing that emsam segment runs: {told}."
