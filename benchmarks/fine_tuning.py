"""What a trained model makes of other tissue of its kind: as it is, and after minutes of fine-tuning there.

    EMSAM_DATA=../shared/data python benchmarks/fine_tuning.py --ckpt=models/fib25

gala's training volume, another crop of fly brain by an ion beam: columns 0-95 train, 96-119 choose and 120-199 are
scored. Its grey values reach further than FIB-25's: `matched` stretches them to FIB-25's range by percentiles of raw.
The rows are the model with the recipe that it comes with, on raw as it is and matched; the same model fine-tuned on
matched raw, its recipe chosen anew; and as many steps from scratch. Runs lie in --runs and resume.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import by_commands
import h5py
import held_out
import measure
import numpy as np
from absl import app, flags
from by_commands import FIB25, ROOT

from emsam_jax.config import Config, DeclaredVolume, load_config, to_dict

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5 and gala_train.h5.")
_CKPT = flags.DEFINE_string("ckpt", str(ROOT / "models" / "fib25"), "Trained model.")
_RUNS = flags.DEFINE_string("runs", "runs/fine_tuning", "Folder of the runs.")
_STEPS = flags.DEFINE_integer("steps", 250, "Of fine-tuning, and from scratch.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Fine-tunings and trainings from scratch.")
_PREDICT = flags.DEFINE_multi_string("predict", ["symmetries=4"], "For eval.py, which predicts with it.")
_QUICK = flags.DEFINE_bool("quick", False, "A small synthetic volume, two steps: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

_NAME, _PERCENTILES = "fine_tuning-cpu", (0.5, 99.5)
_COLUMNS = {"train": (0, 96), "validation": (96, 120), "test": (120, 200)}
_SMALL_COLUMNS = {"train": (0, 24), "validation": (24, 40), "test": (40, 64)}


def main(_: list[str]) -> None:
    runs = Path(_RUNS.value).absolute()
    runs.mkdir(parents=True, exist_ok=True)
    raw, labels = _write(runs)
    columns = _SMALL_COLUMNS if _QUICK.value else _COLUMNS
    first, end = columns["test"]
    rows: dict[str, Any] = {}
    for name, values in (("zero-shot", "raw"), ("zero-shot, matched", "matched")):
        rows[name] = held_out.all_seeds(
            [_zero_shot(runs / f"zero-{values}", raw[values], labels, f":,:,{first}:{end}")]
        )
        print(f"^ {name}\n", flush=True)
    for name, init_from in (("fine-tuned", _CKPT.value), ("from scratch", "")):
        found = []
        for seed in range(_SEEDS.value):
            run = runs / f"{name.replace(' ', '-')}-{seed}"
            config = _configure(raw["matched"], labels, columns, init_from, seed)
            path = run.with_suffix(".json")
            path.write_text(json.dumps(to_dict(config)))
            predict = () if _QUICK.value else _PREDICT.value
            (row,) = by_commands.train_and_evaluate(run, path, [], data="", predict=predict).values()
            found.append({"seed": seed, **row})
            print(f"{name}, seed {seed}: {by_commands.tell(row)}", flush=True)
        rows[name] = held_out.all_seeds(found)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "flax", "jax", "numpy", "optax", "waterz"),
        "ckpt": Path(_CKPT.value).name,
        "steps": _STEPS.value,
        "columns": columns,
        "rows": rows,
    }
    print(f"Results: {measure.write(_NAME, results, _OUT.value)}")


def _write(runs: Path) -> tuple[dict[str, str], str]:
    """Writes raw as it is, matched to FIB-25's grey values, and labels."""
    if _QUICK.value:
        tissue = held_out.draw_tissue()
        raw, truth, wanted = tissue.raw, tissue.labels, (67, 198)
    else:
        wanted = np.percentile(held_out.read_fib25(_DATA.value).raw[:125], _PERCENTILES)
        with h5py.File(Path(_DATA.value) / "gala_train.h5") as file:
            raw, truth = (np.asarray(file[name]) for name in ("raw", "labels"))
    low, high = np.percentile(raw, _PERCENTILES)
    matched = (raw - low) / (high - low) * (wanted[1] - wanted[0]) + wanted[0]
    found = {"raw": raw, "matched": np.rint(matched).clip(0, 255).astype(np.uint8), "labels": truth}
    for name, values in found.items():
        np.save(runs / f"{name}.npy", values)
    return {name: str(runs / f"{name}.npy") for name in ("raw", "matched")}, str(runs / "labels.npy")


def _zero_shot(out: Path, raw: str, labels: str, roi: str) -> dict[str, Any]:
    predict = () if _QUICK.value else [f"--predict={setting}" for setting in _PREDICT.value]
    where = (f"--raw={raw}", f"--labels={labels}", f"--roi={roi}", "--voxel_size=10,10,10")
    took = by_commands.run(out, "evaluation", ["eval.py", f"--ckpt={_CKPT.value}", *where, f"--out={out}", *predict])
    (row,) = by_commands.read_scores(out, took).values()
    return {"seed": 0, **row}


def _configure(raw: str, labels: str, columns: dict[str, tuple[int, int]], init_from: str, seed: int) -> Config:
    """FIB-25's config on this volume, in patches that fit its 50 sections, cut short."""
    small = ["--config.data.patch=16,16,16", "--config.optim.steps=2", "--config.validation.every=2"]
    size = ["--config.data.patch=48,48,48", f"--config.optim.steps={_STEPS.value}", "--config.optim.warmup=20"]
    config = load_config(str(FIB25), [f"--config.seed={seed}", *(small if _QUICK.value else size)])
    parts = {
        part: (
            DeclaredVolume(
                name=part, raw=raw, labels=labels, raw_voxel_size_zyx=(10, 10, 10), labels_voxel_size_zyx=(10, 10, 10),
                roi=f":,:,{first}:{end}",
            ),
        )
        for part, (first, end) in columns.items()
    }  # fmt: skip
    data = dataclasses.replace(config.data, **parts)
    every = dataclasses.replace(config.validation, every=config.optim.steps)
    return dataclasses.replace(
        config, name="other tissue", standings="", init_from=init_from, data=data, validation=every
    )


if __name__ == "__main__":
    app.run(main)
