"""Does the half of validation that needs no accelerator, in a process of its own: waterz lets no other thread run.

It imports no jax, and leaves its results in the job's folder.
"""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from emsam_jax.blocks import Plan
from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.evaluation import Example, Subject, best_method, choose_recipes, fragments_to_try, read_subject
from emsam_jax.segmentation import Recipe
from emsam_jax.storage import write_whole
from emsam_jax.view import colours_of
from emsam_jax.volumes import as_unit, open_declared

RESULT_FILE, RECIPE_FILE, PICTURE_FILE = "result.json", "recipe.json", "segmentation.npy"
FILES = r"volume\d+-[\d-]+\.npy|(result|recipe|calibration)\.json|segmentation\.npy"  # of a job


@dataclasses.dataclass(frozen=True)
class ScoringJob:
    """Affinities of blocks lie in `folder`, by the volume's number and the block's name."""

    folder: Path
    step: int
    volumes: tuple[DeclaredVolume, ...]
    plans: tuple[Plan, ...]
    scorers: tuple[str, ...]
    fragments: str

    def block_file(self, volume: int, block: str) -> Path:
        return self.folder / f"volume{volume}-{block}.npy"


def score(job: ScoringJob) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which ends this process when it stops
    try:
        scores = _score(job)
    except UserError as error:
        scores = {"error": str(error)}
    write_whole(job.folder / RESULT_FILE, json.dumps(scores))


def _score(job: ScoringJob) -> dict[str, Any]:
    subjects = [read_subject(open_declared(volume)) for volume in job.volumes]
    examples = [Example(subject, _assembled(job, number)) for number, subject in enumerate(subjects)]
    choices = choose_recipes(
        examples,
        [f"waterz_{scorer}" for scorer in job.scorers],
        fragments=fragments_to_try(job.fragments),
        step=job.step,
    )
    recipe, rows = choices[best_method(choices)]
    recipe.write(job.folder / RECIPE_FILE)
    np.save(job.folder / PICTURE_FILE, _picture(examples[0].subject, examples[0].affinities, recipe))
    (chosen,) = (row for row in rows if row["threshold"] == recipe.threshold)
    warning = {"warning": recipe.chosen["warning"]} if "warning" in recipe.chosen else {}
    return {**chosen, "smoothed_voi": recipe.chosen["score"], "scorer": recipe.scorer, **warning}


def _assembled(job: ScoringJob, number: int) -> Float[np.ndarray, "3 z y x"]:
    """The short channels, which are all that waterz takes."""
    plan = job.plans[number]
    whole = np.zeros((3, *plan.region.shape), np.float32)
    for block in plan:
        values = as_unit(np.load(job.block_file(number, block.name))[:3])
        whole[(slice(None), *plan.output_box(block).slices)] = values
    return whole


def _picture(
    subject: Subject, affinities: Float[np.ndarray, "c z y x"], recipe: Recipe
) -> UInt8[np.ndarray, "y width 3"]:
    """Draws raw, segmentation and truth of the middle section, side by side."""
    middle = subject.box.shape[0] // 2
    labels = recipe.segment(affinities, mask=subject.mask)[middle]
    grey = (255 * subject.read_normalised()[middle]).astype(np.uint8)[..., None].repeat(3, -1)
    tinted = [
        np.where((ids > 0)[..., None], (grey * 0.5 + colours_of(ids) * 0.5).astype(np.uint8), grey)
        for ids in (labels, subject.truth[middle])
    ]
    return np.concatenate([grey, *tinted], axis=1)
