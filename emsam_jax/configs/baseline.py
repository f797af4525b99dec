"""The field's residual 3D U-Net ("Superhuman"), without SAM2, on AC3/AC4: what FGNet is compared with.

    emsam train --config=baseline --workdir=runs/baseline
    emsam train --config=baseline:literature --workdir=runs/baseline-literature
    emsam train --config=baseline:tpu --workdir=runs/baseline-tpu

`literature` learns at the constant 1e-4 that is usual with this network. `tpu` folds 2 x 2 pixels into channels and has
wider levels instead of the first: 1.4 times the operations, in tiles of 128 lanes. Protocol: see ac34.py.
Data: see ac34.py.
Result: not measured.
"""

import dataclasses
from typing import Literal

from emsam_jax.config import Config, EncoderConfig, ModelConfig, OptimConfig
from emsam_jax.configs.ac34 import volumes

TPU = {"fold": 2, "channels": (64, 96, 128, 128)}


def get_config(variant: Literal["ours", "literature", "tpu"] = "ours") -> Config:
    usual = OptimConfig(peak_lr=1e-4, final_lr=1.0, weight_decay=0.0)
    return Config(
        name=f"baseline-{variant}",
        standings="ac3ac4",
        model=dataclasses.replace(
            ModelConfig(encoder=EncoderConfig(size="none"), channels=(28, 36, 48, 64, 80), dtype="bfloat16"),
            **(TPU if variant == "tpu" else {}),
        ),
        data=dataclasses.replace(volumes(), patch=(18, 160, 160)),
        optim=usual if variant == "literature" else OptimConfig(),
    )
