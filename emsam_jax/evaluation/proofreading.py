"""Judges merge decisions: whether their probabilities hold, and what looking at them in an order would mend."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Integer, Shaped, UInt64

from emsam_jax.evaluation.subject import Example
from emsam_jax.scores import ContingencyTable, Conventions, score_table, tabulate
from emsam_jax.segmentation import (
    MergeProbability,
    Recipe,
    check_affinities,
    fit_probability,
    from_margins,
    make_fragments,
    rank_by_cost,
)
from emsam_jax.segmentation.blockwise import Answers, Tables, list_decisions, tables_within

BINS = 10  # of the reliability diagram, of equal width
_POINTS = 30  # of a curve, evenly spread over the logarithm of how many were looked at
_DRAWS = 3  # of the random order


@dataclasses.dataclass(frozen=True, eq=False)
class Proofreading:
    """The decisions of a segmentation, and an oracle's answers: a fragment belongs to the true object it shares most
    voxels with.
    """

    tables: Tables
    decisions: Shaped[np.ndarray, " n"]
    overlap: ContingencyTable  # of fragments and truth, of the voxels that count
    unsegmented: str
    known: Bool[np.ndarray, " n"]  # both fragments have a voxel that counts
    together: Bool[np.ndarray, " n"]

    @property
    def wrong(self) -> Bool[np.ndarray, " n"]:
        return self.known & (self.decisions["joined"] != self.together)

    def probabilities(self, recipe: Recipe) -> Float64[np.ndarray, " n"]:
        if recipe.probability is None:
            return from_margins(self.decisions["mean"], recipe.threshold)
        return recipe.probability(self.decisions["features"], self.decisions["joined"])

    def examples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns features, whether joined and whether together, of all decisions with a known answer."""
        known = self.decisions[self.known]
        return known["features"], known["joined"], self.together[self.known]

    def follow(self, order: Int64[np.ndarray, " n"], counts: Sequence[int]) -> list[float]:
        """Returns the VOI after the first so many decisions of an order, for increasing counts.

        What the oracle doesn't know is looked at and left as it is. Answers are applied as edits are.
        """
        answers, found = Answers(self.tables), list[float]()
        for first, stop in zip([0, *counts], counts, strict=False):
            some = order[first:stop]
            some = some[self.known[some]]
            news = answers.give(self.decisions["fragments"][some], self.together[some])
            found.append(self.score(answers.labels) if news or not found else found[-1])
        return found

    def score(self, objects: UInt64[np.ndarray, " m"]) -> float:
        """Scores objects of fragments; voxels without a fragment stay unsegmented."""
        ids = self.tables.lookup["fragment"]
        named = np.zeros(int(ids.max(initial=0)) + 1, np.uint64)
        named[ids] = objects
        voi = score_table(self.overlap.renamed(named[self.overlap.segment]), self.unsegmented)["voi"]
        assert isinstance(voi, float)  # a subject has truth
        return voi


@runtime_checkable
class Ruler(Protocol):
    """What labels are judged by, such as a subject."""

    @property
    def truth(self) -> Integer[np.ndarray, "z y x"]: ...
    @property
    def conventions(self) -> Conventions: ...
    @property
    def mask(self) -> Bool[np.ndarray, "z y x"] | None: ...


def proofread(
    ruler: Ruler,
    fragments: UInt64[np.ndarray, "z y x"],
    affinities: Float32[np.ndarray, "c z y x"],
    labels: Integer[np.ndarray, "z y x"],
) -> Proofreading:
    tables = tables_within(fragments, affinities, labels)
    decisions = list_decisions(*tables)
    (overlap,) = tabulate(fragments, ruler.truth, [ruler.conventions], mask=ruler.mask)
    owner = np.zeros(int(fragments.max()) + 1, np.uint64)
    order = np.argsort(overlap.count, kind="stable")  # the largest is written last
    owner[overlap.segment[order]] = overlap.truth[order]
    counted = np.zeros(len(owner), bool)
    counted[overlap.segment] = True
    ends = decisions["fragments"]
    together = owner[ends[:, 0]] == owner[ends[:, 1]]
    return Proofreading(
        tables, decisions, overlap, ruler.conventions.unsegmented, np.all(counted[ends], axis=1), together
    )


def fit_on(examples: Sequence[Example], recipe: Recipe, threads: int) -> MergeProbability | None:
    """Fits the probabilities of the recipe's decisions on validation volumes; None where it makes no fragments."""
    if not recipe.cuts:
        return None
    asked = []
    for example in examples:
        affinities = check_affinities(example.affinities)
        fragments = make_fragments(affinities, recipe.fragments, threads=threads)
        labels = recipe.segment(affinities, fragments=fragments, threads=threads)
        asked.append(proofread(example.subject, fragments, affinities, labels))
    return fit_probability(*map(np.concatenate, zip(*(one.examples() for one in asked), strict=True)))


def judge_decisions(asked: Proofreading, recipe: Recipe) -> dict[str, Any]:
    """Returns, for scores.json, how reliable probabilities are, and what looking mends in three orders."""
    decisions, known, wrong = asked.decisions, asked.known, asked.wrong
    joined, count = decisions["joined"], len(decisions)
    probability = asked.probabilities(recipe)
    by_cost, _ = rank_by_cost(probability, joined, decisions["voxels"])
    by_margin = np.argsort(np.abs(decisions["mean"] - (1 - recipe.threshold)), kind="stable")
    rng = np.random.default_rng(0)
    counts = np.unique(np.rint(np.geomspace(1, max(count, 1), _POINTS)).astype(int))
    counts = [0, *counts[counts <= count].tolist()]
    drawn = [asked.follow(rng.permutation(count), counts) for _ in range(_DRAWS)]
    voi = {
        "cost": asked.follow(by_cost, counts),
        "margin": asked.follow(by_margin, counts),
        "random": np.mean(drawn, axis=0).tolist(),
    }
    start, end = voi["cost"][0], voi["cost"][-1]
    return {
        "decisions": count,
        "known": int(known.sum()),
        "wrongly_joined": int((wrong & joined).sum()),
        "wrongly_apart": int((wrong & ~joined).sum()),
        "fitted": recipe.probability is not None,
        **describe_calibration(probability[known], asked.together[known]),
        "looked_at": counts,
        "voi": voi,
        "to_halve": {name: _first_below(start / 2, counts, values) for name, values in voi.items()},
        "to_mend_half": {name: _first_below((start + end) / 2, counts, values) for name, values in voi.items()},
    }


def describe_calibration(probability: Float64[np.ndarray, " n"], together: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """Returns the expected calibration error and, for each bin that isn't empty, its mean probability and its share."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    sizes = np.bincount(bins, minlength=BINS)
    sums, hits = (np.bincount(bins, values, BINS) for values in (probability, together))
    rows = [
        {"probability": float(sums[b] / sizes[b]), "together": float(hits[b] / sizes[b]), "decisions": int(sizes[b])}
        for b in np.flatnonzero(sizes)
    ]
    error = float(np.abs(sums - hits).sum() / len(probability)) if len(probability) else None
    return {"calibration_error": error, "reliability": rows}


def _first_below(level: float, counts: Sequence[int], values: Sequence[float]) -> int | None:
    return next((count for count, value in zip(counts, values, strict=True) if value <= level), None)
