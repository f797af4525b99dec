"""Affinities of known volumes back to their labels; errors as sentences."""

import subprocess
import sys

import mahotas
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from emsam_jax.errors import UserError
from emsam_jax.segmentation import (
    FragmentParameters,
    ideal_affinities,
    make_fragments,
    segment_affinities,
    segmentations,
)
from emsam_jax.segmentation.agglomeration import SCORERS
from emsam_jax.segmentation.cleaning import compact
from emsam_jax.segmentation.fragments import _maximum_filter, regional_maxima
from tests.segmentation.cells import draw_cells

CELLS = draw_cells()
AFFINITIES = ideal_affinities(CELLS)
IN_3D = FragmentParameters(kind="3d", seed_distance=3)


def agreement(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of voxels in the pairing of each object with its largest segment, if no segment is used twice."""
    best = {int(i): np.bincount(labels[truth == i].astype(int)).argmax() for i in np.unique(truth)}
    assert len(set(best.values())) == len(best)
    return float(np.mean(labels == np.vectorize(best.get)(truth.astype(int))))


def test_components_equal_a_brute_force() -> None:
    rng = np.random.default_rng(1)
    affinities = rng.random((3, 5, 6, 7)).astype(np.float32)
    mask = rng.random((5, 6, 7)) > 0.2
    # In a grid of twice the size, voxels stand at even places and affinities between them.
    joined = np.zeros((10, 12, 14), bool)
    joined[::2, ::2, ::2] = mask
    pairs = np.argwhere(mask)
    for z, y, x in pairs:
        for c, (dz, dy, dx) in enumerate(np.eye(3, dtype=int)):
            before = (z - dz, y - dy, x - dx)
            if min(before) >= 0 and mask[before] and affinities[c, z, y, x] > 0.6:
                joined[2 * z - dz, 2 * y - dy, 2 * x - dx] = True
    expected = np.asarray(label(joined, connectivity=1))[::2, ::2, ::2]
    sizes = np.bincount(expected.ravel())
    expected[(sizes == 1)[expected]] = 0
    found = segment_affinities(affinities, "components", 0.4, mask=mask)
    np.testing.assert_array_equal(found > 0, expected > 0)
    assert len(np.unique(np.stack([found.ravel(), expected.astype(np.uint64).ravel()]), axis=1).T) == found.max() + 1
    assert set(np.unique(found)) == set(range(int(found.max()) + 1))


def test_hard_affinities_come_back_by_components() -> None:
    hard = ideal_affinities(CELLS, widen=False, sigma=0.0)
    assert agreement(segment_affinities(hard, "components"), CELLS) == 1


@pytest.mark.parametrize("kind", ["2d", "3d", "affinities"])
@pytest.mark.parametrize("scorer", ["mean", "q50"])
def test_waterz_finds_the_cells(kind: str, scorer: str) -> None:
    labels = segment_affinities(
        AFFINITIES, threshold=0.6, fragments=FragmentParameters(kind, seed_distance=3), scorer=scorer
    )
    assert agreement(labels, CELLS) > 0.97
    assert set(np.unique(labels)) == set(range(1, int(labels.max()) + 1))


def test_one_pass_equals_one_call_a_threshold() -> None:
    thresholds = [0.2, 0.5, 0.8]
    passed = list(segmentations(AFFINITIES, thresholds, fragments=IN_3D))
    assert [int(labels.max()) for labels in passed] == [13, 12, 12]
    for threshold, labels in zip(thresholds, passed, strict=True):
        np.testing.assert_array_equal(labels, segment_affinities(AFFINITIES, threshold=threshold, fragments=IN_3D))


def test_threshold_means_merge_above_one_minus_it() -> None:
    """Two blocks with affinity 0.3 between them."""
    blocks = np.ones((1, 8, 16), np.uint64)
    blocks[..., 8:] = 2
    affinities = np.ones((3, 1, 8, 16), np.float32)
    affinities[2, :, :, 8] = 0.3
    for method in ("waterz", "components"):
        below, above = segmentations(affinities, [0.65, 0.75], method, fragments=blocks)
        assert (below.max(), above.max()) == (2, 1), method


def test_sections_in_threads_and_by_themselves() -> None:
    parameters = FragmentParameters("2d", seed_distance=3)
    fragments = make_fragments(AFFINITIES, parameters)
    np.testing.assert_array_equal(fragments, make_fragments(AFFINITIES, parameters, threads=2))
    assert all(len(np.unique(np.argwhere(fragments == i)[:, 0])) == 1 for i in range(1, int(fragments.max()) + 1, 7))
    assert set(np.unique(fragments)) == set(range(1, int(fragments.max()) + 1))


@pytest.mark.parametrize("shape", [(40, 50), (12, 20, 30), (1, 7)])
def test_regional_maxima_equal_those_of_mahotas(shape: tuple[int, ...]) -> None:
    """On few levels, so that plateaus are large."""
    values = np.random.default_rng(0).integers(0, 4, shape)
    expected, count = mahotas.label(mahotas.regmax(values) & (values > 0))
    found = regional_maxima(values.astype(np.float32), values > 0)
    np.testing.assert_array_equal(found > 0, expected > 0)
    assert found.max() == count
    assert len(np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1).T) == count + 1


def test_fragments_of_regional_maxima_have_the_literatures_seeds() -> None:
    noisy = np.clip(AFFINITIES + np.random.default_rng(0).normal(0, 0.3, AFFINITIES.shape), 0, 1).astype(np.float32)
    fragments = make_fragments(noisy, FragmentParameters("2d", seed_distance=0))
    for section, (_, y, x) in zip(fragments, np.moveaxis(noisy, 1, 0), strict=True):
        seeds, count = mahotas.label(mahotas.regmax(ndimage.distance_transform_edt((y + x) / 2 > 0.5)))
        assert len(np.unique(section)) == count
        at = seeds > 0
        assert len(np.unique(np.stack([section[at], seeds[at].astype(np.uint64)]), axis=1).T) == count


@pytest.mark.parametrize(("shape", "radius"), [((30,), 1), ((30, 17), 5), ((6, 7, 40), 7)])
def test_maximum_filter_equals_scipys(shape: tuple[int, ...], radius: int) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    expected = ndimage.maximum_filter(values, 2 * radius + 1, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(_maximum_filter(values, radius), expected)


@pytest.mark.parametrize("kind", ["2d", "3d", "affinities"])
def test_mask_and_small_fragments(kind: str) -> None:
    mask = np.ones(CELLS.shape, bool)
    mask[:, 20:30] = False
    fragments = make_fragments(AFFINITIES, FragmentParameters(kind, seed_distance=1, min_size=30), mask=mask)
    np.testing.assert_array_equal(fragments > 0, mask)
    assert np.bincount(fragments.ravel())[1:].min() >= 30
    labels = segment_affinities(AFFINITIES, fragments=FragmentParameters(kind, seed_distance=3), mask=mask)
    np.testing.assert_array_equal(labels > 0, mask)
    assert not set(np.unique(labels[:, :20])) & set(np.unique(labels[:, 30:]))


def test_fragments_of_ones_own_keep_their_ids_and_may_be_sparse() -> None:
    own = make_fragments(AFFINITIES, IN_3D) * np.uint64(10**12)
    before = own.copy()
    labels = segment_affinities(AFFINITIES, fragments=own)
    np.testing.assert_array_equal(own, before)
    np.testing.assert_array_equal(labels, segment_affinities(AFFINITIES, fragments=IN_3D))


def test_every_scorer_named_is_built_in() -> None:
    """In a process without a compiler or Cython to fall back on."""
    code = (
        "import sys; sys.modules['witty'] = None\n"
        "import numpy as np\n"
        "from emsam_jax.segmentation import segment_affinities\n"
        "from emsam_jax.segmentation.agglomeration import SCORERS\n"
        "affinities = np.full((3, 2, 8, 8), 0.9, np.float32)\n"
        "for scorer in SCORERS: assert segment_affinities(affinities, scorer=scorer).max() == 1, scorer\n"
        "import emsam_jax.segmentation.blockwise\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(SCORERS) == 37


def test_waterz_is_silent_and_other_output_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    segment_affinities(AFFINITIES, fragments=IN_3D)
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_half_and_integer_affinities_are_taken() -> None:
    exact = np.round(AFFINITIES * 255) / 255
    expected = segment_affinities(exact.astype(np.float32), fragments=IN_3D)
    np.testing.assert_array_equal(segment_affinities(np.round(exact * 255).astype(np.uint8), fragments=IN_3D), expected)
    assert agreement(segment_affinities(AFFINITIES.astype(np.float16), threshold=0.6, fragments=IN_3D), CELLS) > 0.97


def spoiled(value: float) -> np.ndarray:
    affinities = AFFINITIES.copy()
    affinities[1, 2, 3, 4] = value
    return affinities


@pytest.mark.parametrize(
    ("affinities", "options", "message"),
    [
        (AFFINITIES[0], {}, "have 3 axes"),
        (AFFINITIES[:2], {}, "3 short channels"),
        (AFFINITIES[:, :0], {}, "must have voxels"),
        (spoiled(np.nan), {}, "1 are NaN"),
        (spoiled(1.5), {}, "to 1.5"),
        (spoiled(-3), {}, "from -3"),
        ((AFFINITIES > 0.5).astype(np.int32), {}, "int32"),
        (AFFINITIES, {"method": "magic"}, "waterz, .*'magic'"),
        (AFFINITIES, {"threshold": 1.5}, "between 0 and 1"),
        (AFFINITIES, {"scorer": "median"}, "compiler for the scorer 'median'; built in are mean, .* q50"),
        (AFFINITIES, {"mask": np.ones((3, 4, 5), bool)}, r"shape \(24, 60, 64\)"),
        (AFFINITIES, {"fragments": np.ones((3, 4, 5), int)}, r"shape \(24, 60, 64\)"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(affinities: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        segment_affinities(affinities, **options)


def test_unsorted_thresholds_are_refused() -> None:
    with pytest.raises(UserError, match="sort them"):
        segmentations(AFFINITIES, [0.5, 0.3])


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_ids_beyond_any_table_are_numbered_in_their_order(background, in_place):
    rng = np.random.default_rng(0)
    ids = np.sort(rng.integers(1, 1 << 63, 50, dtype=np.uint64))
    ids[-1], ids[0] = np.uint64((1 << 64) - 1), np.uint64(0) if background else ids[0]
    drawn = rng.permutation(np.arange(20 * 50) % 50).reshape(10, 10, 10)
    labels = ids[drawn]
    found = compact(labels, out=labels if in_place else np.empty_like(labels))
    assert (found == drawn + (not background)).all()
    assert in_place or (labels == ids[drawn]).all()
