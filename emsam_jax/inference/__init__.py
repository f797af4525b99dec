"""From a model and a volume to affinities."""

from emsam_jax.inference.errors import PredictionError
from emsam_jax.inference.predict import predict_affinities
from emsam_jax.inference.predictor import Predictor
from emsam_jax.inference.settings import Prediction, settings_from

__all__ = ["Prediction", "PredictionError", "Predictor", "predict_affinities", "settings_from"]
