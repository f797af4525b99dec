"""FGNet: SAM2's image encoder, the fine encoder that it guides, and both affinity decoders."""

from emsam_jax.model.compile import jit, jit_once, program_bytes
from emsam_jax.model.encoder_checkpoint import (
    FlatParams,
    Params,
    abstract_encoder,
    content_hash,
    flat_state,
    load_image_encoder,
    read_arrays,
    read_facts,
    read_params,
    stored_arrays,
    writing_image_encoder,
)
from emsam_jax.model.fgnet import (
    ENCODER,
    ORIGIN,
    FGNet,
    Maps,
    abstract_fgnet,
    merge_fgnet,
    pretrained_encoder,
    split_fgnet,
)
from emsam_jax.model.image_encoder import FACTS_FILE, SIZES, ImageEncoder
from emsam_jax.model.layers import max_pool
from emsam_jax.model.padding import warn_of_padding

__all__ = [
    "ENCODER",
    "FACTS_FILE",
    "ORIGIN",
    "SIZES",
    "FGNet",
    "FlatParams",
    "ImageEncoder",
    "Maps",
    "Params",
    "abstract_encoder",
    "abstract_fgnet",
    "content_hash",
    "flat_state",
    "jit",
    "jit_once",
    "load_image_encoder",
    "max_pool",
    "merge_fgnet",
    "pretrained_encoder",
    "program_bytes",
    "read_arrays",
    "read_facts",
    "read_params",
    "split_fgnet",
    "stored_arrays",
    "warn_of_padding",
    "writing_image_encoder",
]
