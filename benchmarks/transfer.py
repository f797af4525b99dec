"""Does a pre-trained image encoder help where labels are few? FIB-25 with all, 25 and 5 labelled sections.

    EMSAM_DATA=../shared/data python benchmarks/transfer.py --seeds=3
    EMSAM_DATA=../shared/data python benchmarks/transfer.py --labelled=25 --arms=frozen,guidance_none,no_coarse

The claim is tested in small, without SAM2's weights: a toy Hiera is trained with the rest of FGNet on synthetic volumes
of other tissue, each with an appearance of its own, and its encoder is kept. On FIB-25 the same FGNet is then trained
from scratch with that encoder frozen and fine-tuned, with a random frozen one, and without one, all for as many steps.
Labels count in the middle sections of 0-124 only, raw is seen in all; fragments and threshold are chosen on 125-149;
150-249 are scored with the last checkpoint and these. Runs lie in --runs and resume.
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
from by_commands import FIB25

from emsam_jax.config import DeclaredVolume, ValidationConfig, load_config, to_dict
from emsam_jax.inference import read_trained_params
from emsam_jax.model import ENCODER, writing_image_encoder
from emsam_jax.storage import write_whole
from emsam_jax.volumes.synthetic import write_synthetic
from emsam_jax.volumes.synthetic.ion_beam import ion_beam_volume

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_RUNS = flags.DEFINE_string("runs", "runs/transfer", "Folder of the runs.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Trainings of each row, each from a seed of its own.")
_LABELLED = flags.DEFINE_list("labelled", ["125", "25", "5"], "Labelled sections of the rows.")
_ARMS = flags.DEFINE_list("arms", ["unet", "random", "frozen", "finetuned"], "Of each row: these, or ablations.")
_STEPS = flags.DEFINE_integer("steps", 300, "Of each training.")
_PRETRAINING = flags.DEFINE_integer("pretraining", 1500, "Steps on synthetic volumes.")
_QUICK = flags.DEFINE_bool("quick", False, "Small synthetic volumes, two steps: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

_TOY = ("--config.model.encoder.size=toy", "--config.model.encoder.upsample=2", "--config.model.projected=16")
ARMS: dict[str, tuple[str, ...]] = {  # overrides; {encoder} is the folder of the pre-trained one
    "unet": (),
    "random": (*_TOY, "--config.model.encoder.weights=random"),
    "frozen": (*_TOY, "--config.model.encoder.weights={encoder}"),
    "finetuned": (
        *_TOY,
        "--config.model.encoder.weights={encoder}",
        "--config.model.encoder.frozen=False",
        "--config.optim.encoder_lr=2e-4",
    ),
}
ARMS |= {
    name: (*ARMS["frozen"], f"--config.model.{change}")
    for name, change in {
        "guidance_none": "guidance=none",
        "guidance_concat": "guidance=concat",
        "guidance_one_gate": "guidance=one_gate",
        "no_coarse": "coarse=False",
        "no_z_context": "z_context=none",
        "no_feature_norm": "feature_norm=False",
    }.items()
}
_COMMON = (
    "--config.model.channels=8,16,32",
    "--config.data.patch=48,48,48",
    "--config.data.selection.by_label=True",
    "--config.data.selection.labelled=0.001",
    "--config.checkpoint.every=200",
)
_NAME, _PRETRAINED = "transfer-cpu", "pretraining"
_TRAINED = 125  # sections that may be learned from
_VOLUMES, _SIDE = 8, 96  # of other tissue, isotropic


def main(_: list[str]) -> None:
    runs = Path(_RUNS.value).absolute()
    data = by_commands.draw_fib25(runs) if _QUICK.value else str(Path(_DATA.value).absolute())
    if not _QUICK.value:
        held_out.read_fib25(data)
    encoder = pretrain(runs)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(_SEEDS.value):
        for labelled in map(int, _LABELLED.value):
            mask = _mask(runs, data, labelled)
            for arm in _ARMS.value:
                name = f"{labelled} sections, {arm}"
                run = runs / f"{labelled}-{arm}-{seed}"
                overrides = [text.format(encoder=encoder) for text in (*_common(), *ARMS[arm])]
                overrides += [f"--config.seed={seed}", f"--config.data.train[0].mask={mask}"]
                scored = by_commands.train_and_evaluate(run, FIB25, overrides, data=data, methods=["waterz_mean"])
                (row,) = scored.values()
                found.setdefault(name, []).append({"seed": seed, **row})
                print(f"{name}, seed {seed}: {by_commands.tell(row)}", flush=True)
    rows = {}
    for name, seeds in found.items():
        print(f"\n{name}")
        rows[name] = held_out.all_seeds(seeds)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "flax", "jax", "numpy", "optax", "waterz"),
        "steps": _STEPS.value,
        "pretraining_steps": _PRETRAINING.value,
        "rows": rows,
    }
    print(f"Results: {measure.write(_NAME, results, _OUT.value)}")


def pretrain(runs: Path) -> Path:
    """Trains FGNet from scratch on other tissue, and keeps its image encoder."""
    folder, run = runs / "encoder", runs / _PRETRAINED
    if folder.exists():
        return folder
    volumes = [_draw(runs / "tissue" / str(seed), seed) for seed in range(2 if _QUICK.value else _VOLUMES)]
    scratch = (
        "--config.model.encoder.frozen=False",
        "--config.optim.encoder_lr=1e-3",
        "--config.optim.layer_decay=1.0",
    )
    config = load_config(
        str(FIB25), [*_common(), *_TOY, *scratch, f"--config.optim.steps={_steps(_PRETRAINING.value)}"]
    )
    data = dataclasses.replace(config.data, train=tuple(volumes), validation=(), test=())
    config = dataclasses.replace(
        config, name="other tissue", standings="", data=data, validation=ValidationConfig(every=0)
    )
    path = runs / f"{_PRETRAINED}.json"
    write_whole(path, json.dumps(to_dict(config)))
    by_commands.run(run, "training", ["train.py", f"--config={path}", f"--workdir={run}"])
    params = {name: value for name, value in read_trained_params(run).items() if name.startswith(ENCODER)}
    kept = {name.removeprefix(ENCODER): value for name, value in params.items()}
    with writing_image_encoder(folder, kept, {"size": "toy"}):
        return folder


def _common() -> tuple[str, ...]:
    steps = f"--config.optim.steps={_steps(_STEPS.value)}"
    return (
        *_COMMON,
        steps,
        "--config.validation.every=0",
        *(by_commands.SMALL if _QUICK.value else ()),
    )


def _steps(wanted: int) -> int:
    return 2 if _QUICK.value else wanted


def _draw(folder: Path, seed: int) -> DeclaredVolume:
    if not folder.exists():
        write_synthetic(ion_beam_volume((_SIDE, _SIDE, _SIDE), seed, (10.0, 10.0, 10.0)), str(folder))
    return DeclaredVolume(name=f"tissue {seed}", raw=f"{folder}/raw.zarr", labels=f"{folder}/labels.zarr")


def _mask(runs: Path, data: str, labelled: int) -> str:
    """Writes where labels count: in so many sections amid those that may be learned from."""
    path = runs / f"{labelled}-sections.h5"
    if not path.exists():
        with h5py.File(Path(data) / "fib25_training2.h5") as file:
            labels: Any = file["labels"]
            mask = np.zeros(labels.shape, np.uint8)
        first = (_TRAINED - labelled) // 2 if not _QUICK.value else 0
        mask[first : first + labelled] = 1
        with h5py.File(path, "w") as file:
            file.create_dataset("mask", data=mask, compression="gzip")
    return f"{path}/mask"


if __name__ == "__main__":
    app.run(main)
