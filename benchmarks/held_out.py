"""FIB-25 in its three parts, and what a choice on the second one is worth on the third."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from scipy import stats

from emsam_jax.scores import report_segmentation, score_segmentation
from emsam_jax.segmentation import FRAGMENTS, THRESHOLDS, FragmentParameters, Held, Recipe, choose, sweep
from emsam_jax.volumes.synthetic import synthetic_volume

SCORES = ("voi_split", "voi_merge", "voi", "arand")


class Tissue(NamedTuple):
    """Raw and labels [z, y, x]; sections before `choose` train, before `report` choose, and the others are scored."""

    name: str
    raw: np.ndarray
    labels: np.ndarray
    choose: int
    report: int


def read_fib25(folder: str) -> Tissue:
    path = Path(folder) / "fib25_training2.h5"
    if not path.exists():
        raise SystemExit(
            f"error: {path}: expected FIB-25 there, found nothing; give its folder as --data or EMSAM_DATA."
        )
    with h5py.File(path) as file:
        raw, labels = (np.asarray(file[name]) for name in ("raw", "labels"))
    return Tissue("FIB-25", raw, labels.astype(np.uint32), 125, 150)


def draw_tissue(shape: tuple[int, int, int] = (56, 64, 64)) -> Tissue:
    """Synthetic and isotropic, split as FIB-25 is."""
    volume = synthetic_volume(shape, 0, (10.0, 10.0, 10.0))
    return Tissue("synthetic", volume.raw, volume.labels, shape[0] // 2, 7 * shape[0] // 10)


def judge(
    tissue: Tissue,
    predict: Callable[[int, int], np.ndarray],
    fragments: Sequence[FragmentParameters] = tuple(one for one in FRAGMENTS if one.kind == "3d"),
    scorers: Sequence[str] = ("mean", "q50"),
) -> dict[str, Any]:
    """Chooses on the second part, and looks at the third with that; then what the best threshold there had given.

    `predict` gives the affinities of sections from one to before another.
    """
    recipes = [Recipe(fragments=cut, scorer=scorer) for cut in fragments for scorer in scorers]
    held = predict(tissue.choose, tissue.report), tissue.labels[tissue.choose : tissue.report]
    recipe, _ = choose(sweep([hold(*held)], recipes))
    affinities, truth = predict(tissue.report, len(tissue.labels)), tissue.labels[tissue.report :]
    found = report_segmentation(recipe.segment(affinities), truth, samples=10)
    (curve,) = sweep([hold(affinities, truth)], [recipe], sorted({*THRESHOLDS, recipe.threshold}))
    oracle = min(curve.rows, key=lambda row: row["voi"])
    return {
        "threshold": recipe.threshold,
        "scorer": recipe.scorer,
        "boundary_threshold": recipe.fragments.boundary_threshold,
        "seed_distance": recipe.fragments.seed_distance,
        "ways": {
            way: {name: found[way][name] for name in SCORES}
            for way in ("all", "borders_ignored", "without_largest", "interior")
        },
        "swallowed": found["without_largest"]["swallowed"],
        "oracle_no_result": {name: oracle[name] for name in ("threshold", "voi", "arand")},
        "cost": found["all"]["voi"] / oracle["voi"] - 1,
    }


def hold(affinities: np.ndarray, truth: np.ndarray) -> Held:
    return Held(affinities, lambda labels: {name: score_segmentation(labels, truth)[name] for name in SCORES})


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """The mean with its 95% interval, by Student's t, where there are several."""
    mean, number = statistics.fmean(values), len(values)
    if number < 2:
        return {"mean": mean, "interval_95": None}
    half = float(stats.t.ppf(0.975, number - 1)) * statistics.stdev(values) / number**0.5
    return {"mean": mean, "interval_95": [mean - half, mean + half]}


def all_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds' rows of a result come to, by each way of counting, and the rows; prints a line a way."""
    found = {
        way: {name: over_seeds([row["ways"][way][name] for row in rows]) for name in SCORES} for way in rows[0]["ways"]
    }
    oracle = over_seeds([row["oracle_no_result"]["voi"] for row in rows])
    for way, scores in found.items():
        print(f"{way:<16} VOI {tell(scores['voi'])}, ARAND {tell(scores['arand'])}")
    print(f"oracle, no result: VOI {tell(oracle)}")
    return {"over_seeds": found, "oracle_no_result": oracle, "seeds": list(rows)}


def tell(found: dict[str, Any]) -> str:
    """A mean with its interval, as `over_seeds` gives them."""
    bounds = found["interval_95"]
    return f"{found['mean']:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")
