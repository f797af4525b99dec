"""Settings of the model, kept in its checkpoints; every switch is an ablation that a test runs."""

import dataclasses
import math
from typing import Literal

from emsam_jax.errors import UserError

AttentionKernel = Literal["xla", "cudnn"]  # on accelerators; cudnn takes bfloat16 on NVIDIA cards only
STRIDE = 32  # of the deepest stage: the sides of an image are multiples of it
Offset = tuple[int, int, int]
SHORT_OFFSETS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
EncoderSize = Literal["none", "toy", "tiny", "small", "base_plus", "large"]
Guidance = Literal["attention", "one_gate", "uncertainty", "concat", "none"]
RANDOM = "random"  # in place of a folder of weights
ZContext = Literal["none", "3x1x1", "3x3x3"]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """SAM2's image encoder, which sees each section by itself."""

    size: EncoderSize = "none"  # none: the field's residual 3D U-Net; toy: a small Hiera for tests and the demo
    weights: str = ""  # folder that emsam convert wrote; empty: from scratch; random: so even where frozen
    frozen: bool = True  # neither differentiated nor optimised
    features: Literal["trunk", "fpn"] = "trunk"  # Hiera's four stages, or the three levels of SAM2's pyramid
    upsample: int = 1  # factor by which sections are enlarged before the encoder, 1 or 2
    drop_path: float = 0.0  # probability of leaving out the deepest block; grows linearly from 0
    remat: bool = False  # recompute the blocks in the backward pass: less memory, more time
    attention: AttentionKernel = "xla"  # cudnn: bfloat16 on NVIDIA cards only


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    projected: int = 64  # channels that the encoder's features are projected to
    feature_norm: bool = True  # LayerNorm of these features before that: Hiera's stages end without one
    z_context: ZContext = "3x1x1"  # convolution over sections after the projection: each section was seen alone
    coarse: bool = True  # the decoder that makes affinities from the encoder's features alone
    guidance: Guidance = "attention"  # how the features act on the fine encoder, at each of its levels
    channels: tuple[int, ...] = (32, 40, 48, 64, 80)  # channels of the fine encoder's levels, strides 1, 2, 4, ...
    isotropic: bool = False  # pool z as well, for isotropic voxels
    filters: bool = False  # fixed filters of raw at four scales beside the learned stem: less is left to learn
    norm_groups: int = 4  # groups of each group normalisation
    offsets: tuple[Offset, ...] = SHORT_OFFSETS  # offset of each affinity channel, voxels z, y, x
    dtype: Dtype = "float32"  # type of the computation; parameters and logits are float32
    remat: bool = False  # recompute the 3D levels in the backward pass: less memory, more time


def check_model(config: ModelConfig) -> None:
    """Raises UserError about the first field that is impossible."""
    groups = config.norm_groups
    uneven = [c for c in (*config.channels, config.projected) if c % groups]
    problems = {
        f"offsets: expected to begin with {SHORT_OFFSETS}, found {config.offsets}": config.offsets[:3] != SHORT_OFFSETS,
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
            raise UserError(f"model.{problem}.")


def check_weights(config: EncoderConfig) -> None:
    """Refuses a frozen encoder without weights in a training from scratch; `random` freezes noise on purpose."""
    if config.size != "none" and config.frozen and not config.weights:
        name = "tiny" if config.size == "toy" else config.size
        raise UserError(
            f"config.model.encoder.weights: expected the weights of the frozen encoder ({config.size}), found none. "
            f"Convert SAM2's by `emsam convert --download=sam2.1_hiera_{name} --out=weights/{name}` "
            "and name that folder; or choose config.model.encoder.size=none, the 3D U-Net without it; or "
            f"encoder.frozen=False, from scratch; or, for an ablation, encoder.weights={RANDOM}."
        )


def describe_encoder(config: EncoderConfig, init_from: str = "") -> str:
    """Describes the encoder, its parameters' origin and whether they are trained; `init_from` is a run or empty."""
    if config.size == "none":
        return "none"
    size = "toy Hiera" if config.size == "toy" else f"SAM2's Hiera {config.size}"
    converted = config.weights if config.weights != RANDOM else ""
    origin = f"parameters of {init_from}" if init_from else f"weights of {converted}" if converted else "random weights"
    trained = "fine-tuned" if init_from or converted else "trained from scratch"
    return f"{size}, {origin}, {'frozen' if config.frozen else trained}"


def multiples(config: ModelConfig) -> tuple[int, int, int]:
    """Returns what the sides z, y, x of a patch must be multiples of: the deepest level's stride, and the encoder's."""
    deepest = 2 ** (len(config.channels) - 1)
    plane = deepest if config.encoder.size == "none" else math.lcm(deepest, STRIDE // config.encoder.upsample)
    return deepest if config.isotropic else 1, plane, plane


def check_patch(config: ModelConfig, patch: tuple[int, ...], field: str = "The patch") -> None:
    """Raises UserError, naming the field, if the model cannot take a patch of these sides z, y, x."""
    needed = multiples(config)
    if any(side % n or not side for side, n in zip(patch, needed, strict=True)):
        below, above = (
            tuple(max(round_to(side / n), 1) * n for side, n in zip(patch, needed, strict=True))
            for round_to in (math.floor, math.ceil)
        )
        raise UserError(
            f"{field}: expected sides (z, y, x) that are multiples of {needed}, found {tuple(patch)}; "
            f"{below} and {above} are the nearest."
        )
