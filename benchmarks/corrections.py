"""Corrections that outlive a model: edits of one segmentation, applied to it and to another model's.

    python benchmarks/corrections.py [--a=affinities.zarr --b=affinities.zarr --data=../shared/data]

An oracle that knows the truth corrects the segmentation of model A as a person does, in rounds: it looks where the
labels are wrong, joins the main pieces of a neuron and parts what an object holds beside its main neuron, by two clicks
a voxel or more away from any border, and looks again. The edits are then applied to model B, whose fragments are
others. An edit is fulfilled if the labels at its points say so; `unlisted` are those that are not, and that the report
does not list. On synthetic volumes noise stands for a model's mistakes, and its seed for the model. `--a` and `--b` are
affinities of FIB-25 by two models, at their place in the world; fragments, scorer and threshold of these were chosen on
sections before 150.
"""

import collections
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cells
import held_out
import measure
import numpy as np
from absl import app, flags
from bioimage_cpp.filters import gaussian_smoothing

from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import Edit, FragmentParameters, Recipe, ideal_affinities, new_edit
from emsam_jax.segmentation.blockwise import read_edits_report, segment_blockwise
from emsam_jax.volumes import Volume, create_volume, open_volume
from emsam_jax.volumes.synthetic import synthetic_volume

_A = flags.DEFINE_string("a", "", "Affinities of FIB-25 by one model, corrected by the oracle.")
_B = flags.DEFINE_multi_string("b", [], "Affinities of the same sections by another model. May be repeated.")
_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_EDITS = flags.DEFINE_integer("edits", 500, "Joins, and as many partings.")
_QUICK = flags.DEFINE_bool("quick", False, "Small volumes and few edits: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

ROUNDS = 5
_LEAST = 100  # voxels away from borders that a piece has which somebody clicks at
_THIN = FragmentParameters("2d", boundary_threshold=0.5, seed_distance=5)
_THICK = FragmentParameters("3d", boundary_threshold=0.3, seed_distance=2)
# More and smaller fragments, and a lower threshold, than score best as they are: a fragment cannot be cut, and what is
# joined to a false merge becomes part of it.
FIB25 = {
    "a": Recipe("waterz", 0.02, FragmentParameters("3d", boundary_threshold=0.05, seed_distance=2), scorer="q75"),
    "b": Recipe("waterz", 0.06, FragmentParameters("3d", boundary_threshold=0.1, seed_distance=1), scorer="q75"),
}


class Case(NamedTuple):
    truth: np.ndarray
    affinities: dict[str, Volume]  # of model a, which is corrected, and of others
    recipes: dict[str, Recipe]


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {case: correct(each, folder / case) for case, each in cases(folder)}
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "numpy", "scipy", "waterz"),
        "rounds": ROUNDS,
        "volumes": found,
    }
    print(f"Results: {measure.write('corrections-cpu', results, _OUT.value)}")


def cases(folder: Path) -> Iterator[tuple[str, Case]]:
    shape = (16, 64, 64) if _QUICK.value else (64, 256, 256)
    truth = cells.draw_cells(shape, voxels=8000)
    yield "cells", draw_case(folder / "cells", truth, (40, 4, 4), Recipe("waterz", 0.3, _THIN))
    shape = (32, 48, 48) if _QUICK.value else (128, 192, 192)
    truth = synthetic_volume(shape, 0, (10.0, 10.0, 10.0)).labels
    yield "tissue", draw_case(folder / "tissue", truth, (10, 10, 10), Recipe("multicut", 0.4, _THICK))
    if _A.value and _B.value:
        models = zip("abcdefgh", [_A.value, *_B.value], strict=False)
        affinities = {model: open_volume(url, channel="all") for model, url in models}
        first, stop = (round(affinities["a"].offset_zyx[0] / 10), affinities["a"].shape[1])
        truth = held_out.read_fib25(_DATA.value).labels[first : first + stop]
        yield "FIB-25", Case(truth, affinities, {model: FIB25["a" if model == "a" else "b"] for model in affinities})


def draw_case(folder: Path, truth: np.ndarray, size: tuple[int, int, int], recipe: Recipe) -> Case:
    affinities = {}
    for seed, model in enumerate("ab"):
        values = draw_mistaken_affinities(truth, seed)
        volume = create_volume(folder / f"{model}.zarr", values.shape, "uint8", size)
        volume[...] = np.rint(255 * values).astype(np.uint8)
        affinities[model] = open_volume(volume.url, channel="all")
    return Case(truth, affinities, {"a": recipe, "b": recipe})


def draw_mistaken_affinities(truth: np.ndarray, seed: int) -> np.ndarray:
    """Affinities [3, z, y, x] with fine and coarse noise on their log odds: the coarse one breaks whole borders."""
    ideal = np.clip(ideal_affinities(truth), 0.02, 0.98)
    odds, rng = np.log(ideal / (1 - ideal)), np.random.default_rng(seed)
    shared = rng.standard_normal(truth.shape, dtype=np.float32)
    coarse = gaussian_smoothing(shared, 4.0)
    for channel in range(3):
        fine = gaussian_smoothing(rng.standard_normal(truth.shape, dtype=np.float32), 1.0)
        odds[channel] += 0.5 * fine / fine.std() + 1.5 * coarse / coarse.std()
    return 1 / (1 + np.exp(-odds))


