"""From a model and a volume to affinities: windows, blending, blocks, calibration."""

from emsam_jax.inference.as_trained import check_voxel_size, declare_as_trained, intensity_as_trained
from emsam_jax.inference.calibrated import Calibrated, calibrate, without_prior
from emsam_jax.inference.fitting import free_bytes
from emsam_jax.inference.model_folder import FORMAT, MODEL_FILES
from emsam_jax.inference.on_target import PredictionBound, bound_prediction
from emsam_jax.inference.output import Output
from emsam_jax.inference.predict import predict_affinities
from emsam_jax.inference.predictor import Predictor
from emsam_jax.inference.reliability import ODDS, Counts, count_affinities, describe_reliability, find_shift
from emsam_jax.inference.settings import Prediction, settings_from
from emsam_jax.inference.trained import (
    CALIBRATION_FILE,
    CHECKPOINTS,
    EMA,
    ENCODER_FOLDER,
    FACTS,
    OPTIMIZER,
    PARAMS,
    RECIPE_FILE,
    Measured,
    Trained,
    check_item,
    checksum_of_facts,
    checksums,
    finished_steps,
    load_trained,
    measured_from,
    read_encoder,
    read_step_facts,
    read_trained_params,
    validation_score,
)

__all__ = [
    "CALIBRATION_FILE",
    "CHECKPOINTS",
    "EMA",
    "ENCODER_FOLDER",
    "FACTS",
    "FORMAT",
    "MODEL_FILES",
    "ODDS",
    "OPTIMIZER",
    "PARAMS",
    "RECIPE_FILE",
    "Calibrated",
    "Counts",
    "Measured",
    "Output",
    "Prediction",
    "PredictionBound",
    "Predictor",
    "Trained",
    "bound_prediction",
    "calibrate",
    "check_item",
    "check_voxel_size",
    "checksum_of_facts",
    "checksums",
    "count_affinities",
    "declare_as_trained",
    "describe_reliability",
    "find_shift",
    "finished_steps",
    "free_bytes",
    "intensity_as_trained",
    "load_trained",
    "measured_from",
    "predict_affinities",
    "read_encoder",
    "read_step_facts",
    "read_trained_params",
    "settings_from",
    "validation_score",
    "without_prior",
]
