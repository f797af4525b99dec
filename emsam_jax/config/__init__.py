"""An experiment: typed settings, read from files and command lines, checked by limits.

Imports nothing but numpy.
"""

from emsam_jax.config.augmentation import NOTHING, Augmentation, Selection, Voxels, Widening
from emsam_jax.config.declared import DeclaredVolume, Intensity, LabelRules
from emsam_jax.config.experiment import (
    CheckpointConfig,
    Config,
    DataConfig,
    LogConfig,
    LossConfig,
    OptimConfig,
    PredictConfig,
    ValidationConfig,
)
from emsam_jax.config.loading import differences, from_dict, load_config, override, to_dict
from emsam_jax.config.model import (
    RANDOM,
    SHORT_OFFSETS,
    STRIDE,
    AttentionKernel,
    EncoderConfig,
    Guidance,
    ModelConfig,
    Offset,
    check_model,
    check_patch,
    check_weights,
    describe_encoder,
    multiples,
)

__all__ = [
    "NOTHING",
    "RANDOM",
    "SHORT_OFFSETS",
    "STRIDE",
    "AttentionKernel",
    "Augmentation",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "DeclaredVolume",
    "EncoderConfig",
    "Guidance",
    "Intensity",
    "LabelRules",
    "LogConfig",
    "LossConfig",
    "ModelConfig",
    "Offset",
    "OptimConfig",
    "PredictConfig",
    "Selection",
    "ValidationConfig",
    "Voxels",
    "Widening",
    "check_model",
    "check_patch",
    "check_weights",
    "describe_encoder",
    "differences",
    "from_dict",
    "load_config",
    "multiples",
    "override",
    "to_dict",
]
