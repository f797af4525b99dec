"""What train.py and eval.py make of FIB-25 with emsam_jax/configs/fib25.py, from scratch.

    EMSAM_DATA=../shared/data python benchmarks/real_tissue.py --seeds=3

Sections 0-124 train, 125-149 choose checkpoint, fragments, scorer and threshold, and 150-249 are scored with these
frozen; the oracle is the best threshold of the same fragments and scorer there, found by looking at the truth. Runs lie
in --runs and resume: the same command goes on where it was stopped. Seconds are summed over its calls, those of a core
beside those on the clock, which other work on the machine stretches. `looks` counts the evaluations of the report part
with this recipe.
"""

import os
from pathlib import Path

import by_commands
import held_out
import measure
from absl import app, flags
from by_commands import FIB25, ROOT

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_RUNS = flags.DEFINE_string("runs", "runs/real_tissue", "Folder of the runs, one a seed.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings, each from a seed of its own.")
_STEPS = flags.DEFINE_integer("steps", 0, "Of each training; 0: as many as the config has.")
_PREDICT = flags.DEFINE_multi_string("predict", ["symmetries=4"], "For eval.py, which predicts with it.")
_OVERRIDES = flags.DEFINE_multi_string("override", [], "For train.py, such as --override=--config.data.widening=none.")
_QUICK = flags.DEFINE_bool("quick", False, "A small synthetic volume and model, two steps: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

_NAME = "real_tissue-cpu"


def main(_: list[str]) -> None:
    runs = Path(_RUNS.value).absolute()
    data = by_commands.draw_fib25(runs) if _QUICK.value else str(Path(_DATA.value).absolute())
    if not _QUICK.value:
        held_out.read_fib25(data)
    rows = []
    for seed in range(_SEEDS.value):
        overrides = [f"--config.seed={seed}", *_overrides()]
        predict = () if _QUICK.value else _PREDICT.value
        scored = by_commands.train_and_evaluate(runs / str(seed), FIB25, overrides, data=data, predict=predict)
        (row,) = scored.values()
        rows.append({"seed": seed, **row})
        print(f"seed {seed}: {by_commands.tell(row)}", flush=True)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "flax", "jax", "numpy", "optax", "waterz"),
        "config": str(FIB25.relative_to(ROOT)),
        "overrides": _overrides(),
        "predict": _PREDICT.value,
        **held_out.all_seeds(rows),
    }
    print(f"Results: {measure.write(_NAME, results, _OUT.value)}")


def _overrides() -> list[str]:
    steps = [f"--config.optim.steps={_STEPS.value}"] if _STEPS.value else []
    return [*(by_commands.SMALL if _QUICK.value else ()), *steps, *_OVERRIDES.value]


if __name__ == "__main__":
    app.run(main)
