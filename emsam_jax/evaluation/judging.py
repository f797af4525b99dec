"""Scores one method on one volume: over the thresholds, and in four ways at the chosen one."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt64

from emsam_jax.evaluation.clock import Clock
from emsam_jax.evaluation.compared import LITERATURE
from emsam_jax.evaluation.proofreading import judge_decisions, proofread
from emsam_jax.evaluation.subject import Example, Subject
from emsam_jax.scores import WAYS, report_segmentation
from emsam_jax.segmentation import THRESHOLDS, FragmentParameters, Recipe, check_affinities, make_fragments

Labels = Integer[np.ndarray, "z y x"]


class Judged(NamedTuple):
    entry: dict[str, Any]  # as it stands in scores.json
    labels: Labels | None  # at the chosen threshold
    oracle: Labels | None  # at the best of the sweep

    def without_labels(self) -> "Judged":
        return self._replace(labels=None, oracle=None)


class Judge:
    """Judges methods on the affinities of one volume; fragments are made once for all that share them."""

    def __init__(self, example: Example, clock: Clock, threads: int):
        self.subject, self.clock, self.threads = example.subject, clock, threads
        self.affinities, self.offsets = check_affinities(example.affinities), example.offsets
        self._fragments: dict[FragmentParameters, UInt64[np.ndarray, "z y x"]] = {}

    def judge_method(self, name: str, recipe: Recipe) -> Judged:
        """Sweeps thresholds, the recipe's and the literature's among them."""
        subject, volume, voxels = self.subject, self.subject.name, self.subject.box.voxels
        swept = sorted({*THRESHOLDS, recipe.threshold, LITERATURE})
        given = {"fragments": self._cut(name, recipe.fragments)} if recipe.cuts else {}
        found = recipe.segmentations(self.affinities, swept, offsets=self.offsets, threads=self.threads, **given)
        rows: list[dict[str, Any]] = []
        chosen = oracle = None
        for threshold in swept:
            with self.clock.visit(volume, name, voxels, f"{len(swept)} thresholds"):
                labels = next(found)
            with self.clock.visit(volume, f"{name} scores", voxels):
                rows.append({"threshold": threshold, **subject.score(labels, self.threads)})
            if threshold == recipe.threshold:
                chosen = labels
            if rows[-1] is _lowest(rows):
                oracle = labels
        self.clock.tell(volume, name)
        assert chosen is not None
        assert oracle is not None
        by_threshold = {row["threshold"]: row for row in rows}
        entry = {
            "threshold": recipe.threshold,
            **_see_four_ways(name, chosen, subject, self.clock, self.threads),
            "fixed": by_threshold[LITERATURE],
            "oracle": _lowest(rows),
            "sweep": rows,
        }
        return Judged(entry, chosen, oracle)

    def judge_decisions(self, name: str, recipe: Recipe, labels: Labels) -> dict[str, Any]:
        """Judges what the labels at the recipe's threshold rest on."""
        with self.clock.stage(self.subject.name, f"{name} decisions", self.subject.box.voxels):
            fragments = self._cut(name, recipe.fragments)
            return judge_decisions(proofread(self.subject, fragments, self.affinities, labels), recipe)

    def _cut(self, name: str, parameters: FragmentParameters) -> UInt64[np.ndarray, "z y x"]:
        if parameters not in self._fragments:
            with self.clock.stage(self.subject.name, f"{name} fragments", self.subject.box.voxels):
                self._fragments[parameters] = make_fragments(self.affinities, parameters, threads=self.threads)
        return self._fragments[parameters]


def judge_labels(name: str, labels: Labels, subject: Subject, clock: Clock, threads: int) -> Judged:
    """Judges stored labels, which have no threshold."""
    entry = {"threshold": None, **_see_four_ways(name, labels, subject, clock, threads), "sweep": []}
    return Judged(entry, labels, labels)


def _see_four_ways(name: str, labels: Labels, subject: Subject, clock: Clock, threads: int) -> dict[str, Any]:
    """The scores that count, then all the ways to count, and the worst objects."""
    stage = f"{name} scores"
    with clock.stage(subject.name, stage, subject.box.voxels):
        report = report_segmentation(
            labels, subject.truth, mask=subject.mask, conventions=subject.conventions, threads=threads
        )
        runs = subject.score_runs(labels)
    headline = {key: report["all"][key] for key in ("voi_split", "voi_merge", "voi", "arand")}
    return {**headline, **runs, "ways": {way: report[way] for way in WAYS}, "worst": report["worst"]}


def _lowest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return min(rows, key=lambda row: math.inf if row["voi"] is None else row["voi"])