def correct(case: Case, folder: Path) -> dict[str, Any]:
    plain = {model: segment(case, model, folder) for model in case.affinities}
    oracle, edits, labels = Oracle(case.truth, plain["a"]), [], plain["a"][...]
    for number in range(ROUNDS):
        edits += oracle.draw(labels, (8 if _QUICK.value else _EDITS.value) // ROUNDS)
        labels = segment(case, "a", folder, edits, f"round-{number}")[...]
    found: dict[str, Any] = {"mistakes": len(oracle.drawn)}
    for model in case.affinities:
        start = time.perf_counter()
        after = segment(case, model, folder, edits, "edited")
        seconds = time.perf_counter() - start
        found[model] = {**judge(case, after, edits), "seconds": seconds}
        for when, made in (("before", plain[model]), ("after", after)):
            scores = score_segmentation(made[...], case.truth)
            found[model][when] = {name: scores[name] for name in ("voi_split", "voi_merge", "voi")}
        shares = f"{found[model]['fulfilled']} of {len(edits)} fulfilled, listed {found[model]['listed']}"
        voi = " to ".join(f"{found[model][when]['voi']:.3f}" for when in ("before", "after"))
        print(f"{folder.name}, model {model}: {shares}, unlisted {found[model]['unlisted']}; VOI {voi}", flush=True)
    return found


def segment(case: Case, model: str, folder: Path, edits: list[Edit] | None = None, name: str = "plain") -> Volume:
    graph = folder / f"{model}-plain"
    return segment_blockwise(
        case.affinities[model], folder / f"{model}-{name}", case.recipes[model], graph=graph, edits=edits
    )


def judge(case: Case, labels: Volume, edits: list[Edit]) -> dict[str, Any]:
    """Whether each edit is fulfilled, by the labels at its points; why not, by the report."""
    values, why = labels[...], read_edits_report(labels.url).impossible
    kept = 0
    unlisted = []
    for edit in edits:
        one, other = (values[voxel_of(labels, point)] for point in edit.points_zyx_nm)
        fulfilled = (edit.kind == "join") == (one == other) and min(one, other) > 0
        kept += fulfilled
        if not fulfilled and not any(edit.id in sentence.split(" by ")[0] for sentence in why):
            unlisted.append(edit.id)
    reasons = {"one fragment": "cannot be cut", "contradicts": "contradicts", "background": "which is background"}
    listed = collections.Counter(next(name for name, words in reasons.items() if words in each) for each in why)
    return {"edits": len(edits), "fulfilled": int(kept), "listed": dict(listed), "unlisted": len(unlisted)}


def voxel_of(volume: Volume, point: tuple[float, float, float]) -> tuple[int, ...]:
    sides = zip(point, volume.offset_zyx, volume.voxel_size_zyx, strict=True)
    return tuple(int((at - first) // size) for at, first, size in sides)


class Piece(NamedTuple):
    """Voxels of one neuron in one object, those that touch no other piece."""

    label: int
    neuron: int
    voxels: np.ndarray


class Oracle:
    def __init__(self, truth: np.ndarray, volume: Volume):
        self.truth, self.volume, self.rng = truth.astype(np.int64), volume, np.random.default_rng(0)
        self.drawn: dict[tuple, tuple[Piece, Piece]] = {}

    def draw(self, labels: np.ndarray, count: int) -> list[Edit]:
        """`count` joins and `count` partings where the labels are wrong."""
        pieces = self.pieces(labels.astype(np.int64))
        of_object, of_neuron = {}, {}
        for piece in pieces:  # the largest come first
            if of_object.setdefault(piece.label, piece) is piece:
                of_neuron.setdefault(piece.neuron, piece)
        parts = [(of_object[one.label], one) for one in pieces if one is not of_object[one.label]]
        joins = [(of_neuron[one.neuron], one) for one in of_object.values() if one is not of_neuron[one.neuron]]
        edits = [edit for kind, sites in (("join", joins), ("part", parts)) for edit in self.click(kind, sites, count)]
        return [edits[place] for place in self.rng.permutation(len(edits))]

    def click(self, kind: str, sites: list[tuple[Piece, Piece]], count: int) -> Iterator[Edit]:
        """Where fewer mistakes than edits are left, at other points of those that were there before."""
        keys = [(kind, *one[:2], *other[:2]) for one, other in sites]
        new = {key: site for key, site in zip(keys, sites, strict=True) if key not in self.drawn}
        order = [new[list(new)[place]] for place in self.rng.permutation(len(new))[:count]]
        self.drawn |= {key: site for key, site in new.items() if any(site is one for one in order)}
        before = [site for key, site in self.drawn.items() if key[0] == kind]
        while before and len(order) < count:
            order.append(before[self.rng.integers(len(before))])
        for site in order:
            yield new_edit(kind, [self.place(self.rng.choice(piece.voxels)) for piece in site], "oracle")

    def place(self, voxel: int) -> tuple[float, float, float]:
        at = np.array(np.unravel_index(voxel, self.truth.shape)) + 0.5
        z, y, x = at * self.volume.voxel_size_zyx + self.volume.offset_zyx
        return float(z), float(y), float(x)

    def pieces(self, labels: np.ndarray) -> list[Piece]:
        names = labels * (int(self.truth.max()) + 1) + self.truth
        inside = (labels > 0) & (self.truth > 0)
        for axis in range(3):
            change = np.diff(names, axis=axis) != 0
            for cut in (slice(1, None), slice(None, -1)):
                at = [slice(None)] * 3
                at[axis] = cut
                inside[tuple(at)] &= ~change
        voxels = np.flatnonzero(inside)
        voxels = voxels[np.argsort(names.ravel()[voxels], kind="stable")]
        runs = np.split(voxels, np.flatnonzero(np.diff(names.ravel()[voxels])) + 1)
        found = [Piece(int(labels.ravel()[v[0]]), int(self.truth.ravel()[v[0]]), v) for v in runs if len(v) >= _LEAST]
        return sorted(found, key=lambda piece: -len(piece.voxels))


if __name__ == "__main__":
    app.run(main)
