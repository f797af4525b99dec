"""AC3/AC4, mouse cortex, 30 x 6 x 6 nm: FGNet with SAM2's base+ encoder, first frozen, then fine-tuned.

    emsam train --config=ac34:frozen --workdir=runs/ac34-frozen
    emsam train --config=ac34:finetuned --workdir=runs/ac34-finetuned

Data: the densely labelled crops of Kasthuri et al., 2015 (SNEMI3D's tissue), as the field passes them on:
AC3_inputs.h5, AC3_labels.h5, AC4_inputs.h5, AC4_labels.h5, each with one dataset `main`, in the folder that EMSAM_DATA
names.
Encoder: emsam convert --download=sam2.1_hiera_base_plus --out=weights/sam2.1_hiera_b+
Protocol: AC4 sections 0-79 train, 80-99 choose; the first 100 of AC3 are reported. Result: not measured.
The paper of FGNet was at hand as its abstract only: the docstring of model/fgnet.py tells what is its and what ours.
"""

import os
from typing import Literal

from emsam_jax.config import Config, DataConfig, DeclaredVolume, EncoderConfig, ModelConfig

FOLDER = os.environ.get("EMSAM_DATA", "data")


def get_config(variant: Literal["frozen", "finetuned"] = "frozen") -> Config:
    frozen = variant == "frozen"
    encoder = EncoderConfig(
        size="base_plus", weights="weights/sam2.1_hiera_b+", frozen=frozen, drop_path=0.0 if frozen else 0.1
    )
    return Config(
        name=f"ac34-{variant}",
        standings="ac3ac4",
        init_from="" if frozen else "runs/ac34-frozen",
        model=ModelConfig(encoder=encoder, dtype="bfloat16"),
        data=volumes(),
    )


def volumes() -> DataConfig:
    return DataConfig(
        train=(_declare("AC4", "0:80,:,:"),),
        validation=(_declare("AC4", "80:100,:,:"),),
        test=(_declare("AC3", "0:100,:,:"),),
    )


def _declare(name: str, roi: str) -> DeclaredVolume:
    return DeclaredVolume(
        name=f"{name} {roi.split(',', maxsplit=1)[0]}",
        raw=f"{FOLDER}/{name}_inputs.h5/main",
        labels=f"{FOLDER}/{name}_labels.h5/main",
        raw_voxel_size_zyx=(30, 6, 6),
        roi=roi,
    )
