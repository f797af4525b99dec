"""Small enough for two CPU cores and a few minutes: a synthetic volume, a toy encoder trained from scratch.

    make demo

or its two halves, after `emsam demo --volumes_only`:

    emsam train --config=demo --workdir=runs/demo
    emsam eval --ckpt=runs/demo

Data: emsam_jax/volumes/synthetic/__main__.py, 20 x 8 x 8 nm, in the folder that EMSAM_DEMO names (runs/demo).
Result: VOI 0.56 to 0.79 on the test volume, by machine and seed; smoothed intensity 2.06 to 2.30 at its best threshold,
the lower the finer the thresholds lie (two CPU cores, about 5 minutes).
"""

import dataclasses
import os

from emsam_jax.config import (
    NOTHING,
    CheckpointConfig,
    Config,
    DataConfig,
    DeclaredVolume,
    EncoderConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    PredictConfig,
    ValidationConfig,
)

FOLDER = os.environ.get("EMSAM_DEMO", "runs/demo")
SHAPES = {"train": (48, 400, 400), "validation": (32, 256, 256), "test": (32, 224, 224)}  # voxels z, y, x
VOXEL_SIZE_ZYX = (20.0, 8.0, 8.0)  # nm
NOISE = 0.06  # standard deviation at middle grey; the synthetic volumes' own is 0.1


def get_config() -> Config:
    # Minutes are too short for what makes a model robust: patches are turned and mirrored, and nothing else.
    augmentation = dataclasses.replace(NOTHING, symmetries=True)
    return Config(
        name="demo",
        model=ModelConfig(
            encoder=EncoderConfig(size="toy", frozen=False), projected=16, channels=(8, 16, 24), norm_groups=4
        ),
        data=DataConfig(
            train=(_declare("train"),),
            validation=(_declare("validation"),),
            test=(_declare("test"),),
            patch=(8, 96, 96),
            augmentation=augmentation,
        ),
        optim=OptimConfig(steps=600, batch=1, peak_lr=3e-3, encoder_lr=1e-3, layer_decay=1.0, warmup=50, ema=0.985),
        checkpoint=CheckpointConfig(every=270, keep=2),
        validation=ValidationConfig(every=600),
        log=LogConfig(every=25, pictures_every=270),
        predict=PredictConfig(stride=(0.5, 0.67, 0.67), block=(32, 256, 256)),
    )


def _declare(part: str) -> DeclaredVolume:
    folder = f"{FOLDER}/{part}"
    return DeclaredVolume(name=f"synthetic, {part}", raw=f"{folder}/raw.zarr", labels=f"{folder}/labels.zarr")
