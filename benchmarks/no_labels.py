"""What a model makes of FIB-25 and of gala's volume that has seen synthetic tissue only: a laboratory's first day.

    EMSAM_DATA=../shared/data python benchmarks/no_labels.py --seeds=3

Volumes of the generator's ion-beam mode, each of an appearance of its own, train emsam_jax/configs/fib25.py; others
like them choose checkpoint, fragments, scorer and threshold; and sections 150-249 of FIB-25 and gala's training volume
are scored with these frozen. Grey values become 0 to 1 by each volume's own percentiles: of the target nothing but raw
is used. The generator's ranges were set by raw of FIB-25's sections 0-124 and of gala's volume, and that a pixel
classifier learns from them was seen on labels of FIB-25's sections 30-89. Volumes and runs lie in --runs; the same
command resumes. `looks` counts the evaluations of each run on the scored volumes.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import by_commands
import held_out
import measure
from absl import app, flags
from by_commands import FIB25, ROOT

from emsam_jax.config import DeclaredVolume, Intensity, load_config, to_dict
from emsam_jax.volumes.synthetic import write_synthetic
from emsam_jax.volumes.synthetic.ion_beam import ion_beam_volume

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5 and gala_train.h5.")
_RUNS = flags.DEFINE_string("runs", "runs/no_labels", "Folder of the volumes, and of the runs, one a seed.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings, each from a seed of its own, on the same volumes.")
_VOLUMES = flags.DEFINE_integer("volumes", 16, "Synthetic volumes that train.")
_STEPS = flags.DEFINE_integer("steps", 0, "Of each training; 0: as many as the config has.")
_PREDICT = flags.DEFINE_multi_string("predict", ["symmetries=8"], "For eval.py, such as --predict=symmetries=16.")
_OVERRIDES = flags.DEFINE_multi_string("override", [], "For train.py, such as --override=--config.data.widening=none.")
_QUICK = flags.DEFINE_bool("quick", False, "Small volumes and model, two steps: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

VOXEL_SIZE = (10.0, 10.0, 10.0)
TRAINING, CHOOSING = (125, 250, 250), (48, 160, 160)  # voxels
FIRST_CHOOSING, CHOOSE_ON = 1000, 4  # the first of the seeds that choose, and how many
OWN = Intensity(low=0.5, high=99.5, percentiles=True)
_NAME = "no_labels-cpu"
_SMALL = (
    "--config.data.patch=16,16,16",
    "--config.data.selection.largest=1",
    "--config.model.channels=4,4",
    "--config.optim.steps=2",
    "--config.validation.every=2",
)


def main(_: list[str]) -> None:
    runs = Path(_RUNS.value).absolute()
    data = by_commands.draw_fib25(runs) if _QUICK.value else str(Path(_DATA.value).absolute())
    if not _QUICK.value:
        held_out.read_fib25(data)
    config = _write_config(runs, data)
    overrides = [
        *(_SMALL if _QUICK.value else ()),
        *([f"--config.optim.steps={_STEPS.value}"] if _STEPS.value else []),
        *_OVERRIDES.value,
    ]
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in range(_SEEDS.value):
        predict = () if _QUICK.value else _PREDICT.value
        asked = [f"--config.seed={seed}", *overrides]
        scored = by_commands.train_and_evaluate(runs / str(seed), config, asked, data=data, predict=predict)
        for name, row in scored.items():
            rows.setdefault(name, []).append({"seed": seed, **row})
            print(f"seed {seed}, {name}: {by_commands.tell(row)}", flush=True)
    volumes = {}
    for name, found in rows.items():
        print(name)
        volumes[name] = held_out.all_seeds(found)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "flax", "jax", "numpy", "optax", "waterz"),
        "config": str(FIB25.relative_to(ROOT)),
        "overrides": _OVERRIDES.value,
        "steps": _STEPS.value,
        "predict": _PREDICT.value,
        "trained_on": _VOLUMES.value,
        "chosen_on": CHOOSE_ON,
        "volumes": volumes,
    }
    print(f"Results: {measure.write(_NAME, results, _OUT.value)}")


def _write_config(runs: Path, data: str) -> Path:
    """Puts synthetic volumes in place of FIB-25's into its config."""
    config = load_config(str(FIB25))
    volumes = dataclasses.replace(
        config.data,
        train=_draw(runs, range(2 if _QUICK.value else _VOLUMES.value), TRAINING),
        validation=_draw(runs, range(FIRST_CHOOSING, FIRST_CHOOSING + CHOOSE_ON), CHOOSING),
        test=_targets(data),
    )
    path = runs / "config.json"
    path.write_text(json.dumps(to_dict(dataclasses.replace(config, name="no_labels", data=volumes))) + "\n")
    return path


def _draw(runs: Path, seeds: range, shape: tuple[int, int, int]) -> tuple[DeclaredVolume, ...]:
    """Draws the volumes that are not there yet; each is either whole or not there."""
    declared = []
    for seed in seeds:
        folder = runs / "volumes" / str(seed)
        if not folder.exists():
            print(f"draws synthetic volume {seed}", flush=True)
            partial = folder.with_name(f"{seed}.partial")
            write_synthetic(ion_beam_volume((40, 48, 48) if _QUICK.value else shape, seed, VOXEL_SIZE), str(partial))
            partial.rename(folder)
        declared.append(
            DeclaredVolume(
                name=f"synthetic {seed}", raw=f"{folder}/raw.zarr", labels=f"{folder}/labels.zarr", intensity=OWN
            )
        )
    return tuple(declared)


def _targets(data: str) -> tuple[DeclaredVolume, ...]:
    """The report part of FIB-25, and gala's volume where its file lies there."""
    fib25 = _target(f"{data}/fib25_training2.h5", "FIB-25 150:250", "40:56,:,:" if _QUICK.value else "150:250,:,:")
    gala = _target(f"{data}/gala_train.h5", "gala", "")
    return (fib25, gala) if Path(data, "gala_train.h5").exists() else (fib25,)


def _target(path: str, name: str, roi: str) -> DeclaredVolume:
    return DeclaredVolume(
        name=name, raw=f"{path}/raw", labels=f"{path}/labels", raw_voxel_size_zyx=VOXEL_SIZE, roi=roi, intensity=OWN
    )


if __name__ == "__main__":
    app.run(main)
