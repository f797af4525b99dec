"""What a model is made of. A checkpoint keeps it; every switch is an ablation that a test holds."""

import dataclasses
from typing import Literal

from emsam_jax.model.attention import AttentionKernel
from emsam_jax.model.image_encoder import EncoderError

Offset = tuple[int, int, int]
NEIGHBOURS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
EncoderSize = Literal["none", "toy", "tiny", "small", "base_plus", "large"]
Guidance = Literal["attention", "one_gate", "uncertainty", "concat", "none"]
ZContext = Literal["none", "3x1x1", "3x3x3"]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """SAM2's image encoder, which sees each section by itself."""

    size: EncoderSize = "base_plus"  # none: the field's residual 3D U-Net; toy: a small Hiera for tests and the demo
    weights: str = ""  # folder that convert/sam2_to_flax.py wrote; empty: random
    frozen: bool = True  # neither differentiated nor optimised
    features: Literal["trunk", "fpn"] = "trunk"  # Hiera's four stages, or the three levels of SAM2's pyramid
    upsample: int = 1  # sections are enlarged so many times (1 or 2) before the encoder
    drop_path: float = 0.0  # probability of leaving out the deepest block; grows linearly from 0
    remat: bool = False  # recompute the blocks in the backward pass: less memory, more time
    attention: AttentionKernel = "xla"  # cudnn: bfloat16 on NVIDIA cards only


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    projected: int = 64  # channels that the encoder's features are projected to
    z_context: ZContext = "3x1x1"  # convolution over sections after the projection: each section was seen alone
    coarse: bool = True  # the decoder that makes affinities from the encoder's features alone
    guidance: Guidance = "attention"  # how the features act on the fine encoder, at each of its levels
    channels: tuple[int, ...] = (32, 40, 48, 64, 80)  # of the fine encoder's levels, strides 1, 2, 4, ...
    isotropic: bool = False  # pool z as well, for isotropic voxels
    norm_groups: int = 4  # of each group normalisation
    offsets: tuple[Offset, ...] = NEIGHBOURS  # voxels; of each affinity channel
    dtype: Dtype = "float32"  # computed in; parameters and logits are float32
    remat: bool = False  # recompute the 3D levels in the backward pass: less memory, more time


def check_model(config: ModelConfig) -> None:
    """One sentence about the first field that cannot be."""
    groups = config.norm_groups
    uneven = [c for c in (*config.channels, config.projected) if c % groups]
    problems = {
        f"offsets: expected to begin with {NEIGHBOURS}, found {config.offsets}": config.offsets[:3] != NEIGHBOURS,
        f"encoder.upsample: expected 1 or 2, found {config.encoder.upsample}": config.encoder.upsample not in (1, 2),
        f"norm_groups: expected a divisor of every number of channels, found {groups} for {uneven}": bool(uneven),
        "guidance: 'uncertainty' is that of the coarse map; set model.coarse=True": (
            config.guidance == "uncertainty" and not config.coarse
        ),
        "encoder.attention: cudnn computes in bfloat16; set model.dtype=bfloat16": (
            config.encoder.attention == "cudnn" and config.dtype != "bfloat16"
        ),
    }
    for problem, found in problems.items():
        if found:
            raise EncoderError(f"model.{problem}.")
