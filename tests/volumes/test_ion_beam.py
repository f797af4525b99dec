"""Synthetic tissue as a focused ion beam shows it: near the real one in what raw tells, and never twice the same."""

import bioimage_cpp
import numpy as np
import pytest

from emsam_jax.volumes.synthetic.appearance import draw_settings
from emsam_jax.volumes.synthetic.ion_beam import ion_beam_volume
from emsam_jax.volumes.synthetic.likeness import measure_raw

SHAPE = (48, 112, 112)
# Raw of FIB-25, sections 0-124, has what stands in the middle; the others are what parts of it and gala's volume spread
# over, widened a little. `python -m emsam_jax.volumes.synthetic --measure=fib25_training2.h5/raw --roi=0:125,:,:`
MEASURED = {
    "deviation": (0.20, 0.250, 0.29),
    "percentile_25": (0.20, 0.261, 0.40),
    "percentile_75": (0.55, 0.664, 0.80),
    "noise_yx": (0.024, 0.028, 0.050),
    "noise_zy": (0.028, 0.035, 0.050),
    "correlation_z1": (0.88, 0.939, 0.97),
    "correlation_z2": (0.70, 0.862, 0.93),
    "correlation_x1": (0.87, 0.960, 0.97),
    "correlation_x5": (0.30, 0.672, 0.76),
    "left_at_2": (0.65, 0.844, 0.90),
    "left_at_8": (0.32, 0.538, 0.66),
    "dark_run": (6.0, 9.50, 11.0),
    "pale_run": (12.0, 17.22, 20.0),
}


@pytest.fixture(scope="module")
def drawn():
    return [ion_beam_volume(SHAPE, seed) for seed in range(5)]


def test_raw_is_near_fib25s(drawn):
    found = [measure_raw(volume.raw) for volume in drawn]
    for name, (low, _, high) in MEASURED.items():
        assert low < np.median([one[name] for one in found]) < high, name


def test_labels_are_whole_objects_of_every_voxel(drawn):
    for volume in drawn[:2]:
        ids = np.unique(volume.labels)
        np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
        assert bioimage_cpp.segmentation.label(volume.labels, connectivity=1).max() == len(ids) >= 3


def test_the_seed_decides_tissue_and_appearance(drawn):
    again = ion_beam_volume(SHAPE, 0)
    np.testing.assert_array_equal(drawn[0].raw, again.raw)
    np.testing.assert_array_equal(drawn[0].labels, again.labels)
    assert len({draw_settings(seed) for seed in range(5)}) == 5
    means = [volume.raw.mean() for volume in drawn]
    assert max(means) - min(means) > 20


def test_noise_and_neighbours_are_measured_as_they_were_made():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 40, 40)).astype(np.float32)
    plane = np.linspace(0, 100, 40, dtype=np.float32)[:, None, None] + 0 * noise
    span = 100 * 0.99  # between percentiles 0.5 and 99.5
    assert measure_raw(plane + noise)["noise_yx"] == pytest.approx(1 / span, rel=0.05)
    mixed = noise[:-1] + noise[1:]
    found = measure_raw(mixed)
    assert found["correlation_z1"] == pytest.approx(0.5, abs=0.02)
    assert found["correlation_y1"] == pytest.approx(0, abs=0.02)
