"""How many merge decisions an oracle must look at to halve the VOI: by expected cost, by margin, and at random.

    EMSAM_DATA=../shared/data python benchmarks/where_to_look.py --fib25=runs/fib25/eval

Two synthetic volumes, segmented from a classifier of single voxels (`pixel_classifier.py`, whose flags --data, --quick
and --out are taken), and FIB-25 by the affinities and the recipe of an evaluation of `fib25`. Recipes and probabilities
come from the second part of a volume; the curves and the calibration error from the third, once with all voxels and
once without the truth's borders, 1 voxel on each side, since no decision moves a border. `looks` counts the runs that
have seen FIB-25's third part.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import held_out
import measure
import numpy as np
from absl import app, flags
from pixel_classifier import Classifier

from emsam_jax.evaluation.proofreading import Proofreading, judge_decisions, proofread
from emsam_jax.scores import Conventions
from emsam_jax.segmentation import (
    FRAGMENTS,
    FragmentParameters,
    Recipe,
    check_affinities,
    choose,
    fit_probability,
    make_fragments,
    sweep,
)
from emsam_jax.volumes import open_volume
from emsam_jax.volumes.synthetic import Stain, synthetic_volume

_FIB25 = flags.DEFINE_string("fib25", "", "Folder of an evaluation of fib25; without it FIB-25 is left out.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the first synthetic volume; the second has the next.")

WAYS = {"all": Conventions(), "borders_ignored": Conventions(border=1)}
FINER = FragmentParameters("3d", boundary_threshold=0.02, seed_distance=3)  # that borders cross less often
_NAME = "where_to_look-cpu"


class Part(NamedTuple):
    affinities: np.ndarray
    truth: np.ndarray


class Ruler(NamedTuple):
    truth: np.ndarray
    conventions: Conventions
    mask: None = None


class Case(NamedTuple):
    name: str
    validation: Part
    report: Part
    recipe: Recipe


def main(_: list[str]) -> None:
    rows = {}
    for case in _cases():
        rows[case.name] = _judge(case)
        print(_tell(case.name, rows[case.name]), flush=True)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "numpy", "scipy", "waterz"),
        "looks": _looks() + bool(_FIB25.value),
        "volumes": rows,
    }
    print(f"Results: {measure.write(_NAME, results, flags.FLAGS.out)}")


def _cases() -> Iterator[Case]:
    if flags.FLAGS.quick:
        yield _synthetic("small", (48, 64, 64), (10.0, 10.0, 10.0), (16, 32), seed=0, steps=50)
        return
    seed = _SEED.value
    yield _synthetic("synthetic, 10 x 10 x 10 nm", (150, 176, 176), (10.0, 10.0, 10.0), (40, 80), seed=seed)
    yield _synthetic("synthetic, 20 x 8 x 8 nm", (96, 256, 256), (20.0, 8.0, 8.0), (24, 48), seed=seed + 1)
    if _FIB25.value:
        yield from _fib25(Path(_FIB25.value))


def _synthetic(
    name: str,
    shape: tuple[int, int, int],
    voxel_size_zyx: tuple[float, float, float],
    cuts: tuple[int, int],
    *,
    seed: int,
    steps: int = 700,
) -> Case:
    volume = synthetic_volume(shape, seed, voxel_size_zyx, stain=Stain(noise=0.06))
    classifier = Classifier(volume.raw[: cuts[0]], volume.labels[: cuts[0]], seed, steps)
    validation, report = (
        Part(classifier.predict(volume.raw, first, stop), volume.labels[first:stop])
        for first, stop in (cuts, (cuts[1], shape[0]))
    )
    return Case(name, validation, report, _choose(validation, [one for one in FRAGMENTS if one.kind == "3d"]))


def _choose(part: Part, fragments: Sequence[FragmentParameters], scorers: Sequence[str] = ("mean", "q50")) -> Recipe:
    recipes = [Recipe(fragments=cut, scorer=scorer) for cut in fragments for scorer in scorers]
    return choose(sweep([held_out.hold(*part)], recipes)).recipe


def _fib25(folder: Path) -> Iterator[Case]:
    truth = held_out.read_fib25(flags.FLAGS.data).labels
    validation, report = (
        Part(_stored(folder / f"FIB-25_{first}_{stop}"), truth[first:stop]) for first, stop in ((125, 150), (150, 250))
    )
    recipe = Recipe.read(folder / "postprocess.json")
    yield Case("FIB-25", validation, report, recipe)
    yield Case("FIB-25, finer fragments", validation, report, _choose(validation, [FINER], [recipe.scorer]))


def _stored(folder: Path) -> np.ndarray:
    path = max(folder.glob("affinities-*.zarr"), key=lambda path: path.stat().st_mtime)  # of the last evaluation
    return np.asarray(open_volume(path, channel="all")[:3], np.float32)


def _judge(case: Case) -> dict[str, Any]:
    fitted = fit_probability(*_ask(case.validation, case.recipe, WAYS["all"]).examples())
    recipe = dataclasses.replace(case.recipe, probability=fitted)
    ways = {name: judge_decisions(_ask(case.report, recipe, way), recipe) for name, way in WAYS.items()}
    return {"recipe": dataclasses.asdict(case.recipe), "ways": ways}


def _ask(part: Part, recipe: Recipe, way: Conventions) -> Proofreading:
    affinities = check_affinities(part.affinities)
    fragments = make_fragments(affinities, recipe.fragments)
    labels = recipe.segment(affinities, fragments=fragments)
    return proofread(Ruler(part.truth, way), fragments, affinities, labels)


def _tell(name: str, row: dict[str, Any]) -> str:
    lines = []
    for way, found in row["ways"].items():
        curve, wrong = found["voi"]["cost"], found["wrongly_joined"] + found["wrongly_apart"]
        lines.append(
            f"{name}, {way}: {wrong} of {found['decisions']} decisions wrong, calibration error "
            f"{found['calibration_error']:.3f}; VOI {curve[0]:.3f}, after all {curve[-1]:.3f}; looks to halve it "
            f"{_tell_looks(found['to_halve'])}; to mend half of what looking mends {_tell_looks(found['to_mend_half'])}"
        )
    return "\n".join(lines)


def _tell_looks(found: dict[str, int | None]) -> str:
    return ", ".join(f"{'never' if count is None else count} by {order}" for order, count in found.items())


def _looks() -> int:
    """By the results that are there."""
    path = Path(flags.FLAGS.out or measure.RESULTS) / f"{_NAME}.json"
    return json.loads(path.read_text())["looks"] if path.exists() else 0


if __name__ == "__main__":
    app.run(main)
