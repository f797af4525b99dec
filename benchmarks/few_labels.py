"""What FIB-25 teaches when few of its labels are there: dense, a few painted sections, strokes.

    EMSAM_DATA=../shared/data python benchmarks/few_labels.py --seeds=3

Sections 0-124 train, 125-149 choose and 150-249 are reported, as in real_tissue.py, and every arm trains the same
network for as many steps, from labels of which the others are 0 and unlabelled:

    dense           all labels of the 125 sections
    neighbourhood   5 sections and the two before and behind each, densely
    sections        5 sections; patches are drawn around labelled voxels, and turned so that sections teach z too
    sections_plain  the same labels, patches drawn anywhere
    strokes         1% of the voxels, in strokes inside objects and across borders, as a person paints them
    strokes_plain   the same labels, patches drawn anywhere
    lone            5 sections that are never turned, as where z is another axis than y and x: nothing teaches z
    lone_mixed      the same, and every other patch from a synthetic volume, which knows z

Runs lie in --runs and resume: the same command goes on where it was stopped, and the table shows what is done.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_commands
import held_out
import measure
import numpy as np
from absl import app, flags
from by_commands import FIB25

from emsam_jax.config import Config, DeclaredVolume, LabelRules, load_config, to_dict
from emsam_jax.volumes.synthetic import synthetic_volume

ARMS = (
    *("dense", "neighbourhood", "sections", "sections_plain", "strokes", "strokes_plain"),
    *("lone", "lone_mixed"),
)
_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_RUNS = flags.DEFINE_string("runs", "runs/few_labels", "Folder of the runs, one an arm and seed.")
_ARMS = flags.DEFINE_list("arms", list(ARMS), "That are trained.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings of each arm; strokes are painted anew for each.")
_STEPS = flags.DEFINE_integer("steps", 0, "Of each training; 0: as many as the config has.")
_CHANNELS = flags.DEFINE_list("channels", [], "Of the network's levels; none: as the config has them.")
_PATCH = flags.DEFINE_list("patch", [], "Of the training, z, y, x; none: as the config has it.")
_SYMMETRIES = flags.DEFINE_integer("symmetries", 8, "That each prediction of eval.py is the mean over.")
_METHODS = flags.DEFINE_list("methods", ["waterz_mean", "waterz_q50"], "That eval.py chooses from.")
_QUICK = flags.DEFINE_bool("quick", False, "A small synthetic volume and model, two steps: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

PAINTED, STROKES = 5, 0.01  # sections; share of the voxels


def main(_: list[str]) -> None:
    runs = Path(_RUNS.value).absolute()
    runs.mkdir(parents=True, exist_ok=True)
    data = by_commands.draw_fib25(runs) if _QUICK.value else str(Path(_DATA.value).absolute())
    trained = held_out.read_fib25(data).labels[: 24 if _QUICK.value else 125]
    os.environ["EMSAM_DATA"] = data  # for the config
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in _ARMS.value}
    # Seed by seed, so that a run that is stopped has compared something.
    for seed, arm in itertools.product(range(_SEEDS.value), _ARMS.value):
        config, labelled = make_config(arm, seed, trained, runs)
        file = runs / f"{arm}-{seed}.json"
        file.write_text(json.dumps(to_dict(config)))
        symmetries = 1 if _QUICK.value else _SYMMETRIES.value
        (row,) = by_commands.train_and_evaluate(
            runs / f"{arm}-{seed}",
            file,
            [],
            data=data,
            predict=[f"symmetries={symmetries}"],
            methods=_METHODS.value,
        ).values()
        found[arm].append({"seed": seed, "labelled": labelled, **row})
        print(f"{arm}, seed {seed}: {by_commands.tell(row)}", flush=True)
    table = {arm: held_out.all_seeds(rows) for arm, rows in found.items()}
    print(f"\n{'labels':<16}{'labelled':>10}  {'VOI':<26}{'borders ignored':<26}{'ARAND':<26}seconds of steps")
    for arm, rows in table.items():
        ways, first = rows["over_seeds"], rows["seeds"][0]
        told = (ways["all"]["voi"], ways["borders_ignored"]["voi"], ways["all"]["arand"])
        cells = "".join(f"{held_out.tell(score):<26}" for score in told)
        print(f"{arm:<16}{first['labelled']:>10.2%}  {cells}{first['training']['step_seconds']:.0f}")
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "flax", "jax", "numpy", "optax", "waterz"),
        "steps": _STEPS.value,
        "channels": _CHANNELS.value,
        "patch": _PATCH.value,
        "symmetries": _SYMMETRIES.value,
        "arms": table,
    }
    print(f"Results: {measure.write('few_labels-cpu', results, _OUT.value)}")


def make_config(arm: str, seed: int, truth: np.ndarray, runs: Path) -> tuple[Config, float]:
    """Writes the labels of an arm, and gives its config and the share of the voxels that they label."""
    overrides = [*(by_commands.SMALL if _QUICK.value else ()), f"--config.seed={seed}"]
    overrides += [f"--config.optim.steps={_STEPS.value}"] if _STEPS.value else []
    overrides += [f"--config.model.channels={','.join(_CHANNELS.value)}"] if _CHANNELS.value else []
    overrides += [f"--config.data.patch={','.join(_PATCH.value)}"] if _PATCH.value else []
    config = load_config(str(FIB25), overrides)
    if arm == "dense":
        return config, 1.0
    labels = LABELS[arm.split("_", maxsplit=1)[0]](truth, seed)
    file = runs / f"{arm}-{seed}-labels.npy"
    np.save(file, labels)
    (volume,) = config.data.train
    rules = LabelRules(unlabelled=(0,))
    volume = dataclasses.replace(volume, labels=str(file), labels_voxel_size_zyx=(10, 10, 10), rules=rules)
    by_label = not arm.endswith("plain")
    chosen = dataclasses.replace(config.data.selection, labelled=0.001 if by_label else 0.0, by_label=by_label)
    turned = dataclasses.replace(config.data.augmentation, symmetries=not arm.startswith("lone"))
    data = dataclasses.replace(config.data, train=(volume,), selection=chosen, augmentation=turned)
    if arm == "lone_mixed":
        data = dataclasses.replace(data, train=(volume, _draw_synthetic(truth.shape, runs)), weights=(1.0, 1.0))
    return dataclasses.replace(config, data=data), float((labels > 0).mean())


def paint_sections(truth: np.ndarray, around: int = 0) -> np.ndarray:
    """Labels of sections spread evenly, and of those up to `around` before and behind each; else 0."""
    labels = np.zeros_like(truth)
    for section in ((np.arange(PAINTED) + 0.5) * len(truth) / PAINTED).astype(int):
        near = slice(max(section - around, 0), section + around + 1)
        labels[near] = truth[near]
    return labels


def paint_strokes(truth: np.ndarray, seed: int, share: float = STROKES) -> np.ndarray:
    """Labels under strokes of a brush in single sections, until they are this share of the voxels; else 0.

    Every other stroke is kept within the object that it begins in; the others change colour at each border they cross.
    """
    rng, labels = np.random.default_rng(seed), np.zeros_like(truth)
    disc = np.argwhere(np.hypot(*np.indices((5, 5)) - 2) <= 2) - 2  # 5 voxels wide
    painted = 0
    for stroke in itertools.count():
        if painted >= share * truth.size:
            break
        section = rng.integers(len(truth))
        start = rng.integers(truth.shape[1:])
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.15, rng.integers(30, 60)))
        path = start + np.cumsum(np.column_stack([np.sin(angles), np.cos(angles)]), axis=0)
        y, x = np.rint(path[:, None] + disc).astype(int).reshape(-1, 2).T
        there = (y >= 0) & (y < truth.shape[1]) & (x >= 0) & (x < truth.shape[2])
        if stroke % 2:
            there[there] &= truth[section, y[there], x[there]] == truth[section, *start]
        painted -= np.count_nonzero(labels[section])
        labels[section, y[there], x[there]] = truth[section, y[there], x[there]]
        painted += np.count_nonzero(labels[section])
    return labels


def _draw_synthetic(shape: tuple[int, ...], runs: Path) -> DeclaredVolume:
    """Draws tissue of FIB-25's voxels, all of it labelled."""
    z, y, x = shape
    volume = synthetic_volume((z, y, x), 0, (10.0, 10.0, 10.0))
    for name, values in (("raw", volume.raw), ("labels", volume.labels)):
        np.save(runs / f"synthetic-{name}.npy", values)
    raw, labels = (str(runs / f"synthetic-{name}.npy") for name in ("raw", "labels"))
    return DeclaredVolume(name="synthetic", raw=raw, labels=labels, raw_voxel_size_zyx=(10, 10, 10))


LABELS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "neighbourhood": lambda truth, seed: paint_sections(truth, around=2),
    "sections": lambda truth, seed: paint_sections(truth),
    "lone": lambda truth, seed: paint_sections(truth),
    "strokes": paint_strokes,
}


if __name__ == "__main__":
    app.run(main)
