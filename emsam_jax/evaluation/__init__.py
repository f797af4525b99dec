"""The body of `emsam eval`: predict, choose a recipe, segment, score, report.

Importing it, and choosing a recipe, needs no jax.
"""

from emsam_jax.evaluation.compared import BASELINE, METHODS, fragments_to_try
from emsam_jax.evaluation.evaluate import evaluate
from emsam_jax.evaluation.recipes import best_method, choose_recipes
from emsam_jax.evaluation.sources import EvaluationRequest
from emsam_jax.evaluation.subject import Example, Subject, read_subject

__all__ = [
    "BASELINE",
    "METHODS",
    "EvaluationRequest",
    "Example",
    "Subject",
    "best_method",
    "choose_recipes",
    "evaluate",
    "fragments_to_try",
    "read_subject",
]
