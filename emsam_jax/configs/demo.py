"""Small enough for two CPU cores and a few minutes: a synthetic volume, a toy encoder trained from nothing.

    make demo

or its two halves, after `python -m emsam_jax.demo --volumes_only`:

    python train.py --config=emsam_jax/configs/demo.py --workdir=runs/demo
    python eval.py --ckpt=runs/demo

Data: emsam_jax/volumes/synthetic.py, 40 x 8 x 8 nm, in the folder that EMSAM_DEMO names (runs/demo).
"""

import os

from emsam_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LogConfig,
    OptimConfig,
    PredictConfig,
    ValidationConfig,
)
from emsam_jax.data import Augmentation
from emsam_jax.model import EncoderConfig, ModelConfig
from emsam_jax.volumes import DeclaredVolume

FOLDER = os.environ.get("EMSAM_DEMO", "runs/demo")
SHAPES = {"train": (40, 320, 320), "validation": (16, 160, 160), "test": (20, 192, 192)}  # voxels z, y, x


def get_config() -> Config:
    # Minutes are too short for what makes a model robust: nothing is warped, lost or displaced.
    rare = ("rotate", "scale", "elastic", "slip", "jump", "cut_out")
    spoilt = ("missing_section", "missing_part", "blurred_section")
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
            augmentation=Augmentation(**dict.fromkeys(rare + spoilt, 0.0)),
        ),
        optim=OptimConfig(steps=280, batch=2, peak_lr=3e-3, encoder_lr=1e-3, layer_decay=1.0, warmup=40, ema=0.98),
        checkpoint=CheckpointConfig(every=140, keep=2),
        validation=ValidationConfig(every=280),
        log=LogConfig(every=20, pictures_every=140),
        predict=PredictConfig(block=(20, 192, 192)),
    )


def _declare(part: str) -> DeclaredVolume:
    folder = f"{FOLDER}/{part}"
    return DeclaredVolume(name=f"synthetic, {part}", raw=f"{folder}/raw.zarr", labels=f"{folder}/labels.zarr")
