"""The field's residual 3D U-Net ("Superhuman"), without SAM2, on AC3/AC4: what FGNet is compared with.

    emsam train --config=baseline --workdir=runs/baseline
    emsam train --config=baseline:literature --workdir=runs/baseline-literature

`literature` learns at the constant 1e-4 that is usual with this network. Protocol: see ac34.py.
Data: see ac34.py.
Result: not measured.
"""

import dataclasses
from typing import Literal

from emsam_jax.config import Config, EncoderConfig, ModelConfig, OptimConfig
from emsam_jax.configs.ac34 import volumes


def get_config(variant: Literal["ours", "literature"] = "ours") -> Config:
    usual = OptimConfig(peak_lr=1e-4, final_lr=1.0, weight_decay=0.0)
    return Config(
        name=f"baseline-{variant}",
        standings="ac3ac4",
        model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(28, 36, 48, 64, 80), dtype="bfloat16"),
        data=dataclasses.replace(volumes(), patch=(18, 160, 160)),
        optim=usual if variant == "literature" else OptimConfig(),
    )
