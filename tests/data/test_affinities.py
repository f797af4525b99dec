"""Affinities against bioimage-cpp's and against answers drawn by hand."""

import bioimage_cpp
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.data import affinities_from_labels, widen_borders
from emsam_jax.errors import UserError
from emsam_jax.segmentation import ideal_affinities

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (-2, 3, 0), (0, -9, -27), (1, 1, 1)]


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.int32])
def test_equal_to_bioimage_cpp(dtype):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 5, (3, 6, 10)), np.ones((2, 3, 4), int)).astype(dtype)
    affinities, valid = affinities_from_labels(labels, OFFSETS, background=None)
    expected, inside = bioimage_cpp.affinities.compute_affinities(labels, OFFSETS)
    np.testing.assert_array_equal(valid, inside)
    np.testing.assert_array_equal(affinities, expected * inside)

    affinities, valid = affinities_from_labels(labels, OFFSETS, background=None, unlabelled=3)
    expected, known = bioimage_cpp.affinities.compute_affinities(labels, OFFSETS, ignore_label=3)
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(affinities, expected * known)


def test_the_whole_truth_table():
    # One row; each voxel and the one before it: outside, 5 5 same, 5 7 different, 7 0 and 0 0 and 0 7 background,
    # 7 9 and 9 9 and 9 0 and 0 9 unlabelled.
    row = np.array([5, 5, 7, 0, 0, 7, 9, 9, 0, 9])[None, None]
    affinities, valid = affinities_from_labels(row, [(0, 0, -1)], background=0, unlabelled=9)
    np.testing.assert_array_equal(affinities[0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(valid[0, 0, 0], [0, 1, 1, 1, 1, 1, 0, 0, 0, 0])


def test_ids_beyond_32_bits_stay_apart():
    row = np.array([2**40, 2**40, 2**40 + 2**32, 1, 2**63, 2**63], np.uint64)[None, None]
    affinities, valid = affinities_from_labels(row, [(0, 0, -1)], background=1, unlabelled=2**63)
    np.testing.assert_array_equal(affinities[0, 0, 0], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(valid[0, 0, 0], [0, 1, 1, 1, 0, 0])


BEFORE_AND_AFTER = """
1112222    1100222
1112222    1100000
1113333    0000000
3333333    0000333
333.333    333.000
333??11    333??00
"""


def test_widening_as_drawn():
    """Ids as digits, background as a dot or 0, unlabelled as a question mark."""
    codes = {".": 0, "?": -1}
    lines = [line.split() for line in BEFORE_AND_AFTER.strip().split("\n")]
    before, after = (
        np.array([[codes[c] if c in codes else int(c) for c in line[side]] for line in lines]) for side in (0, 1)
    )
    sections = jnp.asarray(np.stack([before, np.full_like(before, 4)]), jnp.int32)
    flat = widen_borders(sections, "2d", unlabelled=-1)
    np.testing.assert_array_equal(flat[0], after)
    np.testing.assert_array_equal(flat[1], 4)

    # In space every voxel has one of the other section's neurons beside it.
    deep = widen_borders(sections, "3d", unlabelled=-1)
    np.testing.assert_array_equal(deep[0], np.where(before == -1, -1, 0))
    np.testing.assert_array_equal(deep[1], 0)
    np.testing.assert_array_equal(widen_borders(sections, "none"), sections)


@pytest.mark.parametrize("radius", [1, 2])
def test_widening_by_faces_is_that_of_each_voxel(radius):
    """By the definition: another neuron at most `radius` steps away."""
    labels = np.random.default_rng(radius).choice([-1, 0, 1, 2], (4, 5, 6), p=[0.1, 0.5, 0.37, 0.03]).astype(np.int32)
    voxels = np.argwhere(labels > 0)
    ids = labels[tuple(voxels.T)]
    steps = np.abs(voxels[:, None] - voxels[None]).sum(-1)
    border = ((steps <= radius) & (ids[:, None] != ids[None])).any(1)
    expected = labels.copy()
    expected[tuple(voxels[border].T)] = 0
    assert 0.05 < border.mean() < 0.9
    found = widen_borders(jnp.asarray(labels), "faces", radius, unlabelled=-1)
    np.testing.assert_array_equal(found, expected)


def test_ideal_affinities_are_those_of_training_by_faces():
    labels = np.kron(np.random.default_rng(0).integers(0, 5, (3, 4, 5)), np.ones((3, 4, 2), np.int32))
    widened = widen_borders(jnp.asarray(labels, jnp.int32), "faces")
    assert 0 < (np.asarray(widened) > 0).sum() < (labels > 0).sum()
    expected, inside = affinities_from_labels(widened)
    found = ideal_affinities(labels, sigma=0.0)
    np.testing.assert_array_equal(found[inside], expected[inside])


def test_an_offset_that_is_none():
    with pytest.raises(UserError, match=r"not all of them 0; got \(0, 0, 0\)"):
        affinities_from_labels(np.ones((2, 2, 2), np.int32), [(0, 0, 0)])
