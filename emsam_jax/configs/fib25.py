"""FIB-25, fly medulla, isotropic 10 nm: the plain 3D U-Net, and FGNet with SAM2's base+ encoder, frozen or fine-tuned.

    python train.py --config=emsam_jax/configs/fib25.py --workdir=runs/fib25
    python train.py --config=emsam_jax/configs/fib25.py:frozen --workdir=runs/fib25-frozen
    python train.py --config=emsam_jax/configs/fib25.py:finetuned --workdir=runs/fib25-finetuned

Affinities 9 and 27 voxels away are learned beside those to neighbours, to help these; waterz takes only these.
Data: fib25_training2.h5 (Janelia FlyEM, NeuroProof's examples; `raw` and `labels`) in the folder that EMSAM_DATA names.
Encoder: python convert/sam2_to_flax.py --download=sam2.1_hiera_base_plus --out=weights/sam2.1_hiera_b+
Protocol: sections 0-124 train, 125-149 choose, 150-249 are reported. Result: not measured.
The paper of FGNet was at hand as its abstract only: the docstring of model/fgnet.py tells what is its and what ours.
"""

import os
from typing import Literal

from emsam_jax.config import (
    SHORT_OFFSETS,
    Augmentation,
    Config,
    DataConfig,
    DeclaredVolume,
    EncoderConfig,
    ModelConfig,
    Offset,
    ValidationConfig,
)

FILE = f"{os.environ.get('EMSAM_DATA', 'data')}/fib25_training2.h5"
LONG: tuple[Offset, ...] = tuple(
    (-d * z, -d * y, -d * x) for d in (9, 27) for z, y, x in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
)


def get_config(variant: Literal["unet", "frozen", "finetuned"] = "unet") -> Config:
    plain = variant == "unet"
    seen = EncoderConfig(
        size="base_plus",
        weights="weights/sam2.1_hiera_b+",
        frozen=variant == "frozen",
        upsample=2,
        drop_path=0.1 if variant == "finetuned" else 0.0,
    )
    return Config(
        name=f"fib25-{variant}",
        standings="fib25",
        init_from="runs/fib25-frozen" if variant == "finetuned" else "",
        model=ModelConfig(
            encoder=EncoderConfig(size="none") if plain else seen,
            isotropic=True,
            offsets=(*SHORT_OFFSETS, *LONG),
            dtype="bfloat16",
        ),
        data=DataConfig(
            train=(_declare("0:125,:,:"),),
            validation=(_declare("125:150,:,:"),),
            test=(_declare("150:250,:,:"),),
            # A cube suits the 48 symmetries; 112 pixels, seen as 224, fill SAM2's windows.
            patch=(80, 80, 80) if plain else (48, 112, 112),
            # Perfect affinities of such borders score VOI 0.32 here, those of 3 x 3 x 3 windows 1.20.
            widening="faces",
            augmentation=Augmentation().without_section_defects(),
        ),
        validation=ValidationConfig(fragments="3d"),
    )


def _declare(roi: str) -> DeclaredVolume:
    return DeclaredVolume(
        name=f"FIB-25 {roi.split(',', maxsplit=1)[0]}",
        raw=f"{FILE}/raw",
        labels=f"{FILE}/labels",
        raw_voxel_size_zyx=(10, 10, 10),
        roi=roi,
    )
