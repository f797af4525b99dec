"""What train.py and eval.py make of FIB-25 with emsam_jax/configs/fib25.py, from scratch.

    EMSAM_DATA=../shared/data python benchmarks/real_tissue.py --seeds=3

Sections 0-124 train, 125-149 choose checkpoint, fragments, scorer and threshold, and 150-249 are scored with these
frozen; the oracle is the best threshold of the same fragments and scorer there, found by looking at the truth. Runs lie
in --runs and resume: the same command goes on where it was stopped. Seconds are summed over its calls, those of a core
beside those on the clock, which other work on the machine stretches. `looks` counts the evaluations of the report part
with this recipe.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import held_out
import measure
from absl import app, flags

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_RUNS = flags.DEFINE_string("runs", "runs/real_tissue", "Folder of the runs, one a seed.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings, each from a seed of its own.")
_STEPS = flags.DEFINE_integer("steps", 0, "Of each training; 0: as many as the config has.")
_SYMMETRIES = flags.DEFINE_integer("symmetries", 8, "That each prediction of eval.py is the mean over.")
_OVERRIDES = flags.DEFINE_multi_string("override", [], "For train.py, such as --override=--config.data.widening=none.")
_QUICK = flags.DEFINE_bool("quick", False, "A small synthetic volume and model, two steps: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "emsam_jax" / "configs" / "fib25.py"
METHODS = ("waterz_mean", "waterz_q50", "waterz_q75", "multicut")
_NAME = "real_tissue-cpu"
_SMALL = (
    "--config.data.train[0].roi=0:24,:,:",
    "--config.data.validation[0].roi=24:40,:,:",
    "--config.data.test[0].roi=40:56,:,:",
    "--config.data.patch=16,16,16",
    "--config.data.selection.largest=1",
    "--config.model.channels=4,4",
    "--config.optim.steps=2",
    "--config.validation.every=2",
)


def main(_: list[str]) -> None:
    runs = Path(_RUNS.value).absolute()
    data = _draw_tissue(runs) if _QUICK.value else str(Path(_DATA.value).absolute())
    if not _QUICK.value:
        held_out.read_fib25(data)
    rows = []
    for seed in range(_SEEDS.value):
        rows.append({"seed": seed, **train_and_evaluate(runs / str(seed), seed, data)})
        print(_tell(rows[-1]), flush=True)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "flax", "jax", "numpy", "optax", "waterz"),
        "config": str(CONFIG.relative_to(ROOT)),
        "overrides": _overrides(),
        "symmetries": _SYMMETRIES.value,
        **held_out.all_seeds(rows),
    }
    print(f"Results: {measure.write(_NAME, results, _OUT.value)}")


def train_and_evaluate(workdir: Path, seed: int, data: str) -> dict[str, Any]:
    """By the commands that a user types, and what they took."""
    environment = {**os.environ, "EMSAM_DATA": data, "PYTHONPATH": str(ROOT)}
    train = ["train.py", f"--config={CONFIG}", f"--workdir={workdir}", f"--config.seed={seed}", *_overrides()]
    training = _run(workdir, "training", train, environment)
    symmetries = "1" if _QUICK.value else str(_SYMMETRIES.value)
    evaluate = ["eval.py", f"--ckpt={workdir}", f"--predict=symmetries={symmetries}", f"--methods={','.join(METHODS)}"]
    evaluation = _run(workdir, "evaluation", evaluate, environment)
    scores = json.loads((workdir / "eval" / "scores.json").read_text())
    (methods,) = scores["volumes"].values()
    found, recipe = methods[scores["headline"]], scores["recipes"][scores["headline"]]
    return {
        "training": training,
        "evaluation": evaluation,
        "looks": evaluation["calls"],
        "step": scores["model"]["step"],
        "method": scores["headline"],
        "threshold": recipe["threshold"],
        "boundary_threshold": recipe["fragments"]["boundary_threshold"],
        "seed_distance": recipe["fragments"]["seed_distance"],
        "ways": {way: {name: row[name] for name in held_out.SCORES} for way, row in found["ways"].items()},
        "oracle_no_result": {name: found["oracle"][name] for name in ("threshold", "voi", "arand")},
        "methods": {name: {key: row[key] for key in ("threshold", "voi", "arand")} for name, row in methods.items()},
        "worst": found["worst"],
    }


def _overrides() -> list[str]:
    steps = [f"--config.optim.steps={_STEPS.value}"] if _STEPS.value else []
    return [*(_SMALL if _QUICK.value else ()), *steps, *_OVERRIDES.value]


def _run(workdir: Path, name: str, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Ends with the command where it fails; gives calls and seconds, of those before as well."""
    print(f"$ python {' '.join(command)}", flush=True)
    path = workdir.parent / f"{workdir.name}-{name}.json"
    took = json.loads(path.read_text()) if path.exists() else {"calls": 0, "seconds": 0.0, "core_seconds": 0.0}
    start, before = time.perf_counter(), _core_seconds()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=False)
    took["calls"] += 1
    took["seconds"] += time.perf_counter() - start
    took["core_seconds"] += _core_seconds() - before
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(took) + "\n")
    if done.returncode:
        sys.exit(done.returncode)
    return took


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tell(row: dict[str, Any]) -> str:
    scores, oracle = row["ways"]["all"], row["oracle_no_result"]
    return (
        f"seed {row['seed']}: step {row['step']}, {row['method']}, boundary {row['boundary_threshold']}, seed distance "
        f"{row['seed_distance']}, threshold {row['threshold']:g}: VOI {scores['voi']:.3f}, ARAND {scores['arand']:.3f} "
        f"(oracle {oracle['voi']:.3f} at {oracle['threshold']:g}); trained in {row['training']['seconds']:.0f} s, "
        f"{row['training']['core_seconds']:.0f} s of a core"
    )


def _draw_tissue(folder: Path) -> str:
    """A synthetic volume where FIB-25 would lie."""
    folder.mkdir(parents=True, exist_ok=True)
    tissue = held_out.draw_tissue()
    with h5py.File(folder / "fib25_training2.h5", "w") as file:
        file["raw"], file["labels"] = tissue.raw, tissue.labels
    return str(folder)


if __name__ == "__main__":
    app.run(main)
