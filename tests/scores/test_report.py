"""Planted errors, the four ways, volumes on disk and bootstraps."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.scores import Conventions, report_segmentation, score_segmentation
from emsam_jax.scores.measures import bootstrap_objects, object_terms
from emsam_jax.scores.tabulate import tabulate
from emsam_jax.scores.worst_objects import locate


def draw_columns() -> np.ndarray:
    """Sixteen columns 1-16 along z, of 8 x 8 voxels each: [24, 32, 32]."""
    plane = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((8, 8), int))
    return np.repeat(plane[None], 24, axis=0)


TRUTH = draw_columns()


def test_a_planted_split_moves_split_only_and_is_named() -> None:
    labels = TRUTH + 100
    labels[6:][TRUTH[6:] == 7] = 999
    report = report_segmentation(labels, TRUTH, samples=20)
    quarter = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert report["all"]["voi_split"] == pytest.approx(quarter / 16)
    assert (report["all"]["voi_merge"], report["all"]["precision"]) == (0, 1)
    assert report["all"]["recall"] < 1
    assert report["worst"]["merges"] == []
    (row,) = report["worst"]["splits"]
    assert (row["id"], row["voxels"], row["pieces"]) == (7, 24 * 64, 2)
    assert row["bits"] == pytest.approx(quarter / 16)
    assert row["largest_pieces"] == [{"id": 999, "voxels": 18 * 64}, {"id": 107, "voxels": 6 * 64}]
    assert row["box_zyx"] == [[0, 24], [8, 16], [16, 24]]
    assert TRUTH[tuple(row["at_zyx"])] == 7
    json.dumps(report)


def test_what_the_largest_object_swallowed_is_told() -> None:
    """Left out, it takes its merges along."""
    truth, labels = TRUTH.copy(), TRUTH + 100
    truth[TRUTH <= 3] = 1
    labels[TRUTH <= 4] = 101  # with the largest: all of 4,
    labels[:6][TRUTH[:6] == 5] = 101  # and a quarter of 5
    labels[TRUTH == 6] = 0
    labels[:2][TRUTH[:2] == 1] = 107  # a piece of the largest is mostly another's: that one swallowed nothing
    report = report_segmentation(labels, truth, samples=20)
    without = report["without_largest"]
    assert without["left_out"] == 1
    assert without["voi_merge"] < 0.5 * report["all"]["voi_merge"]
    assert without["swallowed"] == {
        "segments": 1, "neurons": 1, "voxels": 24 * 64 + 6 * 64, "of_voxels": 13 * 24 * 64
    }  # fmt: skip


def test_a_planted_merge_moves_merge_only_and_is_named() -> None:
    labels = TRUTH + 100
    labels[labels == 108] = 107
    report = report_segmentation(labels, TRUTH, samples=20)
    assert report["all"]["voi_merge"] == pytest.approx(2 / 16)
    assert (report["all"]["voi_split"], report["all"]["recall"]) == (0, 1)
    assert report["all"]["precision"] < 1
    assert report["worst"]["splits"] == []
    (row,) = report["worst"]["merges"]
    assert (row["id"], row["voxels"], row["pieces"]) == (107, 2 * 24 * 64, 2)
    assert row["box_zyx"] == [[0, 24], [8, 16], [16, 32]]
    assert labels[tuple(row["at_zyx"])] == 107


@pytest.mark.slow
def test_errors_planted_in_a_real_volume(read_fib25) -> None:
    truth = read_fib25()[:40].astype(np.uint64)
    large = np.argsort(-np.bincount(truth.ravel().astype(int)))
    cut, first, second = (int(i) for i in large[large > 0][[0, 2, 4]])
    labels = np.where(truth == second, first, truth)
    labels[20:][truth[20:] == cut] = truth.max() + 1
    report = report_segmentation(labels, truth, samples=20)
    assert [row["id"] for row in report["worst"]["splits"]] == [cut]
    assert [row["id"] for row in report["worst"]["merges"]] == [first]
    assert {piece["id"] for piece in report["worst"]["merges"][0]["largest_pieces"]} == {first, second}
    for planted, moved, still in (
        (labels > truth.max(), "voi_split", "voi_merge"),
        (truth == second, "voi_merge", "voi_split"),
    ):
        alone = score_segmentation(np.where(planted, labels, truth), truth)
        assert alone[moved] == pytest.approx(report["all"][moved])
        assert alone[moved] > 0
        assert alone[still] == 0


def test_the_four_ways_by_hand() -> None:
    truth = TRUTH.copy()
    truth[truth == 2] = 1  # the largest object: two columns
    labels = truth.copy()
    labels[:, :8, 8:16] = 50  # ... cut in halves
    labels[:, :, 7] = labels[:, :, 8] = 60  # a sheet one voxel deep on both sides of a border
    labels[:4] = 70  # and everything merged near a face
    report = report_segmentation(labels, truth, margin_zyx=(4, 0, 0), samples=20)
    kept = truth != 1
    assert report["without_largest"]["left_out"] == 1
    assert report["without_largest"]["voi"] == pytest.approx(
        score_segmentation(labels, np.where(kept, truth, 0))["voi"]
    )
    assert report["interior"]["voi"] == pytest.approx(score_segmentation(labels[4:], truth[4:])["voi"])
    inside = [report[way]["voi"] for way in ("borders_ignored", "interior", "without_largest")]
    assert max(inside) < report["all"]["voi"]
    alone = labels.copy()
    alone[:4] = truth[:4]
    alone[:, :8, 8:16] = truth[:, :8, 8:16]
    # Between columns 1 and 2, which are one object, there is no border: there the sheet stays an error.
    without = score_segmentation(alone[:, 8:], truth[:, 8:], border=1, border_plane="2d")
    assert (without["voi"], score_segmentation(alone[:, 8:], truth[:, 8:])["voi"] > 0.1) == (0, True)


@pytest.mark.parametrize("threads", [1, 2])
def test_volumes_on_disk_equal_arrays(tmp_path: Path, threads: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (10, 12, 14)).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    labels = np.roll(truth * 7, (2, 1, 3), (0, 1, 2))
    mask = rng.random(truth.shape) > 0.1
    chosen = [
        Conventions(),
        Conventions(border=2, ignore_truth=(0, 3)),
        Conventions(border=1, border_plane="2d", margin_zyx=(11, 2, 13)),
    ]
    with h5py.File(tmp_path / "volumes.h5", "w") as file:
        on_disk = [file.create_dataset(n, data=v) for n, v in (("labels", labels), ("truth", truth), ("mask", mask))]
        blocks = tabulate(on_disk[0], on_disk[1], chosen, mask=on_disk[2], block_zyx=(8, 9, 10), threads=threads)
        place = locate(on_disk[0], [14])[14]
    for table, whole in zip(blocks, tabulate(labels, truth, chosen, mask=mask), strict=True):
        assert table.voxels > 0
        for field in ("segment", "truth", "count"):
            np.testing.assert_array_equal(getattr(table, field), getattr(whole, field))
    where = np.argwhere(labels == 14)
    np.testing.assert_array_equal(place["box_zyx"], np.stack([where.min(0), where.max(0) + 1], 1))
    assert labels[tuple(place["at_zyx"])] == 14


def bootstrap(labels: np.ndarray, truth: np.ndarray, samples: int) -> dict:
    (table,) = tabulate(labels, truth, [Conventions()])
    return bootstrap_objects(object_terms(table), samples=samples)


def test_bootstrap_over_objects() -> None:
    labels = TRUTH.copy()
    labels[12:] += 100  # every object alike: halves. VOI split is 1 bit whatever objects are drawn
    alike = bootstrap(labels, TRUTH, 100)
    assert alike["voi_split"] == pytest.approx((1, 1))
    assert alike["voi_merge"] == (0, 0)

    labels[TRUTH > 8] = TRUTH[TRUTH > 8]  # half of them, of one size: a mean of 16 fair coins
    # The 2.5% and 97.5% quantiles of binomial(16, 1/2) / 16.
    assert bootstrap(labels, TRUTH, 4000)["voi"] == pytest.approx((0.25, 0.75))
    assert bootstrap(np.ones_like(TRUTH), np.ones_like(TRUTH), 10)["voi"] is None


def test_what_has_merged_by_hand() -> None:
    merged = np.where(TRUTH > 8, 8, TRUTH)
    scores = [score_segmentation(labels, TRUTH) for labels in (TRUTH, merged, np.ones_like(TRUTH))]
    assert [score["largest_segment_share"] for score in scores] == pytest.approx([1 / 16, 9 / 16, 1])
    assert [score["voi_merge"] for score in scores] == pytest.approx([0, 9 / 16 * np.log2(9), 4])
    assert score_segmentation(TRUTH, np.zeros_like(TRUTH))["voi"] is None


def test_conventions_are_checked() -> None:
    with pytest.raises(UserError, match="voxels from 0 up, but are -1"):
        Conventions(border=-1)
    report = report_segmentation(TRUTH, np.zeros_like(TRUTH))
    assert "background" in report["all"]["reason"]
    assert report["worst"] == {"splits": [], "merges": []}


@pytest.mark.parametrize("plane", ["2d", "3d"])
def test_of_sparse_truth_labelled_voxels_alone_count(plane: str) -> None:
    """A lone section and a stroke: what lies beside them is neither scored nor a border of theirs."""
    rng = np.random.default_rng(0)
    known = np.zeros(TRUTH.shape, bool)
    known[11], known[4, 6:14] = True, True
    truth = np.where(known, TRUTH, 0)
    labels = rng.integers(1, 9, TRUTH.shape) + 10 * TRUTH
    scores = score_segmentation(labels, truth, mask=known)
    in_a_row = score_segmentation(labels[known][None, None], TRUTH[known][None, None])
    assert {**scores, "conventions": 0} == {**in_a_row, "conventions": 0}
    without = score_segmentation(labels, truth, mask=known, border=1, border_plane=plane)
    # Along x, 26 of 32 voxels lie off the cells' borders, along y too; of the stroke's rows, all but two.
    assert without["voxels"] == 26 * 26 + 6 * 26
