"""Predict, segment, sweep, score, report. Importing it, and choosing a recipe, needs no jax."""

from emsam_jax.evaluation.evaluate import evaluate
from emsam_jax.evaluation.request import Request

__all__ = ["Request", "evaluate"]
