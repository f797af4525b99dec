"""The model: SAM2's image encoder, and what stands on it."""

from emsam_jax.model.compile import jit, jit_once
from emsam_jax.model.config import EncoderConfig, ModelConfig
from emsam_jax.model.fgnet import FGNet, Maps, abstract_fgnet, build_fgnet, merge_fgnet, pretrained_encoder, split_fgnet
from emsam_jax.model.image_encoder import SIZES, EncoderError, Features, ImageEncoder, load_image_encoder

__all__ = [
    "SIZES",
    "EncoderConfig",
    "EncoderError",
    "FGNet",
    "Features",
    "ImageEncoder",
    "Maps",
    "ModelConfig",
    "abstract_fgnet",
    "build_fgnet",
    "jit",
    "jit_once",
    "load_image_encoder",
    "merge_fgnet",
    "pretrained_encoder",
    "split_fgnet",
]
