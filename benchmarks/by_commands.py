"""Trains and evaluates by the commands that a user types, and counts what they took."""

import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import held_out

ROOT = Path(__file__).parents[1]
FIB25 = ROOT / "emsam_jax" / "configs" / "fib25.py"
SMALL = (  # what makes FIB-25's config fit `draw_fib25`, in two steps
    "--config.data.train[0].roi=0:24,:,:",
    "--config.data.validation[0].roi=24:40,:,:",
    "--config.data.test[0].roi=40:56,:,:",
    "--config.data.patch=16,16,16",
    "--config.data.selection.largest=1",
    "--config.model.channels=4,4",
    "--config.optim.steps=2",
    "--config.validation.every=2",
)
METHODS = ("waterz_mean", "waterz_q50", "waterz_q75", "multicut")


def train_and_evaluate(
    workdir: Path,
    config: Path,
    overrides: Sequence[str],
    *,
    data: str,
    predict: Sequence[str] = (),
    methods: Sequence[str] = METHODS,
) -> dict[str, dict[str, Any]]:
    """A row of a result for each test volume: the run's scores, with everything chosen on its validation volumes.

    Both commands resume. `data` is the folder of FIB-25; `looks` counts the evaluations.
    """
    training = run(workdir, "training", ["train.py", f"--config={config}", f"--workdir={workdir}", *overrides], data)
    settings = [f"--predict={setting}" for setting in predict]
    evaluate = ["eval.py", f"--ckpt={workdir}", f"--methods={','.join(methods)}", *settings]
    evaluation = run(workdir, "evaluation", evaluate, data)
    scored = read_scores(workdir / "eval", evaluation)
    training["step_seconds"] = _seconds_of_steps(workdir)
    return {name: {"training": training, **row} for name, row in scored.items()}


def _seconds_of_steps(run: Path) -> float:
    """Sums the steps' seconds as the run logged them, also those of calls that were killed."""
    batch = json.loads((run / "config.json").read_text())["optim"]["batch"]
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    speeds = {row["step"]: row["patches_per_second"] for row in rows if "patches_per_second" in row}
    return sum((step - before) * batch / speeds[step] for before, step in itertools.pairwise([0, *sorted(speeds)]))


def read_scores(folder: Path, evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A row for each volume that eval.py scored, from where it wrote."""
    scores = json.loads((folder / "scores.json").read_text())
    chosen = scores["headline"]
    recipe = scores["recipes"][chosen]
    run_row = {
        "evaluation": evaluation,
        "looks": evaluation["calls"],
        "step": scores["model"]["step"],
        "method": chosen,
        "threshold": recipe["threshold"],
        "boundary_threshold": recipe["fragments"]["boundary_threshold"],
        "seed_distance": recipe["fragments"]["seed_distance"],
    }
    return {name: {**run_row, **_scored(by_method, chosen)} for name, by_method in scores["volumes"].items()}


def _scored(by_method: dict[str, Any], chosen: str) -> dict[str, Any]:
    found = by_method[chosen]
    return {
        "ways": {way: {name: row[name] for name in held_out.SCORES} for way, row in found["ways"].items()},
        "oracle_no_result": {name: found["oracle"][name] for name in ("threshold", "voi", "arand")},
        "methods": {name: {key: row[key] for key in ("threshold", "voi", "arand")} for name, row in by_method.items()},
        "worst": found["worst"],
    }


def draw_fib25(folder: Path) -> str:
    """Draws a synthetic volume where FIB-25 would lie."""
    folder.mkdir(parents=True, exist_ok=True)
    tissue = held_out.draw_tissue()
    with h5py.File(folder / "fib25_training2.h5", "w") as file:
        file["raw"], file["labels"] = tissue.raw, tissue.labels
    return str(folder)


def run(workdir: Path, name: str, command: Sequence[str], data: str = "") -> dict[str, Any]:
    """Ends with the command where it fails; gives calls and seconds, of those before as well."""
    environment = {**os.environ, "EMSAM_DATA": data, "PYTHONPATH": str(ROOT)}
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


def tell(row: dict[str, Any]) -> str:
    scores, oracle = row["ways"]["all"], row["oracle_no_result"]
    return (
        f"step {row['step']}, {row['method']}, boundary {row['boundary_threshold']}, seed distance "
        f"{row['seed_distance']}, threshold {row['threshold']:g}: VOI {scores['voi']:.3f}, ARAND {scores['arand']:.3f} "
        f"(oracle {oracle['voi']:.3f} at {oracle['threshold']:g}); steps took {row['training']['step_seconds']:.0f} s"
    )


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
