"""Synthetic volumes: exact labels, whole objects, dark membranes, and the same volume for the same seed."""

import subprocess
import sys

import bioimage_cpp
import matplotlib.image
import numpy as np
import pytest

from emsam_jax.volumes.synthetic import Stain, synthetic_volume
from emsam_jax.volumes.synthetic.tissue import depths

SHAPE, THICK, CUBIC = (8, 160, 160), (40.0, 8.0, 8.0), (10.0, 10.0, 10.0)


def test_the_seed_decides():
    one, again, other = (synthetic_volume(SHAPE, seed, THICK) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.raw, again.raw)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert (one.labels != other.labels).mean() > 0.5


@pytest.mark.parametrize(("shape", "voxel_size"), [(SHAPE, THICK), ((64, 64, 64), CUBIC)])
def test_every_voxel_is_labelled_and_every_object_in_one_piece(shape, voxel_size):
    labels = synthetic_volume(shape, 2, voxel_size).labels
    assert labels.shape == shape
    ids = np.unique(labels)
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    assert bioimage_cpp.segmentation.label(labels, connectivity=1).max() == len(ids) >= 3
    assert np.bincount(labels.ravel()).max() < 0.8 * labels.size


@pytest.mark.parametrize(("shape", "voxel_size"), [(SHAPE, THICK), ((64, 64, 64), CUBIC)])
def test_membranes_are_dark_and_fade_where_they_run_oblique(shape, voxel_size):
    volume = synthetic_volume(shape, 0, voxel_size)
    at_border = depths(volume.labels, voxel_size) < voxel_size[2]
    assert volume.raw[at_border].mean() < volume.raw[~at_border].mean() - 25
    if voxel_size == THICK:
        stays = np.ones(shape, bool)
        for shift in (-1, 1):
            stays &= np.roll(at_border, shift, 0)
        steep, oblique = (volume.raw[1:-1][(at_border & chosen)[1:-1]].mean() for chosen in (stays, ~stays))
        assert steep < oblique - 2


def test_defects_spoil_sections_and_leave_the_labels():
    clean, spoilt = (synthetic_volume((24, 64, 64), 0, THICK, stain=Stain(defects=share)) for share in (0.0, 0.3))
    np.testing.assert_array_equal(clean.labels, spoilt.labels)
    differs = (clean.raw != spoilt.raw).any((1, 2))
    assert 0 < differs.sum() < 20


def test_the_picture(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "emsam_jax.volumes.synthetic", f"--picture={tmp_path / 'em.png'}", "--shape=3,64,64"],
        check=True,
    )
    assert matplotlib.image.imread(tmp_path / "em.png").std() > 0.1
