"""Raw, labels and mask meet in world coordinates; ids are read by the declared rules. Against hand-drawn arrays."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.config import DeclaredVolume, Intensity, LabelRules
from emsam_jax.config.declared import CREMI_OUTSIDE
from emsam_jax.volumes import Box, Specimen, Volume, create_volume, open_declared

WHOLE = Box((0, 0, 0), (6, 8, 8))


def volume(folder: Path, name: str, values: np.ndarray, size: tuple, offset: tuple = (0, 0, 0)) -> Volume:
    made = create_volume(folder / name, values.shape, values.dtype, size, offset_zyx=offset)
    made[:] = values
    return made


@pytest.fixture
def raw(tmp_path: Path) -> Volume:
    values = np.arange(6 * 8 * 8, dtype=np.uint16).reshape(6, 8, 8)
    return volume(tmp_path, "raw.zarr", values, (40, 4, 4), (80, 40, 40))


def test_labels_of_half_the_resolution_and_another_extent(tmp_path: Path, raw: Volume):
    """Labels of 40x8x8 nm begin one section and four pixels into the raw, and cover 2 sections and 4x4 pixels."""
    small = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 0]]], np.uint64)
    labels = volume(tmp_path, "labels.zarr", small, (40, 8, 8), (120, 56, 56))
    specimen = Specimen(raw, labels)
    expected, known = np.zeros(WHOLE.shape, np.uint64), np.zeros(WHOLE.shape, bool)
    expected[1:3, 4:8, 4:8] = small.repeat(2, 1).repeat(2, 2)
    known[1:3, 4:8, 4:8] = True

    ids, labelled = specimen.read_labels(WHOLE)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(labelled, known)
    assert specimen.labelled_region == Box((1, 4, 4), (3, 8, 8))
    part = Box((2, 3, 5), (9, 6, 12))  # reaches beyond everything
    ids, labelled = specimen.read_labels(part)
    np.testing.assert_array_equal(ids[:4, :, :3], expected[2:, 3:6, 5:])
    assert not labelled[4:].any()
    assert not labelled[..., 3:].any()


def test_finer_labels_give_the_voxel_at_each_centre(tmp_path: Path, raw: Volume):
    fine = np.arange(6 * 24 * 24, dtype=np.uint32).reshape(6, 24, 24)
    labels = volume(tmp_path, "labels.zarr", fine, (40, 4 / 3, 4 / 3), (80, 40, 40))
    ids, labelled = Specimen(raw, labels).read_labels(WHOLE)
    np.testing.assert_array_equal(ids, fine[:, 1::3, 1::3])
    assert labelled.all()


def test_rules_and_mask(tmp_path: Path, raw: Volume):
    """Unlabelled comes before background; what the mask leaves out is unlabelled; 0 is both kinds of nothing."""
    drawn = np.full((6, 8, 8), 5, np.uint64)
    drawn[:, :, 0], drawn[:, :, 1], drawn[:, :, 2], drawn[:, :, 3] = 0, 7, CREMI_OUTSIDE, 9
    inside = np.ones((3, 8, 8), np.uint8)
    inside[:, :2] = 0
    labels = volume(tmp_path, "labels.zarr", drawn, (40, 4, 4), (80, 40, 40))
    mask = volume(tmp_path, "mask.zarr", inside, (40, 4, 4), (80, 40, 40))  # covers half of the sections
    specimen = Specimen(raw, labels, mask, rules=LabelRules(background=(0, 7), unlabelled=(CREMI_OUTSIDE, 9, -1)))
    ids, labelled = specimen.read_labels(WHOLE)
    expected = np.zeros((6, 8, 8), np.uint64)
    expected[:3, 2:, 4:] = 5
    known = np.zeros((6, 8, 8), bool)
    known[:3, 2:] = [True, True, False, False, True, True, True, True]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(labelled, known)


def test_sparse_truth_is_found(tmp_path: Path, raw: Volume):
    """Two painted sections, the rest an ignore id."""
    drawn = np.full((6, 8, 8), 255, np.uint8)
    drawn[2, :4], drawn[5, 6:, 7:] = 3, 4
    labels = volume(tmp_path, "labels.zarr", drawn, (40, 4, 4), (80, 40, 40))
    specimen = Specimen(raw, labels, rules=LabelRules(unlabelled=(255,)))
    boxes = list(specimen.labelled_boxes((2, 4, 8)))
    assert boxes == [(Box((2, 0, 0), (4, 4, 8)), 32), (Box((4, 4, 0), (6, 8, 8)), 2)]


def test_declared_in_a_config(tmp_path: Path, raw: Volume):
    volume(tmp_path, "labels.zarr", np.ones((6, 8, 8), np.uint8), (1, 1, 1))
    declared = DeclaredVolume(
        raw=raw.url,
        labels=str(tmp_path / "labels.zarr"),
        labels_voxel_size_zyx=(40.0, 4.0, 4.0),
        labels_offset_zyx=(80.0, 44.0, 40.0),
        raw_offset_zyx=(80.0, 40.0, 40.0),
        roi="1:5,:,2:",
        intensity=Intensity(low=100.0, high=200.0, invert=True),
    )
    specimen = open_declared(declared)
    assert specimen.region == Box((1, 0, 2), (5, 8, 8))
    assert specimen.labelled_region == Box((1, 1, 2), (5, 8, 8))
    values = specimen.read_normalised(WHOLE)
    np.testing.assert_allclose(values, 1 - np.clip((raw[:] - 100.0) / 100, 0, 1), atol=1e-6)


def test_intensity_by_percentiles_and_by_type(tmp_path: Path):
    values = np.random.default_rng(0).normal(30000, 2000, (40, 200, 210)).astype(np.uint16)
    em = volume(tmp_path, "raw.zarr", values, (10, 10, 10))
    low, high = Specimen(em, intensity=Intensity(low=1.0, high=99.0, percentiles=True)).intensity_range
    np.testing.assert_allclose([low, high], np.percentile(values, [1, 99]), rtol=2e-3)
    assert Specimen(em).intensity_range == (0, 65535)
