"""CREMI, fly brain, 40 x 4 x 4 nm, each sample by itself: FGNet with SAM2's base+ encoder, frozen, then fine-tuned.

    emsam train --config=cremi:frozen --workdir=runs/cremi-A-frozen
    emsam train --config=cremi:finetuned --workdir=runs/cremi-A-finetuned
    CREMI_SAMPLE=B emsam train --config=cremi:frozen --workdir=runs/cremi-B-frozen
    CREMI_SAMPLE=B emsam train --config=cremi:finetuned --workdir=runs/cremi-B-finetuned

and likewise for C. Data: https://cremi.org/data, sample_A_20160501.hdf and the like, in the folder that EMSAM_DATA
names.
Encoder: emsam convert --download=sam2.1_hiera_base_plus --out=weights/sam2.1_hiera_b+
Protocol: sections 0-84 train, 85-99 choose, 100-124 are reported. Result: not measured.
The paper of FGNet was at hand as its abstract only: the docstring of model/fgnet.py tells what is its and what ours.
"""

import os
from typing import Literal

from emsam_jax.config import Config, DataConfig, DeclaredVolume, EncoderConfig, ModelConfig

FOLDER = os.environ.get("EMSAM_DATA", "data")
SAMPLE = os.environ.get("CREMI_SAMPLE", "A")


def get_config(variant: Literal["frozen", "finetuned"] = "frozen") -> Config:
    frozen = variant == "frozen"
    encoder = EncoderConfig(
        size="base_plus", weights="weights/sam2.1_hiera_b+", frozen=frozen, drop_path=0.0 if frozen else 0.1
    )
    return Config(
        name=f"cremi-{SAMPLE}-{variant}",
        init_from="" if frozen else f"runs/cremi-{SAMPLE}-frozen",
        model=ModelConfig(encoder=encoder, dtype="bfloat16"),
        data=DataConfig(
            train=(_declare("0:85,:,:"),),
            validation=(_declare("85:100,:,:"),),
            test=(_declare("100:125,:,:"),),
        ),
    )


def _declare(roi: str) -> DeclaredVolume:
    file = f"{FOLDER}/sample_{SAMPLE}_20160501.hdf/volumes"
    return DeclaredVolume(
        name=f"CREMI {SAMPLE} {roi.split(',', maxsplit=1)[0]}",
        raw=f"{file}/raw",
        labels=f"{file}/labels/neuron_ids",
        roi=roi,
    )
