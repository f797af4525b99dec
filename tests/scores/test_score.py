"""Scores against scikit-image, waterz and hand-computed answers."""

import numpy as np
import pytest
import waterz
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import relabel_sequential

from emsam_jax.errors import UserError
from emsam_jax.scores import contingency, count_pairs, score_segmentation
from emsam_jax.scores.contingency import merge_tables


def random_labels(seed: int, highest: int, shape: tuple[int, ...] = (9, 20, 31)) -> np.ndarray:
    """Blocky labels, so that runs of several lengths occur."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, highest, [-(-n // 3) for n in shape])
    return np.kron(small, np.ones([3] * len(shape), int))[tuple(slice(n) for n in shape)]


def assert_equals_peers(labels: np.ndarray, truth: np.ndarray) -> None:
    ours = score_segmentation(labels, truth)
    small_labels, small_truth = (relabel_sequential(v.astype(np.int64))[0] for v in (labels, truth))
    # scikit-image calls the pairs in truth's share "precision"; its documentation says the opposite.
    error, recall, precision = adapted_rand_error(small_truth, small_labels, ignore_labels=(0,))
    split, merge = variation_of_information(small_truth, small_labels, ignore_labels=(0,))
    expected = {"arand": error, "precision": precision, "recall": recall, "voi_split": split, "voi_merge": merge}
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    theirs = waterz.evaluate(small_labels.astype(np.uint64), small_truth.astype(np.uint64))
    assert ours["voi_split"] == pytest.approx(theirs["voi_split"], abs=1e-5)
    assert ours["voi_merge"] == pytest.approx(theirs["voi_merge"], abs=1e-5)


@pytest.mark.parametrize("scale", [1, 2**33 + 7, 2**58 - 3], ids=["small", "beyond 2^32", "near 2^64"])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_labels(seed: int, scale: int) -> None:
    labels, truth = random_labels(seed, 12), random_labels(seed + 10, 9)
    assert_equals_peers(labels.astype(np.uint64) * np.uint64(scale), truth.astype(np.uint64) * np.uint64(scale))


def test_degenerate_labels() -> None:
    one, many = np.ones((4, 5, 6), np.uint8), np.arange(1, 121).reshape(4, 5, 6)
    assert_equals_peers(one, one)
    assert_equals_peers(one, random_labels(3, 7, (4, 5, 6)))
    assert_equals_peers(random_labels(3, 7, (4, 5, 6)), one)
    assert score_segmentation(one, many)["voi_merge"] == pytest.approx(np.log2(120))
    assert score_segmentation(many, many)["arand"] == 0


@pytest.mark.slow
def test_real_labels(read_fib25) -> None:
    truth = read_fib25()[:20]
    assert_equals_peers(read_fib25("supervoxels")[:20], truth)
    assert_equals_peers(read_fib25(file="fib25_training2_ffn.h5")[:20], truth)


def test_background_alone_is_null_with_a_reason() -> None:
    scores = score_segmentation(np.ones((2, 3, 4), int), np.zeros((2, 3, 4), int))
    assert scores["voi"] is None
    assert scores["arand"] is None
    assert "background" in scores["reason"]


def test_scores_by_hand() -> None:
    truth = np.array([[1, 1, 1, 1, 2, 2, 0, 0]])
    labels = np.array([[5, 5, 0, 0, 0, 0, 7, 7]])
    # Object 1 is cut in halves: 4 voxels of 1 bit. Segment 0 holds 2 + 2 voxels of two objects: 4 voxels of 1 bit.
    scores = score_segmentation(labels, truth)
    assert scores["voi_split"] == pytest.approx(4 / 6)
    assert scores["voi_merge"] == pytest.approx(4 / 6)
    # Ordered pairs: joined in both 2 + 2 + 2, in truth 12 + 2, in labels 2 + 12.
    assert scores["arand"] == pytest.approx(1 - 12 / 28)
    assert scores["cremi_score"] == pytest.approx(np.sqrt(8 / 6 * (1 - 12 / 28)))
    assert scores["conventions"]["ignore_truth"] == [0]

    # Without segment 0 what is left is two voxels of object 1 in one segment.
    ignored = score_segmentation(labels, truth, unsegmented="ignore")
    assert (ignored["voi"], ignored["arand"], ignored["voxels"]) == (0, 0, 2)
    # As four objects of one voxel they merge nothing: object 1 is in parts 2, 1, 1 (1.5 bits), object 2 in 1, 1.
    alone = score_segmentation(labels, truth, unsegmented="singletons")
    assert alone["voi_merge"] == 0
    assert alone["voi_split"] == pytest.approx((4 * 1.5 + 2 * 1) / 6)
    assert alone["arand"] == pytest.approx(1 - 2 * 2 / (14 + 2))
    # With no id of the truth ignored, its 0 is an object like the others.
    assert score_segmentation(labels, truth, ignore_truth=())["voxels"] == 8


def test_singletons_are_segments_of_one_voxel() -> None:
    labels, truth = random_labels(4, 5), random_labels(5, 6)
    apart = np.where(labels == 0, np.arange(labels.size).reshape(labels.shape) + 1000, labels)
    ours, plain = score_segmentation(labels, truth, unsegmented="singletons"), score_segmentation(apart, truth)
    for name in ("voi_split", "voi_merge", "arand", "precision", "recall"):
        assert ours[name] == pytest.approx(plain[name], abs=1e-12), name


def test_borders_left_out_by_hand() -> None:
    truth = np.repeat([[[1, 2]]], 5, axis=2).repeat(3, 1).repeat(3, 0)  # [3, 3, 10]: a plane of x between 4 and 5
    labels = np.ones_like(truth)
    assert score_segmentation(labels, truth, border=1)["voxels"] == 9 * 8
    assert score_segmentation(labels, truth, border=3)["voxels"] == 9 * 4
    stacked = truth.transpose(2, 1, 0)  # the same border between sections: seen in 3D only
    assert score_segmentation(stacked, stacked, border=1, border_plane="2d")["voxels"] == 90
    assert score_segmentation(stacked, stacked, border=2, border_plane="3d")["voxels"] == 9 * 6
    across = truth.transpose(0, 2, 1)
    assert score_segmentation(across, across, border=2, border_plane="2d")["voxels"] == 9 * 6


def test_masked_voxels_do_not_count() -> None:
    labels, truth = random_labels(6, 5), random_labels(7, 5)
    mask = random_labels(8, 2) > 0
    masked = score_segmentation(labels, truth, mask=mask)
    assert masked["voi"] == pytest.approx(score_segmentation(labels, np.where(mask, truth, 0))["voi"])


def test_a_table_in_pieces_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, truth = random_labels(1, 12), random_labels(2, 9)
    pairs, counts = np.unique(np.stack([truth.ravel(), labels.ravel()]), axis=1, return_counts=True)
    monkeypatch.setattr(contingency, "CHUNK", 37)
    monkeypatch.setattr(contingency, "_MERGE_AT", 50)
    halves = merge_tables([count_pairs(labels[:4], truth[:4]), count_pairs(labels[4:], truth[4:])])
    for table in (count_pairs(labels, truth), halves):
        np.testing.assert_array_equal(np.stack([table.truth, table.segment]), pairs)
        np.testing.assert_array_equal(table.count, counts)


@pytest.mark.parametrize(
    ("labels", "truth", "options", "message"),
    [
        (np.ones((2, 3, 4), int), np.ones((2, 3, 5), int), {}, r"labels are \(2, 3, 4\) and truth is \(2, 3, 5\)"),
        (np.ones((0, 3, 4), int), np.ones((0, 3, 4), int), {}, "must have voxels"),
        (np.ones(4, int), np.ones(4, int), {}, "have 1 axes"),
        (-np.ones((2, 3, 4), int), np.ones((2, 3, 4), int), {}, "contain -1"),
        (np.ones((2, 3, 4), int), np.ones((2, 3, 4), int), {"unsegmented": "zero"}, "singletons, but is 'zero'"),
        (np.ones((2, 3, 4), int), np.ones((2, 3, 4), int), {"mask": np.ones((2, 3), bool)}, "mask"),
    ],
)
def test_wrong_volumes_get_a_sentence(labels: np.ndarray, truth: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_segmentation(labels, truth, **options)
