"""The intensity baseline: its score on real data; and synthetic volumes, hard for it but not for the truth."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
from bioimage_cpp.filters import gaussian_smoothing

from emsam_jax.data import affinities_from_labels, widen_borders
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import (
    FragmentParameters,
    baseline_recipe,
    ideal_affinities,
    intensity_affinities,
    segmentations,
)
from emsam_jax.volumes.synthetic import synthetic_volume

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def segment_intensity(raw: np.ndarray, isotropic: bool) -> Iterator[np.ndarray]:
    recipe = baseline_recipe(isotropic=isotropic)
    affinities = intensity_affinities(raw, isotropic=isotropic)
    return recipe.segmentations(affinities, THRESHOLDS, threads=2)


def best_voi(segmented, truth) -> float:
    return min(score_segmentation(labels, truth)["voi"] for labels in segmented)


def smooth_truth(labels: np.ndarray, isotropic: bool) -> np.ndarray:
    """Affinities as training makes them: borders widened by a voxel, then blurred, both within the section where
    sections are thick.
    """
    if isotropic:
        return ideal_affinities(labels)
    affinities, valid = affinities_from_labels(widen_borders(jnp.asarray(labels.astype(np.int32)), "2d"))
    known = np.where(valid, affinities, 1).astype(np.float32)
    return np.stack([[gaussian_smoothing(section, 0.7) for section in channel] for channel in known]).clip(0, 1)


@pytest.mark.slow
def test_voi_on_fib25(read_fib25):
    segmented = segment_intensity(read_fib25("raw"), isotropic=True)
    assert best_voi(segmented, read_fib25("labels")) == pytest.approx(2.29, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "voxel_size"),
    [
        ((20, 256, 256), (40.0, 8.0, 8.0)),
        pytest.param((128, 128, 128), (10.0, 10.0, 10.0), marks=pytest.mark.slow),
    ],
)
def test_synthetic_volumes_are_hard_for_intensity_and_easy_for_truth(shape, voxel_size):
    volume = synthetic_volume(shape, 0, voxel_size)
    isotropic = len(set(voxel_size)) == 1
    assert best_voi(segment_intensity(volume.raw, isotropic=isotropic), volume.labels) > 1.5

    fragments = FragmentParameters(kind="3d" if isotropic else "2d", seed_distance=4)
    segmented = segmentations(
        smooth_truth(volume.labels, isotropic), THRESHOLDS, fragments=fragments, scorer="q50_max", threads=2
    )
    assert best_voi(segmented, volume.labels) < 0.3
