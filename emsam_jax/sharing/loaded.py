"""A trained model for Python: numpy arrays in, affinities and labels out, nothing on disk."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Float32, UInt64
from tqdm import tqdm

from emsam_jax.blocks import plan_blocks
from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.inference import Predictor, Trained, check_voxel_size, intensity_as_trained, load_trained, settings_from
from emsam_jax.segmentation import Recipe
from emsam_jax.storage import check_memory, usable_cores
from emsam_jax.volumes import Specimen, Volume

_QUIET = 5.0  # seconds before a progress bar is shown
_ARRAY = "The array"


def load(path: str | Path, **predict: Any) -> "LoadedModel":
    """Loads a model: a run's folder, a checkpoint's, one that was pushed, or hf:OWNER/NAME@REVISION.

    `predict` replaces fields of `config.predict`, such as symmetries=16.
    """
    return LoadedModel(load_trained(path, [f"{name}={value}" for name, value in predict.items()]))


class LoadedModel:
    """Predicts and segments arrays [z, y, x] of any size that fits into memory."""

    def __init__(self, trained: Trained):
        self._trained = trained
        self.config = trained.config
        self.voxel_size_zyx = trained.measured.voxel_size_zyx  # nm, of the training volumes
        self.offsets = trained.config.model.offsets  # voxels z, y, x, of each channel of affinities
        self.recipe = Recipe.read(trained.recipe) if trained.recipe else Recipe()  # from affinities to labels

    def __repr__(self) -> str:
        size = " x ".join(f"{side:g}" for side in self.voxel_size_zyx)
        return f"<{self._trained.name}, step {self._trained.step}: {len(self.offsets)} affinities of {size} nm voxels>"

    def predict(
        self, array: np.ndarray, *, voxel_size: Sequence[int | float] | None = None, progress: bool = True
    ) -> Float32[np.ndarray, "c z y x"]:
        """Predicts affinities in [0, 1]: channel i joins a voxel and the one at `offsets[i]` from it.

        Grey values are scaled as the training volumes' were. `voxel_size` (z, y, x, nm) is compared with theirs. Arrays
        are mirrored at their faces, where windows reach beyond them.
        """
        specimen = self._open(np.asarray(array), voxel_size)
        settings = dataclasses.replace(settings_from(self.config), dtype="float32", coarse=False)
        box = specimen.raw.box
        plan = plan_blocks(box, box, self.config.predict.block, (1, 1, 1))
        shape = (len(self.offsets), *box.shape)
        check_memory(4 * int(np.prod(shape)), "Predicting this array", "predict parts of it, or call emsam segment")
        predictor = Predictor(self._trained.model, settings, plan)
        affinities = np.empty(shape, np.float32)
        with tqdm(
            desc="predict", total=box.voxels, unit="voxel", unit_scale=True, delay=_QUIET, disable=not progress
        ) as bar:
            predictor.advance = bar.update
            for block in plan:
                affinities[(slice(None), *block.box.slices)] = predictor.predict_block(specimen, block.box)
        return affinities

    def segment(
        self,
        array: np.ndarray,
        *,
        threshold: float | None = None,
        voxel_size: Sequence[int | float] | None = None,
        threads: int = 0,
        progress: bool = True,
    ) -> UInt64[np.ndarray, "z y x"]:
        """Segments the array into neurons 1..n, 0 being background, by the recipe; `threshold` overrides the recipe's.

        To try several thresholds, predict once and call `recipe.segment` or `recipe.segmentations` on the affinities.
        """
        affinities = self.predict(array, voxel_size=voxel_size, progress=progress)
        recipe = self.recipe if threshold is None else dataclasses.replace(self.recipe, threshold=threshold)
        return recipe.segment(affinities, offsets=self.offsets, threads=threads or usable_cores())

    def _open(self, array: np.ndarray, voxel_size: Sequence[int | float] | None) -> Specimen:
        if array.ndim != 3 or not array.size or array.dtype.kind not in "uif":
            raise UserError(
                f"{_ARRAY}: expected grey values [z, y, x], found the shape {array.shape} and the type {array.dtype}."
            )
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        size = self.voxel_size_zyx if voxel_size is None else tuple(map(float, voxel_size))
        if len(size) != 3:
            raise UserError(f"voxel_size: expected three numbers (z, y, x, in nm), found {size}.")
        raw = Volume(ts.array(native), _ARRAY, voxel_size_zyx=size)
        check_voxel_size(raw, self._trained)
        intensity = intensity_as_trained(DeclaredVolume(), self.config.data.train, self._trained.measured)
        return Specimen(raw, intensity=intensity)
