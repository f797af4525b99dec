"""The model: SAM2's image encoder, and what stands on it."""

from emsam_jax.model.compile import jit
from emsam_jax.model.image_encoder import SIZES, EncoderError, Features, ImageEncoder, load_image_encoder

__all__ = ["SIZES", "EncoderError", "Features", "ImageEncoder", "jit", "load_image_encoder"]
